import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_media import BLUE, GREEN, RED, film, scene
from palate.errors import InputError
from palate.knowledge.visual import FEATURES, describe, join_features, oklab, visual_features
from palate.llm.media.frames import Clip, Frame, read_clip

AT = {name: place for place, name in enumerate(FEATURES)}


def still(pixels) -> Clip:
    return Clip("image", (Frame(np.asarray(pixels, dtype=np.uint8)),), len(pixels[0]), len(pixels))


def plain(colour, size=(40, 60)) -> Clip:
    return still(np.full((*size, 3), colour))


def of(clip: Clip, name: str) -> float:
    row = describe([clip])
    assert row is not None
    assert len(row) == len(FEATURES)
    return float(row[AT[name]])


def test_oklab_has_its_published_values():
    """https://bottosson.github.io/posts/oklab: white, and pure red as (0.628, 0.225, 0.126)."""
    found = oklab(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(found, [[1, 0, 0], [0.628, 0.2249, 0.1258], [0, 0, 0]], atol=1e-3)


def test_colours_edges_and_layout_are_told_apart():
    assert of(plain(RED), "green_red") > 0.1
    assert of(plain(GREEN), "green_red") < 0
    assert of(plain((255, 255, 255)), "border_white") == 1
    assert of(plain((128, 128, 128)), "grey_share") == 1
    assert of(plain((128, 128, 128)), "colourfulness") == pytest.approx(0, abs=1e-6)
    rows = np.zeros((40, 60, 3))
    rows[::8], rows[1::8], rows[2::8], rows[3::8] = 255, 255, 255, 255
    across, down = still(rows), still(rows.transpose(1, 0, 2))
    assert of(across, "edge_share") > 0.3 > of(plain(RED), "edge_share") == 0
    assert of(across, "edge_direction_2_of_4") == pytest.approx(1)
    assert of(down, "edge_direction_0_of_4") == pytest.approx(1)
    middle = np.full((40, 60, 3), 255)
    middle[10:30, 15:45] = 0
    assert of(still(middle), "centre_lightness") == pytest.approx(-1, abs=0.01)
    assert of(plain(RED, (10, 100)), "aspect") == pytest.approx(np.log(10))


def test_films_have_length_cuts_and_motion(tmp_path):
    path = tmp_path / "film"
    path.write_bytes(film(scene(RED, 20) + scene(BLUE, 20)))
    moving = read_clip(path)
    path.write_bytes(film([np.full((96, 128, 3), 90, dtype=np.uint8)] * 40))
    resting = read_clip(path)
    assert of(moving, "motion") > of(resting, "motion")
    assert of(moving, "cuts") == pytest.approx(np.log1p(1))
    assert of(moving, "seconds") == pytest.approx(np.log1p(4), abs=0.03)
    assert of(moving, "shot_seconds") == pytest.approx(np.log1p(2), abs=0.03)
    assert of(resting, "shot_seconds") == pytest.approx(np.log1p(4), abs=0.03)
    assert (of(moving, "is_film"), of(plain(RED), "is_film")) == (1, 0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_pictures_of_any_size_have_finite_features(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    row = describe([still(pixels)])
    assert row is not None
    assert np.isfinite(row).all()


def test_features_are_standardised_and_zero_without_media():
    raw = [describe([plain(colour)]) for colour in (RED, BLUE, GREEN)]
    table = visual_features([raw[0], None, raw[1], describe([]), raw[2]])
    assert table.shape == (5, len(FEATURES) + 1)
    assert table.dtype == np.float32
    assert table[:, -1].tolist() == [1, 0, 1, 0, 1]
    assert not table[[1, 3]].any()
    there = table[[0, 2, 4], :-1]
    np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-5)
    spread = there.std(axis=0)
    assert set(np.round(spread, 4)) == {0.0, 1.0}
    assert not visual_features([None, None]).any()


def test_joined_parts_weigh_what_was_asked():
    rng = np.random.default_rng(0)
    vectors, features = rng.standard_normal((50, 8)), rng.standard_normal((50, 5)) * 30
    joined = join_features(vectors.astype(np.float32), features.astype(np.float32), weight=0.5)
    lengths = np.sqrt((joined[:, :8] ** 2).sum(axis=1).mean()), np.sqrt((joined[:, 8:] ** 2).sum(axis=1).mean())
    assert lengths == pytest.approx((1.0, 0.5), abs=1e-5)
    np.testing.assert_array_equal(
        join_features(vectors.astype(np.float32), np.zeros((50, 5), dtype=np.float32))[:, 8:], 0
    )
    with pytest.raises(InputError, match="not of the same items"):
        join_features(vectors.astype(np.float32), features[:9].astype(np.float32))
