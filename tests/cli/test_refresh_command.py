"""`palate refresh`: what came is asked about once, the most valuable first, within the budget, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from film_project import FilmEngine, palate, project  # noqa: F401  (fixtures)

from palate.cli import refresh as command
from palate.cli.refresh import seconds_of
from palate.errors import InputError, PalateError
from palate.llm.ledger_tools import records
from palate.project import watching
from palate.project.lock import alone
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.refresh import Limits, Refresh
from palate.project.watching import Watch
from palate.serving.landing import land, land_items
from palate.serving.state import Event, KeptItem, State, open_state

NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def stand_ins(palate, project):  # noqa: F811
    """The fakes that `palate` puts in place; the project's LLM reads 60 films."""
    config = yaml.safe_load((project / "palate.yaml").read_text())
    config |= {"annotate": {"items": 60}, "refresh": {"factors": "films", "answer": "closed"}}
    (project / "palate.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def state(project: Path) -> State:  # noqa: F811
    with closing(open_state(f"sqlite:{project / '.palate' / 'state.sqlite'}")) as opened:
        yield opened


def put(state: State, *ids: str) -> None:
    items = [{"item_id": each, "title": f"Film {each}", "text": f"a meadow {each}", "categories": []} for each in ids]
    state.put_items([KeptItem({**item, "year": None, "vector": None}, "s", [0.0], 0, {}) for item in items])


def happen(state: State, user: str, items: list[str], day: int = 0) -> None:
    start = NOW + timedelta(days=day)
    times = [int((start + timedelta(minutes=k)).timestamp() * 1e6) for k in range(len(items))]
    state.add_events([Event(f"{user}-{day}-{k}", user, item, times[k], "click") for k, item in enumerate(items)])


def without_factors(folder: Path) -> None:
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    config["refresh"] = {}
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))


def work(folder: Path, state: State | None = None, **limits: int) -> Refresh:
    made = Refresh(Project(folder), Bars(quiet=True), Limits(**limits), state)
    made.land()
    return made


def entities(since: int = 0) -> list[str]:
    return [request.entity for request in FilmEngine.asked[since:]]


def test_only_what_came_is_asked_and_the_most_met_first(project: Path, state: State) -> None:  # noqa: F811
    without_factors(project)
    assert work(project).due.items == []  # the files' own items are the sample's and the student's
    put(state, "n1", "n2", "n3")
    happen(state, "u0", ["n3", "n2", "n3"])
    first = work(project, state, calls=2)
    assert first.due.why == {"new": 3}
    assert first.renew() == {"items_answered": 2, "users_answered": 0, "budget_ended": True}
    assert entities() == ["n3", "n2"] and state.queued() == ["n1"]
    again = work(project, state)
    assert [rows["item_id"][0] for rows in again.due.items] == ["n1"]
    assert again.renew()["items_answered"] == 1 and entities()[2:] == ["n1"] and state.queued() == []
    put(state, "n2")  # as it was
    assert work(project, state).due.items == []
    changed = KeptItem({"item_id": "n2", "title": "Film", "text": "a battle", "categories": []}, "s", [0.0], 0, {})
    state.put_items([changed])
    assert work(project, state).due.why == {"changed": 1}


def test_a_plan_is_what_is_then_asked(project: Path, state: State) -> None:  # noqa: F811
    put(state, "n1", "n2")
    planned = work(project, state).plan()
    assert FilmEngine.asked == [] and planned["items_due"] == 2 and planned["users_without_profile"] == 7
    work(project, state).renew()
    assert len(FilmEngine.asked) == planned["calls"] > 20
    assert work(project, state).plan()["calls"] == 0


def test_people_are_asked_about_again_when_their_taste_has_moved(project: Path, state: State) -> None:  # noqa: F811
    first = work(project, state)
    assert (first.due.drifting, len(first.due.users)) == (0, 7)
    assert first.renew()["users_answered"] == 7
    films = [f"i{k}" for k in range(120)]
    happen(state, "u0", films[1:30:2])  # battles, and nothing else
    happen(state, "u1", films[:15])  # both, as ever
    happen(state, "u2", films[1:7:2])  # too few to tell
    happen(state, "new", films[:6])
    second, asked = work(project, state), len(FilmEngine.asked)
    ids = second.project.dataset.user_ids
    assert [ids[num] for num in second.due.users] == ["u0", "new"] and second.due.drifting == 1
    assert second.renew()["users_answered"] == 2
    assert set(entities(asked)) == {"u0", "new"}
    shown = next(str(request.messages) for request in FilmEngine.asked[asked:] if request.entity == "u0")
    assert "Film 29" in shown and "Film 0" not in shown  # what came since, beside the profile before
    rows = second.visits.profiles.filter(pl.col("entity") == "u0").unique("as_of")
    assert rows.height == 2  # a version is added, none is overwritten
    assert rows["as_of"].max() == NOW + timedelta(minutes=14)  # and knows nothing that is later
    assert work(project, state).due.users == []


