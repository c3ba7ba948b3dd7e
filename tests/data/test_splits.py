from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import TIMESTAMP, Dataset
from palate.data.readers import read_dataset
from palate.data.splits import Holdout, has_clock, split_global_time, split_in_time, split_leave_last_one_out
from palate.errors import InputError

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=60)


def make(rows: list[tuple[int, int, int]]) -> Dataset:
    events = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u, _, _ in rows],
            "item_id": [f"i{i}" for _, i, _ in rows],
            "timestamp": pl.Series([t * 1_000_000 for _, _, t in rows], dtype=pl.Int64).cast(TIMESTAMP),
            "place": range(len(rows)),
        }
    )
    return Dataset.from_tables(pl.DataFrame({"item_id": [f"i{i}" for i in range(6)]}), events)


def expected_queries(rows: list[tuple[int, int, int]], low: int, high: float, seen: bool, least: int) -> list[tuple]:
    """Brute force: (user, history, time, target) of every event with low <= time < high, in order."""
    ordered = sorted(rows, key=lambda row: row[2])  # stable
    found = []
    for place, (user, item, time) in enumerate(ordered):
        history = [i for u, i, _ in ordered[:place] if u == user]
        if low <= time < high and len(history) >= least and not (seen and item in history):
            found.append((f"u{user}", history, time * 1_000_000, item))
    return found


def as_tuples(holdout: Holdout) -> list[tuple]:
    return [
        (q.user_id, q.history.tolist(), q.as_of, *target.tolist())
        for q, target in zip(holdout.queries, holdout.targets, strict=True)
    ]


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.sampled_from([0.1, 0.2, 0.35]), st.booleans(), st.integers(0, 2))
def test_global_time_equals_brute_force_and_never_leaks(rows, share, seen, least):
    data = make(rows)
    times = sorted(t for _, _, t in rows)
    first, second = (times[min(int(len(times) * (1 - s)), len(times) - 1)] for s in (share + share, share))
    if not times[0] < first < second:
        with pytest.raises(InputError, match="too few distinct times"):
            split_global_time(data, share, share)
        return
    split = split_global_time(data, share, share, exclude_seen=seen, min_history=least)
    assert (
        split.train.events["place"].to_list()
        == data.events.filter(pl.col("timestamp") < datetime.fromtimestamp(first, UTC))["place"].to_list()
    )
    assert as_tuples(split.validation) == expected_queries(rows, first, second, seen, least)
    assert as_tuples(split.test) == expected_queries(rows, second, float("inf"), seen, least)
    latest = split.train.events["timestamp"].to_physical().max()
    assert all(latest < q.as_of for q in split.validation.queries + split.test.queries)
    assert split.train.item_nums == data.item_nums and split.train.user_nums == data.user_nums


@settings(deadline=None, max_examples=100)
@given(EVENTS)
def test_leave_last_one_out_holds_the_last_events_in_input_order(rows):
    data = make(rows)
    split = split_leave_last_one_out(data, exclude_seen=False)
    assert "leaks the future" in split.name
    by_user: dict[str, list[int]] = {}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        by_user.setdefault(f"u{user}", []).append(item)
    tests = {
        q.user_id: (q.history.tolist(), t.tolist()) for q, t in zip(split.test.queries, split.test.targets, strict=True)
    }
    assert tests == {u: (items[:-1], items[-1:]) for u, items in by_user.items() if len(items) >= 2}
    held = {
        q.user_id: (q.history.tolist(), t.tolist())
        for q, t in zip(split.validation.queries, split.validation.targets, strict=True)
    }
    assert held == {u: (items[:-2], items[-2:-1]) for u, items in by_user.items() if len(items) >= 3}
    kept = {u: items[: max(1, len(items) - 2)] for u, items in by_user.items()}
    assert {u: split.train.histories.of(n).tolist() for u, n in data.user_nums.items()} == kept
    assert split.train.events["timestamp"].is_sorted()


def test_events_at_the_cut_go_to_the_later_part():
    rows = [(0, i % 6, 0) for i in range(6)] + [(1, i % 6, 5) for i in range(10)] + [(2, i % 6, 9) for i in range(4)]
    split = split_global_time(make(rows), validation=0.3, test=0.2)
    assert split.train.events.height == 6
    assert {q.as_of for q in split.validation.queries} == {5_000_000}
    assert {q.as_of for q in split.test.queries} == {9_000_000}


def test_a_sample_of_queries_is_seeded_and_in_order():
    rows = [(u, i, 10 * i + u) for u in range(5) for i in range(6)]
    whole = as_tuples(split_global_time(make(rows), 0.3, 0.3).test)
    one, two = (as_tuples(split_global_time(make(rows), 0.3, 0.3, max_queries=4, seed=3).test) for _ in "ab")
    assert one == two and len(one) == 4 and one == [q for q in whole if q in one]


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.1, 0.0), (0.6, 0.4)])
def test_shares_that_leave_nothing(shares):
    with pytest.raises(InputError, match="leave nothing"):
        split_global_time(make([(0, 0, 1), (0, 1, 2)]), *shares)


def test_amazon_toys_is_split_whole(shared_data: Path):
    folder = shared_data / "amazon-toys"
    data = read_dataset(folder / "items.parquet", folder / "interactions.parquet", folder / "users.parquet")
    split = split_leave_last_one_out(data)
    assert len(split.test.queries) == len(split.validation.queries) == data.n_users == 19412
    assert split.train.events.height == 167597 - 2 * 19412
    cut = split_global_time(data)
    held = np.concatenate([cut.validation.targets, cut.test.targets]).ravel()
    assert cut.train.events.height + len(held) == 167597


def test_the_best_split_that_the_data_allow() -> None:
    rows = [(u, i, 5 * u + i) for u in range(4) for i in range(5)]
    data = make(rows)
    assert not has_clock(data)  # seconds since 1970
    assert split_in_time(data).name.startswith("leave-last-one-out")
    told = ["history"] * 10 + ["valid"] * 5 + ["test"] * 5
    given = data.with_events(data.events.with_columns(split=pl.Series(told)))
    split = split_in_time(given)
    assert split.name == "as the source cut it"
    assert split.part.tolist() == [0] * 10 + [1] * 5 + [2] * 5
    assert split.train.events.height == 10
    assert {query.user_id for query in split.test.queries} == {"u3"}
    half = data.with_events(data.events.with_columns(split=pl.Series(["train"] * 15 + ["test"] * 5)))
    assert split_in_time(half).name.startswith("leave-last-one-out")  # nothing to choose on
    later = data.events["timestamp"] + timedelta(days=20_000)
    clocked = data.with_events(data.events.with_columns(timestamp=later))
    assert has_clock(clocked)
    assert split_in_time(clocked).name.startswith("global time")


def test_parts_are_of_the_rows() -> None:
    data = make([(u, i, i) for i in range(6) for u in range(3)])
    for split in (split_global_time(data, 0.2, 0.2), split_leave_last_one_out(data)):
        assert len(split.part) == data.events.height
        assert data.events.filter(pl.Series(split.part == 0)).equals(split.train.events)
        held = data.events.filter(pl.Series(split.part == 2))
        assert held["item_num"].to_list() == [int(target[0]) for target in split.test.targets]
