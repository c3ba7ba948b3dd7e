import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.llm.media.shots import LOOK_SIDE, chosen, distance, look_of, shot_starts


def look(value: int) -> np.ndarray:
    return look_of(np.full((LOOK_SIDE, LOOK_SIDE, 3), value, dtype=np.uint8))


def test_a_peak_is_a_cut_and_steady_motion_is_none():
    assert shot_starts([0.01] * 10 + [0.5] + [0.01] * 10) == [0, 11]
    assert shot_starts([0.15] * 20) == [0]
    assert shot_starts([]) == [0]


def test_distance_grows_with_the_change():
    assert distance(look(10), look(10)) == 0
    assert 0 < distance(look(10), look(60)) < distance(look(10), look(250)) <= 2


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 12))
def test_every_shot_has_its_frame_where_there_are_enough(new_shot, n):
    shots = np.cumsum(new_shot).tolist()
    looks = [np.eye(160, dtype=np.float32)[k] * 20 for k in range(len(shots))]  # no two alike
    picked = chosen([k / 10 for k in range(len(shots))], shots, looks, n)
    assert picked == sorted(set(picked))
    assert len(picked) == min(n, len(shots))
    seen = {shots[k] for k in picked}
    assert seen == set(shots) if len(set(shots)) <= n else len(seen) == n


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 8))
def test_no_two_chosen_look_alike(values, n):
    picked = chosen(range(len(values)), [0] * len(values), [look(60 * v) for v in values], n)
    assert len({values[k] for k in picked}) == len(picked) == min(n, len(set(values)))
