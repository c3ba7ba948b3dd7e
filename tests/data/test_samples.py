"""Rows for ranking models: labels, parts, histories, negatives, the leak guard."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from palate.data.samples import clicked_samples, first_places, from_place, rated_samples, split_by_user, with_training
from palate.data.splits import TEST, TRAIN, VALIDATION
from palate.errors import InputError


def dataset_of(rows: list[tuple[int, int, int, float | None]], n_items: int = 6) -> Dataset:
    """Of user, item, hour and value."""
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(n_items)]}).with_columns(
        [pl.lit(None, dtype=kind).alias(name) for name, kind in ITEM_SCHEMA.items() if name != "item_id"]
    )
    events = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user, *_ in rows],
            "item_id": [f"i{item}" for _, item, *_ in rows],
            "timestamp": [1_600_000_000_000_000 + hour * 3_600_000_000 for _, _, hour, _ in rows],
            "event_type": ["seen"] * len(rows),
            "value": [value for *_, value in rows],
        },
        schema_overrides={"value": pl.Float32},
    ).cast({name: kind for name, kind in EVENT_SCHEMA.items() if name == "timestamp"})  # type: ignore[arg-type]
    return Dataset.from_tables(items, events)


logs = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 50), st.sampled_from([1.0, 3.0, 3.5, 5.0])),
    min_size=12,
    max_size=60,
).filter(lambda rows: len({hour for _, _, hour, _ in rows}) > 10)


@given(logs)
def test_rated_samples_are_the_events_with_what_came_before_them(rows: list[tuple[int, int, int, float]]) -> None:
    data = dataset_of(rows)
    part = np.zeros(len(rows), np.int8)
    samples = rated_samples(data, (3.0, 4.0), part)
    assert len(samples) == len(rows)
    assert np.all(np.diff(samples.times) >= 0)
    values = data.events["value"].to_numpy()
    assert np.array_equal(samples.labels, np.stack([values > 3, values > 4], 1))
    for i, (user, item) in enumerate(zip(samples.users, samples.items, strict=True)):
        packed = data.histories
        assert packed.items[samples.ends[i]] == item
        assert samples.starts[i] == packed.offsets[user]
        assert np.all(packed.times[samples.starts[i] : samples.ends[i]] <= samples.times[i])


def test_no_training_row_is_as_late_as_a_held_out_one() -> None:
    samples = rated_samples(dataset_of([(n % 3, n % 6, n, float(1 + n % 5)) for n in range(60)]))
    assert len(samples.train) == 48 and len(samples.validation) == 6 and len(samples.test) == 6
    assert samples.train.times.max() < samples.validation.times.min()
    assert samples.validation.times.max() < samples.test.times.min()


def test_a_log_without_values_has_no_ratings() -> None:
    with pytest.raises(InputError, match="No event has a value") as caught:
        rated_samples(dataset_of([(0, 0, n, None) for n in range(20)]))
    assert "clicked_samples" in str(caught.value)


@given(logs, st.integers(1, 3))
def test_negatives_were_never_met_and_stand_beside_their_event(
    rows: list[tuple[int, int, int, float]], negatives: int
) -> None:
    data = dataset_of(rows)
    part = np.where(np.arange(len(rows)) < len(rows) // 2, TRAIN, TEST).astype(np.int8)
    samples = clicked_samples(data, negatives, seed=3, part=part)
    wrong = samples.labels[:, 0] == 0
    met = set(zip(data.events["user_num"].to_list(), data.events["item_num"].to_list(), strict=True))
    pairs = list(zip(samples.users.tolist(), samples.items.tolist(), strict=True))
    assert not met & {pair for pair, no in zip(pairs, wrong, strict=True) if no}
    assert (~wrong).sum() == len(rows)
    for part_number in (TRAIN, TEST):  # drawn from the items of the row's own part
        pool = set(data.events["item_num"].to_numpy()[part == part_number].tolist())
        assert set(samples.items[wrong & (samples.part == part_number)].tolist()) <= pool
    again = clicked_samples(data, negatives, seed=3, part=part)
    assert np.array_equal(samples.items, again.items)


def test_a_user_who_met_everything_gets_no_negatives() -> None:
    data = dataset_of([(0, item, item, None) for item in range(6)] * 2)
    assert clicked_samples(data, part=np.zeros(12, np.int8)).labels.min() == 1


def test_negatives_follow_popularity() -> None:
    rows = [(user, 0 if user % 4 else 1, user, None) for user in range(400)] + [
        (user, 2, user, None) for user in range(400)
    ]
    samples = clicked_samples(dataset_of(rows), 3, part=np.zeros(800, np.int8))
    drawn = samples.items[(samples.labels[:, 0] == 0)]
    assert np.mean(drawn == 1) / np.mean(drawn == 0) == pytest.approx(3, rel=0.2)  # those who met 1 draw 0


def test_whole_users_are_held_out() -> None:
    data = dataset_of([(n % 40, n % 6, n, 4.0) for n in range(400)])
    samples = rated_samples(data, part=split_by_user(data, 0.1, 0.2, seed=1))
    assert [len(np.unique(p.users)) for p in (samples.train, samples.validation, samples.test)] == [28, 4, 8]
    assert not set(samples.train.users) & set(samples.test.users)
    assert {TRAIN, VALIDATION, TEST} == set(samples.part.tolist())


def test_the_leak_guard_keeps_what_no_profile_has_read() -> None:
    data = dataset_of([(0, n % 6, n, 4.0) for n in range(9)] + [(1, 0, 20, 4.0)])
    first = first_places(data, cap=4)
    assert first.tolist() == [4, 1]
    samples = rated_samples(data, part=np.zeros(10, np.int8))
    kept = from_place(samples, first)
    assert (kept.ends - kept.starts).tolist() == [4, 5, 6, 7, 8]
    assert kept.users.tolist() == [0] * 5
    assert first_places(data, cap=30)[0] == 5


def test_fewer_training_rows_and_all_that_are_held_out() -> None:
    samples = rated_samples(dataset_of([(n % 3, n % 6, n, float(1 + n % 5)) for n in range(60)]))
    fewer = with_training(samples, 10)
    assert len(fewer.train) == 10
    assert np.array_equal(fewer.test.times, samples.test.times)
    assert np.array_equal(fewer.validation.times, samples.validation.times)
    assert set(fewer.train.times.tolist()) < set(samples.train.times.tolist())
    assert np.all(np.diff(fewer.times) >= 0)
    assert len(with_training(samples, 0)) == len(with_training(samples, 48)) == 60
