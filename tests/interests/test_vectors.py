from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.dataset import EVENT_SCHEMA, ITEM_SCHEMA, Dataset
from palate.errors import InputError
from palate.interests.vectors import VectorsConfig, collaborative, item_vectors, neighbours_kept, unit_rows


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def log(pairs: list[tuple[str, str]], n_items: int) -> Dataset:
    items = pl.DataFrame({"item_id": [str(i) for i in range(n_items)]}).with_columns(
        pl.lit(None, dtype=ITEM_SCHEMA[name]).alias(name) for name in ("title", "text", "categories")
    )
    events = pl.DataFrame(pairs, schema={"user_id": pl.String, "item_id": pl.String}, orient="row").with_columns(
        pl.lit(0).cast(EVENT_SCHEMA["timestamp"]).alias("timestamp"),
        pl.lit(None, dtype=pl.String).alias("event_type"),
        pl.lit(None, dtype=pl.Float32).alias("value"),
    )
    return Dataset.from_tables(items, events)


def test_a_cosine_is_the_weighted_mean_of_the_parts_cosines() -> None:
    text, media = rows(40, 8), rows(40, 5, 1)
    made = item_vectors({"text": text, "media": 7 * media}, VectorsConfig(weights={"text": 3, "media": 1}))
    expected = (3 * unit_rows(text) @ unit_rows(text).T + unit_rows(media) @ unit_rows(media).T) / 4
    np.testing.assert_allclose(made.vectors @ made.vectors.T, expected, atol=1e-5)
    assert made.used == {"text": 3, "media": 1}
    assert (made.neighbours_kept, made.unknown) == (1.0, 0)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 60), d=st.integers(1, 30), width=st.integers(1, 12), holes=st.floats(0, 1), seed=st.integers(0))
def test_vectors_are_unit_or_zero_and_no_wider_than_asked(n: int, d: int, width: int, holes: float, seed: int) -> None:
    text = rows(n, d, seed % 1000)
    text[np.random.default_rng(seed % 1000).random(n) < holes] = 0
    if not text.any():
        return
    made = item_vectors({"text": text}, VectorsConfig(width=width))
    lengths = np.linalg.norm(made.vectors, axis=1)
    assert made.vectors.shape == (n, min(d, width))
    assert (np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)).all()
    assert made.unknown >= (~text.any(axis=1)).sum()
    assert 0 <= made.neighbours_kept <= 1


def test_the_loss_of_neighbours_is_told() -> None:
    flat = np.hstack([rows(300, 6), 1e-3 * rows(300, 40, 1)])
    config = VectorsConfig(width=6)
    assert item_vectors({"text": flat}, config).neighbours_kept > 0.95
    round_ = rows(300, 46)
    lossy = item_vectors({"text": round_}, config)
    assert lossy.neighbours_kept < 0.6
    assert lossy.neighbours_kept == neighbours_kept(unit_rows(round_), lossy.vectors, config)


def test_without_text_people_s_choices_are_used_and_it_is_said() -> None:
    people = rows(30, 4)
    made = item_vectors({"text": None, "media": np.zeros((30, 3), np.float32), "collaborative": people})
    assert made.used == {"collaborative": 1.0}
    assert made.left_out == dict.fromkeys(("text", "media"), "there is none for any item")
    with_text = item_vectors({"text": rows(30, 5), "collaborative": people})
    assert with_text.left_out == {"collaborative": "it has weight 0"}


def test_an_item_without_a_part_lies_by_the_others() -> None:
    text, media = rows(20, 4), rows(20, 4, 1)
    media[3] = 0
    made = item_vectors({"text": text, "media": media}, VectorsConfig(weights={"text": 1.0, "media": 0.5}))
    assert np.linalg.norm(made.vectors[3]) == pytest.approx(1, abs=1e-5)
    alone = unit_rows(text)
    assert (made.vectors[3] @ made.vectors.T)[:3] == pytest.approx(alone[3] @ alone[:3].T * (1 / 1.5) ** 0.5, abs=1e-5)


def test_people_s_choices_part_what_they_never_chose_together() -> None:
    rng = np.random.default_rng(0)
    pairs = [(f"u{u}", str(u % 2 * 10 + item)) for u in range(60) for item in rng.permutation(10)[:5]]
    found = collaborative(log(pairs, 22), 4)
    assert found is not None
    near = found @ found.T
    assert near[:10, :10].mean() > 0.3 + near[:10, 10:20].mean()
    assert not found[20:].any()  # nobody chose them
    assert collaborative(log([], 5)) is None


def test_bad_parts_are_named() -> None:
    with pytest.raises(InputError, match="No item has a vector"):
        item_vectors({"text": None, "collaborative": np.zeros((4, 0), np.float32)})
    with pytest.raises(InputError, match="not of the same items"):
        item_vectors({"text": rows(4, 3), "media": rows(5, 3)})
    with pytest.raises(InputError, match="has no weight"):
        item_vectors({"smell": rows(4, 3)})
    with pytest.raises(InputError, match="not finite"):
        item_vectors({"text": rows(4, 3) * np.float32(np.nan)})
