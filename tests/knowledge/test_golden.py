import numpy as np
import polars as pl

from palate.knowledge.attributes import Attribute
from palate.knowledge.golden import golden_from_tags, measure, truth_matrix

FUNNY = Attribute(name="funny", question="Is this funny?", human_labels=("funny", "hilarious"))


def test_tags_become_yes_and_no():
    tags = pl.DataFrame({"item_id": ["1", "1", "2", "3"], "tag": ["Hilarious ", "war", "war", "FUNNY"]})
    golden = golden_from_tags(tags, [FUNNY])
    assert dict(golden.select("item_id", "label").iter_rows()) == {"1": 1, "2": 0, "3": 1}


def test_raters_are_a_majority_and_a_tie_is_nothing():
    golden = pl.DataFrame(
        {
            "item_id": ["1", "1", "1", "2", "2", "3"],
            "attribute": ["funny"] * 6,
            "rater": list("abcaba"),
            "value": [1.0, 1.0, 0.0, 1.0, 0.0, None],  # the last was unsure
        }
    )
    np.testing.assert_array_equal(truth_matrix(golden, ["1", "2", "3"], ["funny"])[:, 0], [1, np.nan, np.nan])


def test_a_perfect_source_and_a_coin():
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 1))
    truth[:80] = 1
    perfect = truth.astype(np.float32)
    coin = rng.random((400, 1)).astype(np.float32)
    sides = rng.random((400, 1)) < 0.5
    dev, held_out = np.where(sides, truth, np.nan), np.where(sides, np.nan, truth)
    rows = {row.source: row for row in measure(dev, held_out, {"perfect": perfect, "coin": coin}, ["funny"])}
    assert (rows["perfect"].auc.mean, rows["perfect"].f1.mean, rows["perfect"].kappa.mean) == (1, 1, 1)
    assert rows["coin"].auc.low < 0.5 < rows["coin"].auc.high
    assert rows["coin"].kappa.mean < 0.15


def test_a_source_is_measured_on_what_it_labelled_and_few_positives_say_nothing():
    truth = np.zeros((50, 2))
    truth[:20, 0] = 1
    truth[:2, 1] = 1
    partial = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    partial[40:] = np.nan
    nothing = np.full((50, 2), np.nan)
    (row,) = measure(nothing, truth, {"x": partial}, ["funny", "rare"])
    assert np.isnan([row.threshold, row.precision.mean]).all()  # dev has no yes to choose a threshold by
    assert (row.attribute, row.n, row.positives) == ("funny", 40, 20)
