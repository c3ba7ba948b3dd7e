"""Alignment: what people liked after the same interests decides among candidates."""

import numpy as np
import pytest

from palate.errors import InputError
from palate.interests.alignment import AlignmentConfig, aggregated, best_of, fit_alignment


def test_feedback_of_the_same_interests_is_one_row_with_its_people():
    tuples = np.array([[1, 0], [0, 1], [0, 1], [2, 3], [2, 3], [0, 2]])
    candidate = np.array([4, 4, 4, 5, 5, 4])
    signal = np.array([1.0, 3.0, np.nan, 9.0, 7.0, 5.0])
    found = aggregated(tuples, candidate, signal, AlignmentConfig(least=2, step=0.25))
    assert found.tuples.tolist() == [[0, 1], [2, 3]]  # that of one person alone is left out
    assert found.candidate.tolist() == [4, 5]
    assert found.people.tolist() == [2, 2]  # what is not known does not count
    assert found.label.tolist() == [0.25, 0.75]
    louder = aggregated(tuples, candidate, 1000 * signal - 7, AlignmentConfig(least=2, step=0.25))
    np.testing.assert_array_equal(louder.label, found.label)  # ranks, whatever the scale
    with pytest.raises(InputError, match="differ in length"):
        aggregated(tuples, candidate[:2], signal, AlignmentConfig())


def test_what_is_liked_after_the_like_is_learnt_and_carried_to_new_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def drawn(n):
        tuples, candidate = rng.integers(0, 40, (n, 2)), rng.integers(0, 40, n)
        liked = np.einsum("nkd,nd->n", vectors[tuples], vectors[candidate])
        return tuples, candidate, liked

    tuples, candidate, liked = drawn(3000)
    config = AlignmentConfig(least=1)
    model = fit_alignment(aggregated(tuples, candidate, liked + rng.normal(size=3000), config), vectors, config)
    tuples = drawn(300)[0]
    candidates = rng.integers(0, 40, (300, 5))
    truth = np.einsum("nkd,nmd->nm", vectors[tuples], vectors[candidates])
    found, shares = best_of(model, tuples, candidates, np.tile(np.linspace(0.5, 0.1, 5), (300, 1)))
    chosen = np.einsum("nkd,nd->n", vectors[tuples], vectors[found[:, 0]])
    assert chosen.mean() > truth.mean() + 0.5 * (truth.max(axis=1).mean() - truth.mean())
    assert (np.sort(found, axis=1) == np.sort(candidates, axis=1)).all()
    for row in range(5):  # each keeps its own probability
        at = [candidates[row].tolist().index(number) for number in found[row].tolist()]
        if len(set(candidates[row].tolist())) == 5:
            np.testing.assert_allclose(shares[row], np.linspace(0.5, 0.1, 5)[at])


def test_no_share_changes_nothing_and_what_is_missing_stays_last():
    vectors = np.eye(6, dtype=np.float32)
    tuples = np.array([[0, 1], [1, 2]] * 4)
    config = AlignmentConfig(least=1)
    rows = aggregated(tuples, np.array([3, 4, 5, 3, 4, 5, 3, 4]), np.arange(8.0), config)
    model = fit_alignment(rows, vectors, config)
    candidates, shares = np.array([[5, 3, 4, -1]]), np.array([[0.6, 0.3, 0.1, 0.0]])
    assert best_of(model, tuples[:1], candidates, shares, share=0.0)[0].tolist() == [[5, 3, 4, -1]]
    assert best_of(model, tuples[:1], candidates, shares)[0][0, -1] == -1


def test_no_feedback_is_said():
    none = aggregated(np.zeros((0, 2), int), np.zeros(0, int), np.zeros(0), AlignmentConfig())
    with pytest.raises(InputError, match="no feedback") as caught:
        fit_alignment(none, np.eye(3, dtype=np.float32))
    assert "least" in str(caught.value)
