import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression

from palate.evaluation.binary import auc
from palate.evaluation.calibration import (
    MIN_LABELS,
    Platt,
    calibrate,
    cross_fitted,
    fit_isotonic,
    fit_platt,
    reliability,
    too_few,
)

SCORES = st.integers(0, 1000).map(lambda n: n / 1000)  # theirs takes scores closer than 1e-15 for equal
LABELLED = st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=60)


def bragging(n=600, seed=0):
    """Scores whose logit is three times what it should be, and a little shifted."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1, n)
    truth = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    return 1 / (1 + np.exp(-(3 * logit + 1))), truth


@given(LABELLED)
def test_isotonic_is_scikit_learns(pairs):
    x, y = np.array([p for p, _ in pairs]), np.array([float(t) for _, t in pairs])
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    at = np.concatenate([x, np.linspace(0, 1, 7)])
    np.testing.assert_allclose(fit_isotonic(x, y)(at), theirs.predict(at), atol=1e-6)


def test_platt_is_scikit_learns_sigmoid():
    p, y = bragging()
    theirs = _SigmoidCalibration().fit(np.log(p / (1 - p)), y)
    np.testing.assert_allclose(fit_platt(p, y)(p), theirs.predict(np.log(p / (1 - p))), atol=2e-4)


def test_platt_finds_what_was_done():
    p, y = bragging(20_000)
    found = fit_platt(p, y)
    assert found.slope == pytest.approx(1 / 3, abs=0.03)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.05)


@given(LABELLED)
def test_both_maps_keep_order_and_stay_probabilities(pairs):
    x, y = np.array([p for p, _ in pairs]), np.array([float(t) for _, t in pairs])
    for fit in (fit_platt, fit_isotonic):
        mapped = fit(x, y)(np.linspace(0, 1, 50))
        assert ((mapped >= 0) & (mapped <= 1)).all()
        assert (np.diff(mapped) >= -1e-12).all()


def test_scores_that_mislead_are_made_flat_not_turned_round():
    p, y = bragging()
    found = fit_platt(1 - p, y)
    assert 0 < found.slope < 0.05
    assert found(0.5) == pytest.approx(y.mean(), abs=0.02)
    assert auc(y, found(1 - p)) == pytest.approx(auc(y, 1 - p))


def test_each_score_is_mapped_by_those_that_never_saw_it():
    """A map that memorises (isotonic on noise) looks well calibrated on its own labels only."""
    rng = np.random.default_rng(1)
    p, y = rng.random(200), rng.integers(0, 2, 200).astype(float)
    own = ((fit_isotonic(p, y)(p) - y) ** 2).mean()
    honest = ((cross_fitted("isotonic", p, y) - y) ** 2).mean()
    assert own < 0.25 < honest


def test_calibration_pays_where_scores_brag():
    p, y = bragging()
    mapped, report = calibrate(p, y)
    assert report.method != "none"
    assert report.ece_after < 0.06 < report.ece_before
    assert report.brier_change.high < 0
    assert (report.n, report.positives) == (600, int(y.sum()))
    np.testing.assert_allclose(mapped(p).mean(), y.mean(), atol=0.02)


def test_calibrated_scores_are_left_alone():
    rng = np.random.default_rng(2)
    p = rng.random(5000)
    y = (rng.random(5000) < p).astype(float)
    _, report = calibrate(p, y)
    assert abs(report.brier_change.mean) < 1e-3


def test_too_few_labels_are_said_and_nothing_is_fitted():
    p, y = bragging(MIN_LABELS - 1)
    mapped, report = calibrate(p, y, "platt")
    assert (report.method, report.note) == ("none", too_few(y))
    assert "too few dev labels" in report.note
    np.testing.assert_array_equal(mapped(p), p)
    one_sided = calibrate(np.full(100, 0.5), np.r_[np.ones(3), np.zeros(97)])[1]
    assert "3 yes and 97 no" in one_sided.note
    assert calibrate([], [])[1].n == 0


def test_reliability_by_hand():
    bins = reliability([0.05, 0.08, 0.95, 1.0, 0.5], [0, 1, 1, 1, 0])
    assert [b.n for b in bins] == [2, 1, 2]
    assert [b.true for b in bins] == [0.5, 0.0, 1.0]
    assert [b.said for b in bins] == pytest.approx([0.065, 0.5, 0.975])
    assert (bins[0].low, bins[0].high) == pytest.approx((0.01258, 0.98742), abs=1e-4)  # Clopper-Pearson for 1 of 2
    assert (bins[1].low, bins[1].high) == pytest.approx((0.0, 0.975))


def test_platt_on_the_logit():
    assert Platt(1.0, 0.0)(0.3) == pytest.approx(0.3)
    assert Platt(2.0, 0.0)([0.5, 0.8]) == pytest.approx([0.5, 16 / 17])
