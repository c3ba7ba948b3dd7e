import numpy as np
import pytest
from scipy import stats

from palate.errors import InputError
from palate.evaluation.binary import auc
from palate.evaluation.paired import auc_difference, benjamini_hochberg, holm


def test_the_difference_is_that_of_the_aucs():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    a, b = np.round(rng.random(60) + 0.3 * y, 1), np.round(rng.random(60), 1)
    found = auc_difference(y, a, b).difference
    assert found.mean == pytest.approx(auc(y, a) - auc(y, b))
    assert found.low < found.mean < found.high


def test_delong_by_hand():
    """Two true, two untrue. a ranks all right; b one pair in four wrong: placements 1, 1 against 1, 1/2."""
    found = auc_difference([1, 1, 0, 0], [4, 3, 2, 1], [4, 2, 3, 1]).difference
    spread = np.sqrt(np.var([0, 0.5], ddof=1) / 2 + np.var([0.5, 0], ddof=1) / 2)
    assert (found.mean, found.high) == pytest.approx((0.25, 0.25 + 1.96 * spread))


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.8])
def test_where_neither_is_better_one_in_twenty_is_called_so(alike):
    """The AUCs are equal, the scores are not: one is in two steps only. 150 draws; 3 standard errors of slack."""
    rng = np.random.default_rng(1)
    called, draws = 0, 150
    threshold_at = stats.norm.ppf(0.5)
    for _ in range(draws):
        y = (np.arange(80) < 25).astype(float)
        common = rng.normal(size=80)
        a = alike * common + (1 - alike**2) ** 0.5 * rng.normal(size=80)
        b = alike * common + (1 - alike**2) ** 0.5 * rng.normal(size=80) > threshold_at
        called += auc_difference(y, a, b.astype(float), n_permutations=199).p_value <= 0.05
    assert called / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert called > 0


def test_a_better_score_is_found_and_a_worse_one_is_not():
    rng = np.random.default_rng(2)
    y = (np.arange(200) < 80).astype(float)
    good, bad = y + rng.normal(size=200), rng.normal(size=200)
    assert auc_difference(y, good, bad).p_value < 0.001
    assert auc_difference(y, bad, good).p_value > 0.99
    assert auc_difference(y, good, good).p_value == 1


def test_what_cannot_be_compared_is_said():
    with pytest.raises(InputError, match="two items of either class"):
        auc_difference([1, 0, 0, np.nan], [1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(InputError, match="0 or 1"):
        auc_difference([0.5, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(InputError, match="shape"):
        auc_difference([0, 1], [1, 2], [1])


def test_holm_and_benjamini_hochberg_by_hand():
    p = [0.01, 0.04, 0.03, 0.005]
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])  # Holm's own scheme: ×4, ×3, ×2, ×1, never falling
    assert benjamini_hochberg(p, 0.05).tolist() == [True] * 4
    assert benjamini_hochberg([0.01, 0.2, 0.9], 0.05).tolist() == [True, False, False]
    assert benjamini_hochberg([0.2], 0.05).tolist() == [False]
    assert benjamini_hochberg([], 0.05).tolist() == []


def test_benjamini_hochberg_equals_scipy():
    p = np.random.default_rng(3).random(50) ** 3
    np.testing.assert_array_equal(benjamini_hochberg(p, 0.1), stats.false_discovery_control(p) <= 0.1)
