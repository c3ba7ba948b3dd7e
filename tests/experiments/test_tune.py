import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.splits import Split, split_global_time
from palate.errors import InputError, PalateError
from palate.experiments.tune import Trial, tune


@pytest.fixture(scope="module")
def split() -> Split:
    """People go round in circles of items, each at their own place."""
    rng = np.random.default_rng(0)
    steps = np.arange(40)
    events = [
        {"user_id": f"u{user}", "item_id": f"i{(start + step) % 50}", "time": 1_600_000_000 + 977 * int(step) + user}
        for user, start in enumerate(rng.integers(0, 50, 60))
        for step in steps
    ]
    table = pl.DataFrame(events).with_columns(
        timestamp=pl.from_epoch("time").dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
    )
    table = table.drop("time").with_columns(event_type=pl.lit("view"), value=pl.lit(1.0, pl.Float32))
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(50)]})
    empty = {"title": pl.String, "text": pl.String, "categories": pl.List(pl.String)}
    items = items.with_columns(pl.lit(None, kind).alias(name) for name, kind in empty.items())
    return split_global_time(Dataset.from_tables(items, table))


def test_what_is_found_is_no_worse_than_the_defaults_on_validation(split: Split) -> None:
    seen: list[tuple[int, int]] = []
    found = tune("item-knn", split, trials=6, on_trial=lambda trial, done, most: seen.append((done, most)))
    assert found.tried[0].params == {}
    assert found.figure >= found.default
    assert seen == [(i, 6) for i in range(1, 7)]
    assert all(set(t.params) == {"neighbours", "shrinkage", "recent"} for t in found.tried[1:])


def test_the_same_seed_looks_at_the_same_places(split: Split) -> None:
    first, second = (tune("ease", split, trials=4, seed=3) for _ in range(2))
    assert [t.params for t in first.tried] == [t.params for t in second.tried]


def test_the_budget_of_time_ends_the_search(split: Split) -> None:
    assert len(tune("ease", split, trials=50, minutes=0.0).tried) == 1


def test_what_is_fixed_stays_and_the_test_part_is_never_read(split: Split) -> None:
    class Unread:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"test.{name} was read")

    blind = Split(split.train, split.validation, Unread(), split.name, split.part)  # type: ignore[arg-type]
    found = tune("ease", blind, trials=3, fixed={"recent": 5})
    assert all(t.params["recent"] == 5 for t in found.tried)


def test_earlier_trials_count(split: Split) -> None:
    before = [Trial({}, 0.1, 1.0), Trial({"ridge": 300.0, "recent": 3}, 0.99, 1.0)]
    found = tune("ease", split, trials=3, before=before)
    assert len(found.tried) == 3
    assert (found.params, found.figure, found.default) == ({"ridge": 300.0, "recent": 3}, 0.99, 0.1)


def test_trials_that_fail_are_findings_and_all_of_them_an_error(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    from palate.models.ease import Ease

    def fails(self: Ease, *args: object) -> Ease:
        raise PalateError("It diverged")

    monkeypatch.setattr(Ease, "fit", fails)
    with pytest.raises(PalateError, match="Every trial failed") as raised:
        tune("ease", split, trials=2)
    assert "It diverged" in str(raised.value)


def test_nothing_to_search_is_said(split: Split) -> None:
    with pytest.raises(InputError, match="no setting to search"):
        tune("popularity", split, fixed={"half_life": 30.0})
    with pytest.raises(InputError, match="no such model"):
        tune("easy", split)
    with pytest.raises(InputError, match="do not fit"):
        tune("ease", split, fixed={"ridge": -1})


@pytest.mark.slow
def test_a_sequence_model_is_searched_too(split: Split) -> None:
    small = {"epochs": 1, "blocks": 1, "dimensions": 8, "length": 10}
    found = tune("sasrec", split, trials=2, fixed=small)
    assert set(found.tried[1].params) == {*small, "dropout", "learning_rate", "label_smoothing"}
