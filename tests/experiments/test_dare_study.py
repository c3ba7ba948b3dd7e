"""What is measured of texts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "knowledge"))
from profile_data import Letters, log

from palate.experiments.dare_study import distinct, own_history


def test_distinct_runs_of_words():
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == 2 / 3
    assert distinct(["A b", "a B"], 2) == 0.5
    assert np.isnan(distinct(["short"], 2))


def test_a_profile_tells_its_own_history_from_others():
    data = log(n_users=6, n_items=6)
    titles = data.items["title"].to_list()
    seen = {f"u{n}": [n] for n in range(6)}
    own = own_history({f"u{n}": titles[n] for n in range(6)}, seen, data, Letters())
    assert (own == 1).all()
    copied = own_history({f"u{n}": titles[(n + 1) % 6] for n in range(6)}, seen, data, Letters())
    assert copied.mean() < 0.8
    same = own_history({f"u{n}": titles[0] for n in range(6)}, seen, data, Letters())
    assert np.isclose(same.mean(), 0.5)  # rounding alone orders them
    assert not len(own_history({"u0": "alone"}, seen, data, Letters()))
