import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from palate.errors import InputError
from palate.evaluation.binary import expected_calibration_error
from palate.knowledge.platt import fit_platt


def overconfident(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(n) * 2
    truth = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return 1 / (1 + np.exp(-3 * z + 2)), truth


def test_it_calibrates_and_keeps_the_order():
    scores, truth = overconfident()
    curve = fit_platt(scores[:2000], truth[:2000])
    before, after = (expected_calibration_error(truth[2000:], s) for s in (scores[2000:], curve(scores[2000:])))
    assert after < 0.03 < before
    assert (np.diff(curve(np.sort(scores))) >= 0).all()


def test_it_is_a_logistic_regression_of_the_logit():
    scores, truth = overconfident()
    x = np.log(scores / (1 - scores))[:, None]
    reference = LogisticRegression(C=1e9, tol=1e-8).fit(x, truth)
    curve = fit_platt(scores, truth)
    assert curve.slope == pytest.approx(reference.coef_[0, 0], abs=0.01)  # his targets move it a little
    assert curve.shift == pytest.approx(reference.intercept_[0], abs=0.01)


def test_one_kind_of_label_is_not_enough():
    with pytest.raises(InputError, match="both kinds"):
        fit_platt([0.1, 0.2, np.nan], [1, 1, 0])
