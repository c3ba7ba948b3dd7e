"""Asking on a local Ray of two workers: nothing lost, nothing asked twice but what was in flight, no overspend."""

import os
import signal
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")
# Ray's own code uses what it deprecates.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from batch_samples import EchoBodies, line  # noqa: E402

from palate.errors import BudgetError  # noqa: E402
from palate.llm.budget import Budget, Claims  # noqa: E402
from palate.llm.ledger import Ledger  # noqa: E402
from palate.llm.ray_run import RayRun, adopt, kept  # noqa: E402
from palate.llm.request import Answer, Request  # noqa: E402
from palate.llm.runner import Runner  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # workers import the sample engine
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=here)
    yield
    ray.shutdown()


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def asking(n, word="say"):
    return [Request(body=line("x", f"{word} {i}")["body"], purpose="batch") for i in range(n)]


def texts(requests, ledger, errors=()):
    return [outcome.answer.text for outcome in kept(iter(requests), ledger, "m", dict(errors))]


def test_only_what_is_missing_is_asked_and_once(tmp_path, ledger):
    requests, engine = asking(60), EchoBodies(tmp_path / "log")
    ledger.put(requests[0], Answer("before", {"a": 1}, model="m"), "m")
    refused = Request(body=line("x", "FAIL")["body"])
    asked = RayRun(partial(EchoBodies, engine.log), "m", ledger, Budget("run"), 2).ask([*requests, refused, *requests])
    assert sorted(engine.asked()) == sorted(["FAIL", *(f"say {i}" for i in range(1, 60))])
    assert texts([*requests, refused], ledger) == ["before", *(str(i) for i in range(1, 60)), ""]
    assert asked.errors == {refused.key("m"): "HTTP 400: refused"}
    assert (asked.spent.calls, asked.spent.failed) == (60, 1)
    assert not list((tmp_path / "ledger.sqlite-segments").iterdir())


def test_a_worker_killed_in_the_middle_loses_nothing(tmp_path, ledger):
    requests, engine = asking(120), EchoBodies(tmp_path / "log", places=3)
    run = RayRun(partial(EchoBodies, engine.log, 3, 0.1), "m", ledger, Budget("run"), 2)
    killed = []

    def kill():
        segments = tmp_path / "ledger.sqlite-segments"
        while len(engine.asked()) < 40:
            time.sleep(0.05)
        owner = min(segments.glob("run-*/*.sqlite-owner-*"))  # named after the process that holds it
        killed.append(int(owner.name.split("-")[-2]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    asked = run.ask(iter(requests))
    killer.join(timeout=30)
    assert killed
    assert asked.errors == {}
    assert texts(requests, ledger) == [str(i) for i in range(120)]
    assert set(engine.asked()) == {f"say {i}" for i in range(120)}
    assert len(engine.asked()) <= 120 + 3


def test_segments_of_a_killed_run_are_merged_at_the_next_start(tmp_path, ledger):
    requests, engine = asking(30), EchoBodies(tmp_path / "log")
    orphan = tmp_path / "ledger.sqlite-segments" / "run-killed"
    orphan.mkdir(parents=True)
    with Ledger(orphan / "2-0.sqlite") as segment:
        list(Runner(engine, segment).run(requests[:20]))
    asked = RayRun(partial(EchoBodies, engine.log), "m", ledger, Budget("run"), 2).ask(requests)
    assert asked.spent.calls == 10
    assert len(engine.asked()) == 30
    assert texts(requests, ledger) == [str(i) for i in range(30)]
    assert not orphan.exists()


def test_segments_of_a_living_run_are_left_alone(tmp_path, ledger):
    import fcntl

    folder = tmp_path / "ledger.sqlite-segments" / "run-lives"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        adopt(ledger.path)
        assert folder.exists()
    adopt(ledger.path)
    assert not folder.exists()


def test_workers_together_keep_to_the_budget_and_use_all_of_it(tmp_path, ledger):
    requests, engine = asking(60), EchoBodies(tmp_path / "log")
    run = RayRun(partial(EchoBodies, engine.log), "m", ledger, Budget("run", calls=25), 2)
    for _ in range(2):
        with pytest.raises(BudgetError):
            run.ask(requests)
        assert len(engine.asked()) == 25
        assert ledger.count() == 25
    with closing(Claims(ledger.path, Budget("run", calls=25))) as claims:
        assert claims.spent()[:2] == (25, 25 * 9)


def test_a_stop_finishes_what_is_in_flight(tmp_path, ledger):
    requests, engine = asking(200), EchoBodies(tmp_path / "log")
    run = RayRun(partial(EchoBodies, engine.log, 4, 0.05), "m", ledger, Budget("run"), 2)

    def stop():
        while len(engine.asked()) < 20:
            time.sleep(0.05)
        run.stop()

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    asked = run.ask(requests)
    stopper.join(timeout=30)
    assert asked.stopped
    assert 20 <= len(engine.asked()) == ledger.count() < 200
