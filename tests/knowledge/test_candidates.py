import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from palate.errors import InputError
from palate.knowledge.candidates import candidate_sets, plausible_sets, refined
from palate.knowledge.distil import Student, StudentConfig, distil
from palate.llm.request import Answer, Message, Request


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=8), st.floats(0.01, 1))
def test_a_set_is_the_smallest_that_covers_the_mass(weights, mass):
    shares = np.array([weights]) / sum(weights)
    inside = candidate_sets(shares, mass)[0]
    held = np.sort(shares[0][inside])
    assert held.sum() >= mass - 1e-6
    assert held[1:].sum() < mass  # without the least of them it would not
    assert inside.sum() < 2 or shares[0][inside].min() >= shares[0][~inside].max(initial=0) - 1e-12


def test_nothing_known_leaves_all_open_and_the_mass_is_a_share():
    assert candidate_sets(np.array([[np.nan, np.nan], [0.9, 0.1]]), 0.8).tolist() == [[True, True], [True, False]]
    with pytest.raises(InputError, match="mass"):
        candidate_sets(np.array([[1.0, 0.0]]), 0.0)


def test_a_student_settles_what_its_teacher_left_open():
    """Digits: the teacher holds two candidates, the true one at 0.4 and a wrong one at 0.6."""
    x, y = load_digits(return_X_y=True)
    x, y = (x[:500] / 16).astype(np.float32), y[:500]
    rng = np.random.default_rng(0)
    wrong = (y + rng.integers(1, 10, len(y))) % 10
    unsure = rng.random(len(y)) < 0.6
    said = np.eye(10)[y]
    said[unsure] = 0.4 * np.eye(10)[y[unsure]] + 0.6 * np.eye(10)[wrong[unsure]]
    config = StudentConfig(strengths=(1.0,), folds=3)
    sets = candidate_sets(said, 0.9)
    assert (sets.sum(axis=1) == np.where(unsure, 2, 1)).all()
    targets = refined(said, sets, lambda flat: Student(config).fit(x, flat), rounds=3)
    assert (said.argmax(axis=1) == y).mean() < 0.5
    assert (targets.argmax(axis=1) == y).mean() > 0.95
    assert (targets[~sets] == 0).all()


def test_distil_settles_unsure_answers_on_request():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 4)).astype(np.float32)
    truth = vectors[:, 0] > 0
    said = np.where(np.abs(vectors[:, 0]) > 0.5, np.where(truth, 0.95, 0.05), 0.5)  # unsure near the border
    ids = [str(i) for i in range(300)]
    labels = pl.DataFrame({"entity": ids, "name": "a", "value": said, "model": "teacher"})
    plain = distil(labels, vectors, ids)["value"].to_numpy()
    settled = distil(labels, vectors, ids, StudentConfig(candidate_mass=0.9))["value"].to_numpy()
    open_ = said == 0.5
    assert np.abs(settled - 0.5)[open_].mean() > np.abs(plain - 0.5)[open_].mean()
    assert ((settled > 0.5) == truth)[open_].mean() > 0.8


class Lister:
    """A stand-in model: what it lists is given beforehand."""

    model = "stand-in"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def generate(self, requests):
        self.asked = list(requests)
        return self.answers

    def choose(self, requests, options):
        raise NotImplementedError


def test_plausible_options_are_asked_for_and_a_failure_leaves_all_open():
    request = Request((Message("user", "Which?"),), options=("a", "b", "c"))
    llm = Lister([Answer(value={"plausible": ["c", "a"]}), Answer(error="broken"), Answer(value={"plausible": []})])
    sets = plausible_sets([request] * 3, ("a", "b", "c"), llm)
    assert sets.tolist() == [[True, False, True], [True] * 3, [True] * 3]
    assert llm.asked[0].options is None
    assert llm.asked[0].json_schema["properties"]["plausible"]["items"]["enum"] == ["a", "b", "c"]
