import numpy as np
import pytest

from palate.errors import InputError
from palate.evaluation.prevalence import prediction_powered_mean


def test_it_covers_the_truth_and_is_narrower_than_people_alone():
    rng = np.random.default_rng(0)
    covered, widths, alone = 0, [], []
    for _ in range(300):
        truth = (rng.random(2060) < 0.3).astype(float)
        said = np.clip(0.6 * truth + 0.3 + 0.1 * rng.standard_normal(2060), 0, 1)  # biased, yet it knows
        interval = prediction_powered_mean(truth[:60], said[:60], said[60:])
        covered += interval.low <= 0.3 <= interval.high
        widths.append(interval.high - interval.low)
        alone.append(2 * 1.96 * truth[:60].std(ddof=1) / np.sqrt(60))
    assert 0.91 <= covered / 300 <= 0.99
    assert np.mean(widths) < 0.5 * np.mean(alone)


def test_a_useless_model_does_no_harm():
    rng = np.random.default_rng(1)
    truth = (rng.random(200) < 0.5).astype(float)
    interval = prediction_powered_mean(truth, rng.random(200), rng.random(5000))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * truth.std(ddof=1) / np.sqrt(200), rel=0.05)
    assert prediction_powered_mean(truth, truth, []).mean == pytest.approx(truth.mean())


def test_one_judged_item_is_too_few():
    with pytest.raises(InputError, match="Two or more"):
        prediction_powered_mean([1], [1], [0, 1])
