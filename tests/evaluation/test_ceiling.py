import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from palate.errors import InputError
from palate.evaluation.ceiling import against_others

X = np.nan


def test_pooled_figures_are_those_of_scikit_learn():
    """Rater by rater, against the majority of the others where there is one."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    people = np.array([np.where(rng.random(60) < 0.8, truth, 1 - truth) for _ in range(4)], dtype=float)
    people[rng.random(people.shape) < 0.2] = X
    model = np.where(rng.random(60) < 0.7, truth, 1 - truth).astype(float)
    model[:5] = X
    majority, own, its = [], [], []
    for row in range(4):
        for item in range(60):
            others = [v for v in np.delete(people[:, item], row) if not np.isnan(v)]
            if others and sum(others) * 2 != len(others) and not np.isnan([people[row, item], model[item]]).any():
                majority.append(sum(others) * 2 > len(others))
                own.append(people[row, item])
                its.append(model[item])
    found = against_others(people, model)
    assert found.n == len(majority)
    assert found.people_f1.mean == pytest.approx(f1_score(majority, own))
    assert found.model_f1.mean == pytest.approx(f1_score(majority, its))
    assert found.people_kappa.mean == pytest.approx(cohen_kappa_score(majority, own))
    assert found.model_kappa.mean == pytest.approx(cohen_kappa_score(majority, its))
    assert found.f1_lead.mean == pytest.approx(found.model_f1.mean - found.people_f1.mean)
    assert found.f1_lead.low < found.f1_lead.mean < found.f1_lead.high


def test_the_interval_of_the_lead_covers_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        truth = rng.random(150) < 0.4
        raters = [np.where(rng.random(150) < 0.85, truth, ~truth).astype(float) for _ in range(4)]
        found = against_others(np.array(raters[:3]), raters[3], n_resamples=200)  # a model that is one more person
        covered += found.f1_lead.low <= 0 <= found.f1_lead.high
    assert covered >= 51


def test_nothing_to_compare_is_nan_and_shapes_are_checked():
    found = against_others([[1, X], [X, 0]], [1, 1])
    assert found.n == 0
    assert np.isnan(found.people_f1.mean)
    assert np.isnan(found.f1_lead.low)
    with pytest.raises(InputError, match="do not fit"):
        against_others([[1, 0]], [1])
