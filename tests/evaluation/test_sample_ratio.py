from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palate.errors import InputError
from palate.evaluation.sample_ratio import sample_ratio

HALVES = {"a": 0.5, "b": 0.5}


def test_it_is_scipys_chi_square():
    found = sample_ratio({"a": 480, "b": 250, "c": 270}, {"a": 0.5, "b": 0.25, "c": 0.25})
    known = stats.chisquare([480, 250, 270], [500, 250, 250])
    assert found.p_value == pytest.approx(known.pvalue, abs=1e-12) and not found.mismatch
    assert found.expected == {"a": 500, "b": 250, "c": 250}


def test_a_percent_amiss_among_two_hundred_thousand_is_found():
    """101,000 where 100,000 were to be; chance alone raises the alarm once in a thousand."""
    rng = np.random.default_rng(0)
    amiss = rng.binomial(200_000, 0.505, 200)
    assert np.mean([sample_ratio({"a": n, "b": 200_000 - n}, HALVES).mismatch for n in amiss]) > 0.85
    assert sample_ratio({"a": 101_000, "b": 99_000}, HALVES).mismatch
    right = rng.binomial(200_000, 0.5, 1000)
    assert np.mean([sample_ratio({"a": n, "b": 200_000 - n}, HALVES).mismatch for n in right]) < 0.006


def test_what_cannot_be():
    assert sample_ratio({"a": 0, "b": 0}, HALVES).p_value == 1
    assert sample_ratio({"a": 500, "b": 0}, HALVES).mismatch
    for seen, shares in (({"a": 1}, HALVES), ({"a": 1, "b": 1}, {"a": 1.0, "b": 0.0})):
        with pytest.raises(InputError):
            sample_ratio(seen, shares)
