from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from palate.errors import InputError
from palate.evaluation.binary import auc, binary_report, expected_calibration_error

PAIRS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.5, 0.8, 1.0])), min_size=2, max_size=40
)


@settings(deadline=None, max_examples=50)
@given(PAIRS, st.sampled_from([0.2, 0.5, 0.9]))
def test_figures_equal_scikit_learn(pairs, threshold):
    y, s = (np.array(x, dtype=float) for x in zip(*pairs, strict=True))
    said = s >= threshold
    got = binary_report(y, s, threshold, n_resamples=5)
    zero = {"zero_division": np.nan}
    assert got.precision.mean == pytest.approx(metrics.precision_score(y, said, **zero), nan_ok=True)
    assert got.recall.mean == pytest.approx(metrics.recall_score(y, said, **zero), nan_ok=True)
    assert got.f1.mean == pytest.approx(metrics.f1_score(y, said, **zero), nan_ok=True)
    if 0 < y.sum() < len(y):
        assert got.auc.mean == auc(y, s) == pytest.approx(metrics.roc_auc_score(y, s))
        assert got.kappa.mean == pytest.approx(metrics.cohen_kappa_score(y, said))
    else:
        assert np.isnan(got.auc.mean)
    assert got.ece.mean == pytest.approx(expected_calibration_error(y, s))


def test_calibration_by_hand():
    truth, said = [1, 0, 1, 1], [0.9, 0.9, 0.2, 1.0]  # 1.0 falls into the last bin
    assert expected_calibration_error(truth, said) == pytest.approx((abs(2.8 - 2) + abs(0.2 - 1)) / 4)
    assert np.isnan(binary_report(truth, [-0.2, 0.3, 1.4, 0.1]).ece.mean)  # similarities are no probabilities


def test_intervals_hold_the_estimate_and_repeat():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    s = np.clip(0.3 * y + 0.7 * rng.random(400), 0, 1)
    one, two = binary_report(y, s, seed=4), binary_report(y, s, seed=4)
    assert one == two
    for name in ("precision", "recall", "f1", "auc", "kappa", "ece"):
        interval = getattr(one, name)
        assert interval.low < interval.high and interval.low - 0.02 <= interval.mean <= interval.high + 0.02


def test_missing_answers_are_counted_and_left_out():
    got = binary_report([1, 0, np.nan, 1], [0.9, 0.1, 0.5, np.nan])
    assert (got.n, got.positives, got.missing) == (2, 1, 2)
    assert got.f1.mean == 1.0


def test_nothing_to_judge_is_nan():
    got = binary_report([], [])
    assert got.n == 0 and np.isnan(got.auc.mean) and np.isnan(got.kappa.low)
    assert np.isnan(auc([], [])) and np.isnan(expected_calibration_error([], []))


def test_truth_that_is_no_truth():
    with pytest.raises(InputError, match="0 or 1"):
        binary_report([2, 1], [0.1, 0.2])
    with pytest.raises(InputError, match="differ in shape"):
        binary_report([1], [0.1, 0.2])
