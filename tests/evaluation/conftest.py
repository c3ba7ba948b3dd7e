from __future__ import annotations

import numpy as np
import polars as pl
import pytest


@pytest.fixture(scope="session")
def tea():
    """tea-tasting, an oracle for the statistics of experiments."""
    return pytest.importorskip("tea_tasting")


@pytest.fixture(params=range(3))
def two_groups(request):
    """People of two variants with a count, a count below it in a ratio, and one from before."""
    rng = np.random.default_rng(request.param)
    n = 150 + 40 * request.param
    taste = rng.gamma(3, 1, n)
    table = {"variant": rng.integers(0, 2, n), "x": rng.poisson(taste), "y": 1 + rng.poisson(2 * taste)}
    return pl.DataFrame({**table, "before": rng.poisson(taste)})
