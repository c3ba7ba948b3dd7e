import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from palate.errors import InputError
from palate.evaluation.selective import (
    calibrate_cascade,
    fewest,
    most_errors,
    route,
    threshold_for,
    upper_bound,
    within,
)


@given(n=st.integers(1, 200), share=st.floats(0, 1), delta=st.floats(0.01, 0.5))
def test_the_bound_is_clopper_and_pearsons(n, share, delta):
    errors = int(share * n)
    bound = upper_bound(errors, n, delta)
    assert errors / n <= bound <= 1
    if errors < n:
        assert stats.binom.cdf(errors, n, bound) == pytest.approx(delta, rel=1e-3)


@given(n=st.integers(1, 300), share=st.floats(0, 1), alpha=st.floats(0.01, 0.9), delta=st.floats(0.01, 0.5))
def test_the_quick_test_is_the_bounds_and_the_counts_are_its_edges(n, share, alpha, delta):
    errors = min(int(share * n), n - 1)
    bound = float(upper_bound(errors, n, delta))
    if abs(bound - alpha) > 1e-6:
        assert bool(within(errors, n, alpha, delta)) == (bound <= alpha)
    least, most = fewest(alpha, delta, errors), most_errors(n, alpha, delta)
    assert within(errors, least, alpha, delta) and not (least > errors + 1 and within(errors, least - 1, alpha, delta))
    assert most < 0 or within(most, n, alpha, delta)
    assert most == n - 1 or not within(most + 1, n, alpha, delta)


@pytest.fixture(scope="module")
def judges():
    """Two classifiers of handwritten digits, a weak one on few pixels and a better one: confidence and errors."""
    x, y = load_digits(return_X_y=True)
    found = []
    for columns, n in ((slice(18, 40), 100), (slice(None), 200)):
        model = LogisticRegression(max_iter=2000).fit(x[:n, columns] / 16, y[:n])
        shares = model.predict_proba(x[200:, columns] / 16)
        found.append((shares.max(axis=1), (model.classes_[shares.argmax(axis=1)] != y[200:]).astype(float)))
    return found


@pytest.mark.parametrize(("alpha", "delta"), [(0.1, 0.1), (0.15, 0.2)])
def test_the_promise_holds_over_200_random_splits(judges, alpha, delta):
    rng, n = np.random.default_rng(0), len(judges[0][0])
    broken, answered = 0, []
    for _ in range(200):
        order = rng.permutation(n)
        dev, rest = order[:500], order[500:]
        stages = calibrate_cascade([(str(k), c[dev], w[dev]) for k, (c, w) in enumerate(judges)], alpha, delta)
        takes = route(stages, [c[rest] for c, _ in judges])
        wrong = np.stack([w[rest] for _, w in judges])[takes, np.arange(len(rest))][takes >= 0]
        broken += len(wrong) > 0 and wrong.mean() > alpha
        answered.append((takes >= 0).mean())
    assert broken <= 200 * delta + 3 * np.sqrt(200 * delta * (1 - delta))
    assert np.mean(answered) > 0.3  # a promise that is kept by silence is worth nothing
    assert stages[0].answered > 0


def test_it_abstains_rather_than_lies():
    sure = np.linspace(0, 1, 29)
    assert threshold_for(sure, np.zeros(29), 0.1, 0.1)[0] == np.inf  # too few
    assert threshold_for(np.linspace(0, 1, 300), np.ones(300), 0.1, 0.1)[0] == np.inf  # even the surest are wrong
    (stage,) = calibrate_cascade([("student", np.ones(40), np.ones(40))], 0.2, 0.1)
    assert (stage.answered, stage.reached) == (0, 40)
    assert route([stage], [np.ones(3)]).tolist() == [-1, -1, -1]


@given(
    st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=30, max_size=200),
    st.floats(0.05, 0.5),
)
@settings(deadline=None)
def test_what_is_answered_in_calibration_keeps_the_bound(pairs, alpha):
    sure, wrong = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    threshold, bound = threshold_for(sure, wrong, alpha, 0.1)
    takes = sure >= threshold
    if takes.any():
        assert takes.sum() >= 30
        assert wrong[takes].mean() <= bound <= alpha


def test_shares_must_be_shares():
    with pytest.raises(InputError, match="between 0 and 1"):
        calibrate_cascade([("a", [1.0], [0.0])], 0, 0.1)
    with pytest.raises(InputError, match="nothing to calibrate"):
        calibrate_cascade([("a", [], [])], 0.1, 0.1)
