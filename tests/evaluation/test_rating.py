"""Figures of predicted probabilities, against scikit-learn, by hand, and by plain resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from palate.errors import InputError
from palate.evaluation.rating import auc, expected_calibration_error, gauc, log_loss

judged = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20).map(lambda n: n / 20), st.integers(0, 4)), min_size=4, max_size=80
).filter(lambda rows: len({label for label, *_ in rows}) == 2)


@given(judged)
def test_equals_scikit_learn(rows: list[tuple[int, float, int]]) -> None:
    labels, scores, users = (np.array(column) for column in zip(*rows, strict=True))
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, np.clip(scores, 1e-7, 1 - 1e-7)))
    own = [(users == u) for u in np.unique(users) if len(np.unique(labels[users == u])) == 2]
    expected = [roc_auc_score(labels[mask], scores[mask]) for mask in own]
    if own:
        assert gauc(labels, scores, users) == pytest.approx(np.average(expected, weights=[m.sum() for m in own]))
    else:
        assert np.isnan(gauc(labels, scores, users))


def test_gauc_by_hand() -> None:
    users = ["a", "a", "a", "b", "b", "c", "c"]
    labels = [1, 0, 0, 0, 1, 1, 1]  # c liked both: left out
    scores = [0.5, 0.5, 0.1, 0.9, 0.2, 0.3, 0.4]  # a: a tie and a win, 0.75; b: lost, 0
    assert gauc(labels, scores, users) == pytest.approx((3 * 0.75 + 2 * 0.0) / 5)


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([1, 0, 1, 1], [0.65, 0.65, 0.95, 0.95]) == pytest.approx((0.15 + 0.05) / 2)


def test_one_class_alone_has_no_auc() -> None:
    assert np.isnan(log_loss([], [])) and np.isnan(gauc([], [], []))


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="differ in shape"):
        log_loss([1, 0], [0.5])
    with pytest.raises(InputError, match="hold NaN"):
        gauc([1, 0], [0.5, np.nan], [0, 0])
