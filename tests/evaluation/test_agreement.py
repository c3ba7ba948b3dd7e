from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from palate.errors import InputError
from palate.evaluation.agreement import (
    alternative_annotator_test,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    krippendorff_interval,
)

X = np.nan
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units.
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, X, X, X],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, X, 3],
    [X, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, X],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, X],
]
# Fleiss 1971 as everybody prints it: 10 subjects, 14 raters, 5 categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_own_example(level, alpha):
    assert krippendorff_alpha(EXAMPLE, level) == pytest.approx(alpha, abs=5e-4)
    interval = krippendorff_interval(EXAMPLE, level, n_resamples=200)
    assert interval.low < interval.mean < interval.high


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, X]), min_size=6, max_size=6), min_size=2, max_size=5))
@settings(deadline=None)
def test_alpha_is_what_its_definition_says(ratings):
    """Pair by pair, as the nominal definition counts."""
    table = np.array(ratings)
    within, weights, pooled = 0.0, 0.0, []
    for column in table.T:
        known = column[~np.isnan(column)]
        if len(known) >= 2:
            pairs = [(a, b) for i, a in enumerate(known) for j, b in enumerate(known) if i != j]
            within += sum(a != b for a, b in pairs) / (len(known) - 1)
            weights += len(known)
            pooled += list(known)
    everything = [a != b for i, a in enumerate(pooled) for j, b in enumerate(pooled) if i != j]
    alpha = krippendorff_alpha(table)
    if not any(everything):
        assert np.isnan(alpha)
    else:
        assert alpha == pytest.approx(1 - (within / weights) / np.mean(everything))


def test_alpha_of_perfect_agreement_is_one_and_of_one_value_undefined():
    assert krippendorff_alpha([[0, 1, 2], [0, 1, 2]]) == 1
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert np.isnan(krippendorff_alpha([[1, X], [X, 1]]))


def test_fleiss_on_the_classical_table():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(InputError, match="same number"):
        fleiss_kappa([[2, 1], [1, 1]])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_kappa_equals_scikit_learn(pairs):
    a, b = (list(side) for side in zip(*pairs, strict=True))
    if len({*a, *b}) > 1:
        assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b), nan_ok=True)
    assert cohen_kappa([*a, X], [*b, 1]) == pytest.approx(cohen_kappa(a, b), nan_ok=True)


def test_the_alternative_annotator_test_by_hand():
    """Against B and C, A ties on three items and loses the fourth: lead -1/4, standard error 1/4, t = -1.8.

    B ties everywhere (p = 0), C is like A. Of three p-values the first step of Benjamini-Yekutieli is
    0.05 / (3 · (1 + 1/2 + 1/3)) = 0.0091: B alone is rejected.
    """
    people, model = [[1, 1, 0, 0], [1, 1, 0, 1], [1, 0, 0, 1]], [1, 1, 0, 1]
    found = alternative_annotator_test(people, model, epsilon=0.2, names="ABC", min_items=4)
    p = float(stats.t.cdf(-1.8, df=3))
    assert found.p_values == pytest.approx({"A": p, "B": 0.0, "C": p})
    assert found.rejected == ("B",)
    assert found.winning_rate == pytest.approx(1 / 3)
    assert found.advantage_probability == 1
    assert not found.passed


def test_a_model_like_the_people_passes_and_noise_does_not():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    people = np.array([np.where(rng.random(200) < 0.85, truth, 1 - truth) for _ in range(4)], dtype=float)
    people[0, 25:] = X
    good = alternative_annotator_test(people, np.where(rng.random(200) < 0.9, truth, 1 - truth))
    bad = alternative_annotator_test(people, rng.integers(0, 2, 200))
    assert good.passed
    assert not bad.passed
    assert good.advantage_probability > bad.advantage_probability
    assert good.skipped == {"0": 25}
    assert alternative_annotator_test(people * 4 + 1, truth * 4.0 + 1, level="interval").passed


def test_what_cannot_be_tested_is_said():
    with pytest.raises(InputError, match="Nobody rated enough"):
        alternative_annotator_test([[1, 0], [1, 1]], [1, 0])
    with pytest.raises(InputError, match="do not fit"):
        alternative_annotator_test([[1, 0]], [1])
    with pytest.raises(InputError, match="level"):
        krippendorff_alpha([[1, 0]], "ratio")  # type: ignore[arg-type]
