import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from palate.errors import InputError
from palate.knowledge.genre_spectrum import GenreSpectrum, SpectrumConfig, shared_genre

SMALL = SpectrumConfig(hidden=32, width=16, epochs=30, batch=32, rate=5e-3)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), np.eye(10, dtype=np.float32)[y]


def test_its_neighbours_share_more_than_those_of_raw_features(digits):
    x, genres = digits
    noisy = (x + np.random.default_rng(0).standard_normal(x.shape) * 0.3).astype(np.float32)
    model = GenreSpectrum(SMALL).fit(noisy[:900], genres[:900])
    held = genres[900:] > 0
    assert shared_genre(model.encode(noisy[900:]), held).mean() > shared_genre(noisy[900:], held).mean()
    truth = genres.argmax(axis=1)
    plain = LogisticRegression(max_iter=300).fit(noisy[:900], truth[:900]).score(noisy[900:], truth[900:])
    assert (model.predict(noisy[900:]).argmax(axis=1) == truth[900:]).mean() > plain - 0.05


def test_vectors_are_of_unit_length_and_the_same_every_time(digits):
    x, genres = digits
    first, second = (GenreSpectrum(SMALL).fit(x[:200], genres[:200]).encode(x) for _ in range(2))
    assert first.shape == (len(x), 16)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.array_equal(first, second)


def test_more_training_lowers_the_loss(digits):
    x, genres = digits
    losses = []
    for epochs in (1, 5, 25):
        said = GenreSpectrum(SMALL.model_copy(update={"epochs": epochs, "mix": 0.0})).fit(x, genres).predict(x)
        losses.append(
            float(-(genres * np.log(said + 1e-9) + (1 - genres) * np.log(1 - said + 1e-9)).sum(axis=1).mean())
        )
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.1


@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_shares_are_those_of_a_plain_count(n, k, seed):
    rng = np.random.default_rng(seed)
    vectors, genres = rng.standard_normal((n, 3)).astype(np.float32), rng.random((n, 4)) < 0.4
    found = shared_genre(vectors, genres, k, chunk=7)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for i in range(n):
        near = [j for j in np.argsort(-(unit @ unit[i]), kind="stable") if j != i][:k]
        assert found[i] == pytest.approx(np.mean([(genres[i] & genres[j]).any() for j in near]))


def test_vectors_and_genres_must_fit():
    with pytest.raises(InputError, match="do not fit"):
        GenreSpectrum().fit(np.zeros((3, 2), np.float32), np.zeros((2, 2), np.float32))
