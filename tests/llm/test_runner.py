import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from echo_engine import EchoEngine
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import BudgetError
from palate.llm.budget import Budget, Claims, forget
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound
from palate.llm.runner import Runner
from palate.testing import ask_user


def questions(n, first=0):
    return [ask_user(f"say {number}") for number in range(first, first + n)]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "l.sqlite") as ledger:
        yield ledger


@given(
    words=st.lists(st.integers(0, 12), max_size=40),
    known=st.sets(st.integers(0, 12)),
    places=st.integers(1, 6),
    window=st.integers(1, 20),
    ordered=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_each_place_gets_its_own_answer_and_nothing_is_asked_twice(
    tmp_path_factory, words, known, places, window, ordered, seed
):
    folder = tmp_path_factory.mktemp("run")
    engine = EchoEngine(folder / "log", places, seed=seed)
    with Ledger(folder / "l.sqlite") as ledger:
        for word in known:
            ledger.put(ask_user(f"say {word}"), Answer(str(word), model="echo-1", engine="echo"), "echo-1")
        runner = Runner(engine, ledger, ordered=ordered, window=window)
        outcomes = list(runner.run(ask_user(f"say {word}") for word in words))
    if ordered:
        assert [outcome.number for outcome in outcomes] == list(range(len(words)))
    assert {outcome.number: outcome.answer.text for outcome in outcomes} == dict(enumerate(map(str, words)))
    assert sorted(engine.asked()) == sorted(f"say {word}" for word in set(words) - known)
    assert runner.spent.calls + runner.spent.cached == len(words)


def test_what_is_handed_out_is_already_kept(tmp_path, ledger):
    for outcome in Runner(EchoEngine(tmp_path / "log"), ledger).run(questions(20)):
        with Ledger(ledger.path) as other:
            assert other.get([outcome.request.key("echo-1")])


def test_the_input_is_read_as_it_is_needed(tmp_path, ledger):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield ask_user(f"say {read}")

    outcomes = Runner(EchoEngine(tmp_path / "log"), ledger, window=300).run(endless())
    first = [next(outcomes) for _ in range(10)]
    outcomes.close()
    assert [outcome.answer.text for outcome in first] == [str(number + 1) for number in range(10)]
    assert read <= 600


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path, ledger):
    runner = Runner(EchoEngine(tmp_path / "log", places=64), ledger, window=200)
    list(runner.run(questions(1000)))  # caches are warm now
    tracemalloc.start()
    for _ in runner.run(ask_user(f"say {number}") for number in range(6_000)):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 2**20


def test_a_stop_finishes_what_is_in_flight(tmp_path, ledger):
    engine = EchoEngine(tmp_path / "log", places=4)
    runner = Runner(engine, ledger)
    outcomes = []
    for outcome in runner.run(questions(100)):
        outcomes.append(outcome)
        if len(outcomes) == 10:
            runner.stop()
    asked = engine.asked()
    assert len(asked) < 30
    assert ledger.count() == len(asked)
    rest = Runner(engine, ledger)
    assert len(list(rest.run(questions(100)))) == 100
    assert len(engine.asked()) == 100


def test_a_run_that_is_abandoned_leaves_no_claims(tmp_path, ledger):
    outcomes = Runner(EchoEngine(tmp_path / "log"), ledger).run(questions(50))
    next(outcomes)
    outcomes.close()
    with closing(Claims(ledger.path, Budget("other"))) as claims:
        assert not claims.others()
        assert not claims.claim([(request.key("echo-1"), Bound()) for request in questions(50, 50)]).elsewhere


@pytest.mark.parametrize(
    ("budget", "most"),
    [
        (Budget("b", calls=7), 7),
        (Budget("b", tokens=59), 5),  # a call takes 8 tokens but 10 are reserved for it
        (Budget("b", money=0.0032), 5),  # 0.0005 each, 0.001 reserved
        (Budget("b", calls=0), 0),
    ],
)
def test_no_call_is_made_that_might_pass_the_budget(tmp_path, ledger, budget, most):
    engine = EchoEngine(tmp_path / "log", places=3)
    with pytest.raises(BudgetError, match="might pass the budget") as caught:
        list(Runner(engine, ledger, budget).run(questions(50)))
    assert len(engine.asked()) >= most
    spent = len(engine.asked())
    assert spent <= (budget.calls if budget.calls is not None else spent)
    assert spent * 8 <= (budget.tokens or spent * 8)
    assert spent * 0.0005 <= (budget.money or spent)
    assert "budget b" in str(caught.value)
    assert ledger.count() == spent
    # The same run started again has nothing left; a forgotten one has.
    with pytest.raises(BudgetError):
        list(Runner(engine, ledger, budget).run(questions(50)))
    assert len(engine.asked()) == spent
    forget(ledger.path, "b")
    assert len(list(Runner(engine, ledger, Budget("b", calls=50)).run(questions(50)))) == 50


def test_progress_tells_what_a_person_wants_to_know(tmp_path, ledger):
    seen = []
    runner = Runner(EchoEngine(tmp_path / "log", pause=0.005), ledger, on_progress=seen.append)
    list(runner.run(questions(30), total=30))
    last = seen[-1]
    assert (last.done, last.total, last.failed, last.cached) == (30, 30, 0, 0)
    assert last.requests_per_second > 0
    assert last.tokens_per_second == pytest.approx(8 * last.requests_per_second)
    assert last.cost == pytest.approx(0.015)
    assert last.seconds_left == 0
    assert [standing.done for standing in seen] == sorted(standing.done for standing in seen)


_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from echo_engine import EchoEngine
from palate.errors import BudgetError
from palate.llm.budget import Budget
from palate.llm.ledger import Ledger
from palate.llm.runner import Runner
from palate.testing import ask_user
folder, calls = Path(sys.argv[1]), int(sys.argv[2])
engine = EchoEngine(folder / "log", places=5, pause=0.002, seed=int(sys.argv[4]))
with Ledger(folder / "l.sqlite") as ledger:
    try:
        runner = Runner(engine, ledger, Budget("shared", calls=calls))
        outcomes = list(runner.run(ask_user(f"say {n}") for n in range(300)))
    except BudgetError:
        sys.exit(3)
assert [outcome.answer.text for outcome in outcomes] == [str(n) for n in range(300)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "code"), [(300, 0), (120, 3)])
def test_four_processes_share_a_ledger_and_a_budget(tmp_path, calls, code):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _PROCESS, str(tmp_path), str(calls), here]
    processes = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [code] * 4
    asked = (tmp_path / "log").read_text().splitlines()
    assert len(asked) == len(set(asked)) == calls
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.count() == calls
