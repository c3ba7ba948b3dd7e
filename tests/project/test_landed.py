"""What servers landed joins a project's files: everything once, in order, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import make_project

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.project.landed import Landing
from palate.project.project import Project
from palate.serving.arrivals import gone_item
from palate.serving.landing import compact, land, land_items
from palate.serving.state import Event, KeptItem, State, open_state

START = datetime(2024, 1, 1, tzinfo=UTC)
TYPES = ["event", "click", "skip"]


def own(rows: list[tuple[str, str, int, str]], ids: list[str] | None = None) -> Dataset:
    items = pl.DataFrame(
        {"item_id": [f"i{k}" for k in range(4)], "title": list("abcd"), "text": None, "categories": [["x"]] * 4},
        schema_overrides={"text": pl.String},
    )
    events = pl.DataFrame(
        [(u, i, START + timedelta(seconds=t), kind, None) for u, i, t, kind in rows],
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "timestamp": pl.Datetime("us", "UTC"),
            "event_type": pl.String,
            "value": pl.Float32,
        },
        orient="row",
    )
    return Dataset.from_tables(items, events if ids is None else events.with_columns(event_id=pl.Series(ids)))


def sent(event_id: str, user: str, item: str, second: int, kind: str = "click") -> Event:
    moment = int((START + timedelta(seconds=second)).timestamp() * 1e6)
    return Event(event_id, user, item, moment, kind)


def put(item_id: str, **said: object) -> KeptItem:
    item = {"item_id": item_id, "title": "", "text": "", "categories": [], "year": None, "vector": None, **said}
    return KeptItem(item, "s", [0.0], 0, {})


@pytest.fixture
def state(tmp_path: Path) -> State:
    return open_state(f"sqlite:{tmp_path / 'state.sqlite'}")


ROW = st.tuples(st.sampled_from("uvw"), st.sampled_from(["i0", "i1", "i9"]), st.integers(0, 5), st.sampled_from(TYPES))

KNOWN = ROW.filter(lambda row: row[1] != "i9")


@settings(max_examples=15)
@given(
    log=st.lists(ROW.filter(lambda row: row[1] != "i9"), max_size=8),
    parts=st.lists(st.lists(ROW, max_size=5), max_size=3),
)
def test_nothing_is_lost_doubled_or_disordered(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str, int, str]], parts: list[list[tuple]]
) -> None:
    folder = tmp_path_factory.mktemp("landing")
    state = open_state(f"sqlite:{folder / 'state.sqlite'}")
    landed = []
    for number, part in enumerate(parts):
        events = [sent(f"{number}-{k}", *row) for k, row in enumerate(part)]
        state.add_events([*events, *events[:1]])  # one is sent twice
        land(state, folder)
        landed += part
    state.close()
    before = own(log)
    found = Landing(folder).joined(before)
    new = [row for row in landed if row not in log]
    kept = [row for row in new if row[1] != "i9" and row[3] != "skip"]
    counts = (found.events, found.already, found.rejected, found.unknown)
    rejected = sum(row[3] == "skip" for row in new)
    assert counts == (len(kept), len(landed) - len(new), rejected, len(new) - rejected - len(kept))
    rows = [
        (u, i, round((t - START).total_seconds()), kind)
        for u, i, t, kind in found.dataset.events.select("user_id", "item_id", "timestamp", "event_type").iter_rows()
    ]
    assert rows == sorted([*log, *kept], key=lambda row: row[2])  # stable: the log first, then part after part
    assert found.dataset.user_ids[: before.n_users] == before.user_ids


def test_an_event_that_the_log_has_under_its_id_is_not_doubled(state: State, tmp_path: Path) -> None:
    state.add_events([sent("e1", "u", "i0", 9), sent("e2", "u", "i0", 9)])  # e1: at another second in the log
    land(state, tmp_path)
    found = Landing(tmp_path).joined(own([("u", "i0", 1, "click")], ["e1"]))
    assert (found.events, found.already) == (1, 1)
    assert found.dataset.events["event_id"].to_list() == ["e1", "e2"]
    log = own([("u", "i0", 1, "click")], ["7"])
    numbered = log.with_events(log.events.with_columns(pl.col("event_id").cast(pl.Int64)))  # as a CSV has them
    assert Landing(tmp_path).joined(numbered).dataset.events["event_id"].to_list() == ["7", "e1", "e2"]


def test_a_state_that_begins_anew_replaces_no_part(tmp_path: Path) -> None:
    for number in range(2):
        state = open_state(f"sqlite:{tmp_path / str(number)}")
        state.add_events([sent(f"e{number}", "u", "i0", number)])
        land(state, tmp_path)
        state.close()
    assert set(Landing(tmp_path).events["event_id"]) == {"e0", "e1"}


def test_small_parts_are_put_together_and_nothing_changes(state: State, tmp_path: Path) -> None:
    for number in range(6):
        state.add_events([sent(f"e{number}-{k}", "u", "i0", 0) for k in range(2)])
        land(state, tmp_path)
    parts = sorted((tmp_path / "events").glob("*.parquet"))
    (tmp_path / "events" / "by-hand.parquet").write_bytes(parts[0].read_bytes())
    before, first = Landing(tmp_path).events, parts[0].read_bytes()
    assert compact(tmp_path, 7) == 0
    assert compact(tmp_path, 6) == 6
    assert len([*(tmp_path / "events").glob("*.parquet")]) == 2
    assert Landing(tmp_path).events.equals(before)
    parts[0].write_bytes(first)  # killed before it was removed, or written again by a flush that was killed
    assert Landing(tmp_path).events.sort("event_id").equals(before.sort("event_id"))
    assert compact(tmp_path, 7) == 1 and not parts[0].exists()
    state.add_events([sent("later", "u", "i0", 0)])
    land(state, tmp_path)
    assert Landing(tmp_path).events["event_id"].to_list()[-1] == "later"


def test_items_that_were_put_and_deleted(state: State, tmp_path: Path) -> None:
    state.put_items([put("n1", title="New", categories=["y"], year=2024), put("i1", title="B", text="better")])
    state.put_items([put("n2", text="only words"), gone_item("i3"), put("n3", title="gone too")])
    state.put_items([gone_item("n3"), put("n1", title="Newer", year=2025)])
    assert land_items(state, tmp_path) == 5
    state.add_events([sent(f"e{k}", "u", item, k) for k, item in enumerate(["n1", "i3", "n3"])])
    land(state, tmp_path)
    found = Landing(tmp_path).joined(own([("u", "i3", 7, "click"), ("u", "i0", 2, "click")]))
    assert (found.items, found.changed, found.deleted) == (2, 1, 1)
    assert (found.events, found.already, found.unknown) == (1, 0, 2)
    rows = found.dataset.items.select("item_id", "title", "text", "categories", "year").rows()
    assert rows == [
        ("i0", "a", None, ["x"], None),
        ("i1", "B", "better", [], None),
        ("i2", "c", None, ["x"], None),
        ("n2", "n2", "only words", [], None),
        ("n1", "Newer", "", [], 2025),
    ]
    assert found.dataset.events["item_id"].to_list() == ["n1", "i0"]
    state.put_items([put("i3", title="back")])
    land_items(state, tmp_path)
    assert Landing(tmp_path).joined(own([("u", "i3", 7, "click")])).dataset.events.height == 3


def test_the_items_of_a_lost_state_stay(tmp_path: Path) -> None:
    for number in range(2):
        state = open_state(f"sqlite:{tmp_path / str(number)}")
        state.put_items([put(f"n{number}", title="x"), put("both", title=f"title {number}")])
        assert land_items(state, tmp_path) == 2 + number
        state.close()
    found = Landing(tmp_path).items
    assert dict(found.select("item_id", "title").iter_rows()) == {"n0": "x", "n1": "x", "both": "title 1"}


def test_a_corrupt_part_is_named_with_file_row_and_column(state: State, tmp_path: Path) -> None:
    state.add_events([sent("e1", "u", "i0", 1)])
    land(state, tmp_path)
    (good,) = (tmp_path / "events").glob("*.parquet")
    bad = good.with_name("z-by-hand.parquet")
    rows = pl.concat([pl.read_parquet(good)] * 3).with_columns(user_id=pl.Series(["u", None, "u"]))
    rows.write_parquet(bad)
    with pytest.raises(InputError) as caught:
        _ = Landing(tmp_path).events
    assert caught.value.where == "z-by-hand.parquet, row 2, column user_id"
    bad.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged") as caught:
        _ = Landing(tmp_path).events
    assert caught.value.where == "z-by-hand.parquet"
    rows.drop("event_id", "user_id").with_columns(user_id=pl.lit("u")).write_parquet(bad)
    with pytest.raises(InputError, match="event_id"):
        _ = Landing(tmp_path).events
    bad.unlink()
    (tmp_path / "items.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="landed items"):
        _ = Landing(tmp_path).items


def test_a_project_reads_what_landed(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "p", None)
    plain = Project(folder)
    keys, size = (plain.data_key, plain.items_key), plain.dataset.events.height
    state = open_state(f"sqlite:{folder / '.palate' / 'state.sqlite'}")
    state.add_events([sent("e1", "newcomer", "i0", 0)])
    land(state, folder / ".palate" / "landing")
    happened = Project(folder)
    assert happened.items_key == keys[1] and happened.data_key != keys[0]
    assert happened.dataset.events.height == size + 1 and happened.dataset.user_ids[-1] == "newcomer"
    state.put_items([put("n", title="New")])
    land_items(state, folder / ".palate" / "landing")
    came = Project(folder)
    assert came.items_key != keys[1] and came.dataset.item_ids[-1] == "n"
    key, held = came.data_key, came.dataset
    state.add_events([sent("e2", "newcomer", "n", 0)])
    land(state, folder / ".palate" / "landing")
    assert (came.data_key, came.dataset.events.height) == (key, held.events.height)  # a run sees one state of things
    state.close()
    config = yaml.safe_load((folder / "palate.yaml").read_text())
    assert "landing" not in config["data"]  # nothing needs to be configured
