from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError
from palate.evaluation.power import Design
from palate.evaluation.welch import moments, welch


def test_it_is_tea_tastings_power(tea):
    values = np.random.default_rng(0).poisson(4, 500).astype(float)
    metric = tea.Mean("x", effect_size=0.3, power=0.8, n_obs=1000, ratio=1)
    table = {"x": values}
    import polars as pl

    design = Design(float(values.std(ddof=1)))
    known = metric.solve_power(pl.DataFrame(table), "power")[0]
    assert design.power(0.3, 1000) == pytest.approx(known.power, abs=1e-8)
    effect = tea.Mean("x", power=0.8, n_obs=1000).solve_power(pl.DataFrame(table), "effect_size")[0].effect_size
    assert design.detectable(1000) == pytest.approx(effect, rel=1e-6)
    people = tea.Mean("x", power=0.8, effect_size=0.3).solve_power(pl.DataFrame(table), "n_obs")[0].n_obs
    assert abs(design.people(0.3) - people) <= 1


@given(st.floats(0.02, 1), st.floats(0.05, 0.5), st.floats(0.3, 0.95))
@settings(max_examples=30)
def test_the_number_of_people_is_the_least_that_finds_it(effect, share, power):
    design = Design(1.0, share, 1 - share)
    people = design.people(effect, power)
    assert design.power(effect, people) >= power
    assert people <= 4 / min(share, 1 - share) + 1 or design.power(effect, people - 1) < power


def test_the_power_is_how_often_it_is_found():
    rng, design = np.random.default_rng(0), Design(1.0, 0.2, 0.8)
    treated, control = rng.normal(0.25, 1, (800, 100)), rng.normal(0, 1, (800, 400))
    found = np.mean([welch(moments(a), moments(b)).p_value < 0.05 for a, b in zip(treated, control, strict=True)])
    assert found == pytest.approx(design.power(0.25, 500), abs=0.05)


def test_what_cannot_be_found():
    for design, effect, power in ((Design(1.0), 0.0, 0.8), (Design(0.0), 0.1, 0.8), (Design(1.0), 0.1, 0.01)):
        with pytest.raises(InputError):
            design.people(effect, power)
    assert Design(1.0).power(0.1, 2) == 0.05
