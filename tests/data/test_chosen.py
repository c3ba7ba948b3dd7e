"""Which past events are read of each sample: against a brute-force oracle, and never one of its moment or later."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palate.data import chosen
from palate.data.chosen import NONE, at_random, half_similar, latest, most_similar, strictly_before
from palate.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from palate.data.samples import Samples, clicked_samples, rated_samples
from palate.errors import InputError

N_ITEMS = 6


def dataset_of(rows: list[tuple[int, int, int]], start: int = 1_600_000_000) -> Dataset:
    """Of user, item and hour."""
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)]}).with_columns(
        [pl.lit(None, dtype=kind).alias(name) for name, kind in ITEM_SCHEMA.items() if name != "item_id"]
    )
    events = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user, *_ in rows],
            "item_id": [f"i{item}" for _, item, _ in rows],
            "timestamp": [(start + hour * 3600) * 1_000_000 if start else hour for *_, hour in rows],
            "event_type": ["seen"] * len(rows),
            "value": [1.0 + n % 5 for n in range(len(rows))],
        },
        schema_overrides={"value": pl.Float32},
    ).cast({name: kind for name, kind in EVENT_SCHEMA.items() if name == "timestamp"})  # type: ignore[arg-type]
    return Dataset.from_tables(items, events)


logs = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, N_ITEMS - 1), st.integers(0, 12)), min_size=4, max_size=60
).filter(lambda rows: len({hour for *_, hour in rows}) > 3)
vectors = arrays(np.float32, (N_ITEMS, 3), elements=st.integers(-2, 2).map(float))


def samples_of(data: Dataset) -> Samples:
    return strictly_before(data, rated_samples(data, part=np.zeros(data.events.height, np.int8)))


@settings(deadline=None)  # other work on the machine is no failure
@given(logs, vectors, st.integers(1, 5), st.sampled_from([8, 4_000_000]))
def test_the_most_similar_are_those_of_a_search_by_hand(rows, points, k, cells) -> None:
    data = dataset_of(rows)
    samples, packed = samples_of(data), data.histories
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen, "_CELLS", cells)  # blocks of a row or two, and of all at once
        found = most_similar(data, samples, points, k)
    norms = np.linalg.norm(points, axis=1)
    for i, places in enumerate(found.places):
        kept = places[places != NONE]
        past = range(samples.starts[i], samples.ends[i])
        assert len(kept) == min(k, len(past)) and (np.diff(kept) > 0).all() and (places[len(kept) :] == NONE).all()
        target = points[samples.items[i]]

        def cosine(place: int, target=target) -> float:
            item = packed.items[place]
            size = norms[item] * np.linalg.norm(target)
            return float(points[item] @ target / size) if size else 0.0

        best = sorted(map(cosine, past), reverse=True)[:k]
        np.testing.assert_allclose(sorted(map(cosine, kept), reverse=True), best, atol=1e-6)


@settings(deadline=None)  # other work on the machine is no failure
@given(logs, st.integers(1, 4))
def test_of_equal_ones_the_later_is_taken(rows, k) -> None:
    data = dataset_of(rows)
    samples = samples_of(data)
    found = most_similar(data, samples, np.ones((N_ITEMS, 2), np.float32), k)
    assert np.array_equal(found.places, latest(samples, k).places)


@settings(deadline=None)  # other work on the machine is no failure
@given(logs, vectors, st.integers(1, 5), st.booleans())
def test_nothing_of_the_moment_or_later_is_read(rows, points, k, clicks) -> None:
    data = dataset_of(rows)
    part = np.zeros(data.events.height, np.int8)
    plain = clicked_samples(data, part=part) if clicks else rated_samples(data, part=part)
    samples, packed = strictly_before(data, plain), data.histories
    chosen_by = (latest(samples, k), most_similar(data, samples, points, k), at_random(samples, k))
    for found in (*chosen_by, half_similar(data, samples, points, k)):
        kept = found.places != NONE
        assert (packed.times[found.places] < found.times[:, None])[kept].all()
        owners = np.searchsorted(packed.offsets, found.places, side="right") - 1
        assert (owners == found.users[:, None])[kept].all()
    before = np.array(
        [(packed.times_of(user) < time).sum() for user, time in zip(samples.users, samples.times, strict=True)]
    )
    assert np.array_equal(samples.ends - samples.starts, before)  # and all that is earlier may be


@settings(deadline=None)  # other work on the machine is no failure
@given(logs, vectors, st.integers(1, 5))
def test_half_of_them_are_the_latest_and_half_the_most_similar_before(rows, points, k) -> None:
    data = dataset_of(rows)
    samples = samples_of(data)
    found = half_similar(data, samples, points, k)
    for i, places in enumerate(found.places):
        kept = places[places != NONE]
        whole = np.arange(samples.starts[i], samples.ends[i])
        assert len(kept) == min(k, len(whole)) and (np.diff(kept) > 0).all() and (places[: len(kept)] != NONE).all()
        assert set(whole[len(whole) - min(k // 2, len(whole)) :]) <= set(kept)
        alone = most_similar(data, samples.take(np.array([i])), points, k).places[0]
        assert (k > 1) or np.array_equal(kept, alone[alone != NONE])


def test_without_a_clock_places_are_the_time() -> None:
    data = dataset_of([(0, n % N_ITEMS, 0) for n in range(8)], start=0)
    samples = rated_samples(data)
    assert strictly_before(data, samples) is samples


def test_any_events_are_any_and_the_same_again() -> None:
    data = dataset_of([(0, n % N_ITEMS, n) for n in range(40)])
    samples = samples_of(data)
    found, again, other = (at_random(samples, 3, seed).places for seed in (1, 1, 2))
    assert np.array_equal(found, again) and not np.array_equal(found, other)
    assert set(found[5:].ravel()) > set(range(0, 30, 3))  # from all over the histories
    assert all(len(set(row)) == 3 for row in found[3:].tolist())


def test_rows_that_are_taken_keep_their_events() -> None:
    data = dataset_of([(n % 2, n % N_ITEMS, n) for n in range(40)])
    found = latest(samples_of(data), 3)
    rows = np.array([30, 7])
    assert np.array_equal(found.take(rows).places, found.places[rows])
    assert len(found.train) == 40 and found.train.places.shape == found.places.shape


@pytest.mark.parametrize("points", [np.zeros((2, 3)), np.full((N_ITEMS, 2), np.nan), np.zeros(N_ITEMS)])
def test_vectors_that_do_not_fit_are_refused(points) -> None:
    data = dataset_of([(0, n % N_ITEMS, n) for n in range(9)])
    with pytest.raises(InputError, match="Vectors of items do not fit"):
        most_similar(data, samples_of(data), points.astype(np.float32), 2)
