import numpy as np
import polars as pl
import pytest

from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden import golden_from_tags, measure, read_golden, truth_matrix

FUNNY = Attribute(name="funny", question="Is this funny?", human_labels=("funny", "hilarious"))
HEAD = "item_id,attribute,rater,label\n"


def test_tags_become_yes_and_no():
    tags = pl.DataFrame({"item_id": ["1", "1", "2", "3"], "tag": ["Hilarious ", "war", "war", "FUNNY"]})
    golden = golden_from_tags(tags, [FUNNY])
    assert dict(golden.select("item_id", "label").iter_rows()) == {"1": 1, "2": 0, "3": 1}


def test_raters_are_a_majority_and_a_tie_is_nothing():
    golden = pl.DataFrame(
        {
            "item_id": ["1", "1", "1", "2", "2"],
            "attribute": ["funny"] * 5,
            "rater": list("abcab"),
            "label": [1, 1, 0, 1, 0],
        }
    )
    np.testing.assert_array_equal(truth_matrix(golden, ["1", "2", "3"], ["funny"])[:, 0], [1, np.nan, np.nan])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "1,funny,a,1\n1,funy,a,1\n", ["row 3", "column attribute", "funy", "funny"]),
        (HEAD + "9,funny,a,1\n", ["row 2", "column item_id", "'9'"[1:-1]]),
        (HEAD + "1,funny,a,yes\n", ["column label", "yes", "0, 1"]),
        ("item_id,attribute,label\n1,funny,1\n", ["column rater"]),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, text, words):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_golden(tmp_path, ["1", "2"], [FUNNY])
    assert caught.value.exit_code == 2
    for word in ["g.csv", *words]:
        assert word in str(caught.value)


def test_a_perfect_source_and_a_coin():
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 1))
    truth[:80] = 1
    perfect = truth.astype(np.float32)
    coin = rng.random((400, 1)).astype(np.float32)
    rows = {row.source: row for row in measure(truth, {"perfect": perfect, "coin": coin}, ["funny"])}
    assert (rows["perfect"].auc.mean, rows["perfect"].f1.mean, rows["perfect"].kappa.mean) == (1, 1, 1)
    assert rows["coin"].auc.low < 0.5 < rows["coin"].auc.high
    assert rows["coin"].kappa.mean < 0.15


def test_a_source_is_measured_on_what_it_labelled_and_few_positives_say_nothing():
    truth = np.zeros((50, 2))
    truth[:20, 0] = 1
    truth[:2, 1] = 1
    partial = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    partial[40:] = np.nan
    (row,) = measure(truth, {"x": partial}, ["funny", "rare"])
    assert (row.attribute, row.n, row.positives) == ("funny", 40, 20)