def test_the_budget_ends_between_people_and_what_was_answered_is_free(project: Path) -> None:  # noqa: F811
    first = work(project, calls=20).renew()
    assert first["budget_ended"] is True and 1 <= first["users_answered"] < 7
    told = len(FilmEngine.asked)
    assert told <= 20
    assert work(project).renew()["users_answered"] == 7 - first["users_answered"]
    keys = [request.key(FilmEngine.model) for request in FilmEngine.asked]
    assert len(keys) == len(set(keys)) > told


class Dying(FilmEngine):
    """Is killed at its n-th answer, before anyone has seen it."""

    left = 0
    log = -1

    def _answer(self, request):  # type: ignore[no-untyped-def]
        os.write(self.log, request.key(self.model).encode() + b"\n")
        type(self).left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._answer(request)


def die_again_and_again(folder: Path, log: Path, moments: list[int]) -> None:
    """In a process that has not used polars: its threads do not live through a fork."""
    from film_project import WordEncoder

    from palate.project import project as opened

    opened.LlamaEngine, opened.MiniLMEncoder = Dying, WordEncoder  # type: ignore[misc]
    Dying.log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    kept = []
    for moment in moments:
        child = os.fork()
        if child == 0:
            Dying.left = moment
            work(folder, open_state(f"sqlite:{folder / '.palate' / 'state.sqlite'}")).renew()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        kept.append([row["key"] for row in records(folder / ".palate" / "ledger.sqlite")])
        os.write(Dying.log, b"--")
    log.with_name("kept.json").write_text(json.dumps(kept))


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_and_pays_nothing_twice(project, state, monkeypatch, tmp_path):  # noqa: F811
    put(state, *(f"n{k}" for k in range(20)))
    moments, log = [2, 9, 12], tmp_path / "asked.log"
    script = (
        f"import test_refresh_command as t; t.die_again_and_again(t.Path(sys.argv[1]), t.Path(sys.argv[2]), {moments})"
    )
    words = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[3]); " + script]
    subprocess.run([*words, str(project), str(log), str(Path(__file__).parent)], check=True, timeout=100)
    kept = [{*keys} for keys in json.loads((tmp_path / "kept.json").read_text())]
    monkeypatch.setattr("palate.project.project.LlamaEngine", Dying)
    monkeypatch.setattr(Dying, "log", os.open(log, os.O_APPEND | os.O_WRONLY))
    work(project, state).renew()
    rounds = [{*part.split()} for part in log.read_text().split("--")]
    assert len(rounds) == 4 and any(kept)
    for before, asked in zip(kept, rounds[1:], strict=True):
        assert not before & asked  # what the ledger held at a death is not asked again
    labels = work(project, state).visits.labels
    sampled = {*work(project).run.sampled}  # those that annotation asks about by itself
    assert {f"n{k}" for k in range(20)} - sampled <= {*labels["entity"]}


def test_a_second_refresh_says_that_one_is_running(palate, project: Path) -> None:  # noqa: F811
    lock = project / ".palate" / "refresh.lock"
    with alone(lock, "A refresh"), pytest.raises(PalateError, match="running already") as caught:
        command.refreshed(project, Bars(quiet=True), plan=True)
    assert caught.value.retryable and f"process {os.getpid()}" in str(caught.value.got)
    with alone(project / ".palate" / "run.lock", "A run"), pytest.raises(PalateError, match="A run of this project is"):
        command.refreshed(project, Bars(quiet=True))  # nor beside `palate run`
    child = os.fork()
    if child == 0:
        with alone(lock, "A refresh"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert command.refreshed(project, Bars(quiet=True), plan=True)["items_due"] == 0  # the dead hold nothing


def test_again_and_again_as_told(project: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    landing, clock = project / ".palate" / "landing", [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])
    timed = Watch(landing, state, 60.0, None)
    by_events = Watch(landing, state, None, 3)
    put(state, "n1")
    assert (timed.due(), by_events.due()) == (False, True)
    by_events.begin()
    happen(state, "u0", ["i0", "i1"])
    land(state, landing)
    land_items(state, landing)
    assert not by_events.due()
    happen(state, "u1", ["i0"])
    land(state, landing)
    assert by_events.due() and not timed.due()
    clock[0] = 60.0
    assert timed.due()


def test_one_that_fails_is_not_the_last(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # noqa: F811
    rounds = []

    def once(*arguments: object) -> dict[str, int]:
        rounds.append(arguments)
        if len(rounds) == 1:
            raise PalateError("The server is away.")
        return {"round": len(rounds)}

    def wait(self: Watch) -> None:
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(command, "_once", once)
    monkeypatch.setattr(Watch, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        command.refresh(project, every="30m", events=5, as_json=True)
    said = capsys.readouterr()
    assert "away" in said.err and json.loads(said.out) == {"round": 2}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86_400)])
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0m", "-1h", "1 week"])
def test_no_length_of_time(text: str) -> None:
    with pytest.raises(InputError, match="no length of time"):
        seconds_of(text)
