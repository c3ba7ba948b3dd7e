"""What a ranking model sees: vocabularies, numbers as of a moment, histories; and that none of it knows the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from ranking_data import HOUR, prepared, rated_dataset

from palate.data.chosen import at_random, latest, most_similar
from palate.data.dataset import Dataset
from palate.data.samples import Samples, clicked_samples, rated_samples
from palate.errors import InputError
from palate.models.ranking.columns import Scale
from palate.models.ranking.features import PADDING, Features, FeaturesConfig, Rows


def changed_from(data: Dataset, first: int, seed: int = 0) -> Dataset:
    """Every event from row `first` on shuffled: other users, items and values at the same times."""
    rng = np.random.default_rng(seed)
    events = data.events.drop("user_num", "item_num")
    kept, later = events[:first], events[first:]
    mixed = [later[name].gather(rng.permutation(len(later))) for name in ("user_id", "item_id", "value")]
    return Dataset.from_tables(data.items, pl.concat([kept, later.with_columns(mixed)]), data.users)


def same(a: Rows, b: Rows) -> bool:
    return all(np.array_equal(x, vars(b)[name], equal_nan=x.dtype.kind == "f") for name, x in vars(a).items())


def test_shuffling_everything_after_the_cut_changes_nothing() -> None:
    data = rated_dataset()
    samples = rated_samples(data)
    cut = len(samples.train)
    other = changed_from(data, cut)
    others = rated_samples(other)
    assert not np.array_equal(samples.items, others.items)
    a, b = Features(data, samples), Features(other, others)
    assert same(a(samples.train), b(others.train))
    for fields in ("item_fields", "user_fields"):
        assert np.array_equal(vars(a)[fields].slots, vars(b)[fields].slots)
        assert vars(a)[fields].names == vars(b)[fields].names
    assert np.array_equal(a.scale.mean, b.scale.mean) and np.array_equal(a.scale.spread, b.scale.spread)
    assert np.array_equal(a.level_values, b.level_values) and a.prior == b.prior


def test_no_row_knows_what_happens_at_its_time_or_later() -> None:
    data = rated_dataset()
    samples = rated_samples(data)
    features = Features(data, samples)
    for row in (720, 760, 850):  # behind the cut: the vocabularies are the same
        altered = changed_from(data, row)
        here, there = samples.take(np.array([row])), rated_samples(altered).take(np.array([row]))
        same_pair = Samples(**{**vars(there), "users": here.users, "items": here.items})
        place = altered.histories.offsets[here.users[0]]
        count = int(((altered.events["user_num"] == here.users[0]).to_numpy() & (np.arange(900) < row)).sum())
        asked = replace(same_pair, starts=np.array([place]), ends=np.array([place + count]))
        assert same(features(here), Features(altered, rated_samples(altered))(asked)), row


def test_values_outside_of_training_are_in_no_vocabulary() -> None:
    data = rated_dataset()
    samples = rated_samples(data)
    only = samples.take(samples.items < 10)  # items 10 to 29 in no training row
    features = Features(data, only)
    own = features.item_fields.slots[:, features.item_fields.field_of == 0][:, 0]
    assert len(set(own[10:].tolist())) == 1  # one embedding for all that are unknown
    assert own[10] not in own[:10]


def test_columns_that_say_nothing_are_left_out() -> None:
    _, _, features = prepared()
    assert features.item_fields.names == ("item", "categories", "brand")  # no title, one-value column or id
    assert features.user_fields.names == ("group",)
    assert "year" in features.number_names
    assert not {"constant", "unknown", "imdb_id"} & set(features.number_names)


def test_unfilled_columns_and_rare_values() -> None:
    data, samples, features = prepared()
    brand = features.item_fields.slots[:, features.item_fields.field_of == 2][:, 0]
    assert brand[0] == brand[7] == 0  # no brand, no embedding
    assert len(set(brand.tolist())) == 5
    rare = Features(data, samples, FeaturesConfig(min_rows=10_000))
    assert rare.item_fields.names == ("item",)
    wide = Features(data, samples, FeaturesConfig(user_id=True))
    assert wide.user_fields.names == ("user", "group")
    assert Features(data, samples, FeaturesConfig(skip=("brand", "year"))).item_fields.names == ("item", "categories")


def test_numbers_of_the_moment_by_hand() -> None:
    data, samples, features = prepared()
    row = samples.take(np.array([500]))
    raw = features(row).numbers[0] * features.scale.spread + features.scale.mean
    seen = dict(zip(features.number_names, raw.tolist(), strict=True))
    before = data.events[:500]
    item = before.filter(pl.col("item_num") == row.items[0])
    user = before.filter(pl.col("user_num") == row.users[0])
    train = data.events[: len(samples.train)]["value"]
    prior = float(train.mean())  # type: ignore[arg-type]
    for name, rows in (("item", item), ("user", user)):
        assert seen[f"{name}_count"] == pytest.approx(np.log1p(rows.height), rel=1e-3)
        assert seen[f"{name}_mean"] == pytest.approx((rows["value"].sum() + 5 * prior) / (rows.height + 5), rel=1e-3)
        last = int(np.flatnonzero(before[f"{name}_num"].to_numpy() == rows[f"{name}_num"][0])[-1])
        assert seen[f"{name}_gap"] == pytest.approx(np.log1p((500 - last) * HOUR / 1e6), rel=1e-3)


def test_histories_end_with_the_newest_event() -> None:
    data, samples, features = prepared()
    rows = features(samples)
    last = samples.ends - 1
    known = samples.ends > samples.starts
    length = (rows.history != PADDING).sum(1)
    assert np.array_equal(length, np.minimum(samples.ends - samples.starts, 8))
    newest = rows.history[np.arange(len(samples)), np.maximum(length - 1, 0)]
    assert np.array_equal(newest[known], data.histories.items[last[known]])
    assert set(newest[~known].tolist()) == {PADDING}
    values = data.events["value"].to_numpy()[np.argsort(data.events["user_num"].to_numpy(), kind="stable")]
    level = rows.levels[np.arange(len(samples)), np.maximum(length - 1, 0)]
    assert np.array_equal(features.level_values[level[known] - 1], values[last[known]])


def test_histories_of_chosen_events() -> None:
    data = rated_dataset()
    plain = rated_samples(data)
    rows = plain.test.take(np.arange(5))
    newest = Features(data, plain, FeaturesConfig(history=4))
    same_events = latest(plain, 4)
    assert same(newest(plain.test), Features(data, same_events)(same_events.test))
    kinds = np.eye(3, dtype=np.float32)[np.arange(data.n_items) % 3]
    alike = most_similar(data, plain, kinds, 4)
    found = Features(data, alike)(alike.test.take(np.arange(5)))
    met = data.histories.items
    values = data.events.sort("user_num", maintain_order=True)["value"].to_numpy()
    for i in range(5):
        past = np.arange(rows.starts[i], rows.ends[i])
        other = met[past] % 3 != rows.items[i] % 3
        best = np.sort(past[np.lexsort((-past, other))][:4])  # those of its kind, the later first
        assert found.history[i][: len(best)].tolist() == met[best].tolist()
        assert found.levels[i][: len(best)].tolist() == values[best].tolist()  # levels of 1 to 5 are these
        assert (found.history[i][len(best) :] == PADDING).all()


def test_a_model_reads_the_events_that_it_learned_from() -> None:
    data = rated_dataset()
    plain = rated_samples(data)
    chosen = at_random(plain, 4)
    for fitted, asked in ((plain, chosen), (chosen, plain)):
        with pytest.raises(InputError, match="other events than those that were learned from"):
            Features(data, fitted)(asked.test)


def test_a_log_without_clock_and_values_has_counts_alone() -> None:
    data = rated_dataset()
    place = pl.int_range(pl.len()).over("user_id").cast(pl.Datetime("us", "UTC"))
    events = data.events.with_columns(timestamp=place, value=pl.lit(None, pl.Float32))
    places = Dataset.from_tables(data.items, events, data.users)
    samples = clicked_samples(places)
    features = Features(places, samples)
    assert set(features.number_names) == {"item_count", "user_count", "year"}
    assert len(features.level_values) == 0
    rows = features(samples)
    assert rows.levels.max() == 0
    train = places.events.filter(pl.Series(clicked_samples(places, 0).part == 0))
    counts = np.bincount(train["item_num"].to_numpy(), minlength=data.n_items)
    column = features.number_names.index("item_count")
    found = rows.numbers[:, column] * features.scale.spread[column] + features.scale.mean[column]
    assert found == pytest.approx(np.log1p(counts[samples.items]), abs=1e-3)


def test_many_values_become_levels() -> None:
    data = rated_dataset()
    noisy = data.events.with_columns(value=pl.Series(np.random.default_rng(0).random(900).astype(np.float32)))
    spread = data.with_events(noisy)
    features = Features(spread, rated_samples(spread, 0.5))
    assert len(features.level_values) == 12


def test_standardised_numbers() -> None:
    numbers = np.array([[1, 5, np.nan], [3, 5, np.nan], [np.nan, 5, np.nan]], np.float32)
    scale = Scale.fit(numbers)
    assert np.array_equal(scale(numbers)[:, 0], np.array([-1, 1, np.nan], np.float32), equal_nan=True)
    assert np.array_equal(scale(numbers)[:, 1], np.zeros(3, np.float32))
    assert scale(np.array([[900, 5, 1]], np.float32))[0].tolist() == [5, 0, 0]


def test_no_training_rows() -> None:
    data, samples, _ = prepared()
    with pytest.raises(InputError, match="no training rows"):
        Features(data, samples.test)
