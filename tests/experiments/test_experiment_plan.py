from __future__ import annotations

import pytest
from planted_log import experiment, planted_log

from palate.errors import InputError
from palate.evaluation.power import Design
from palate.experiments.effects import effects_on
from palate.experiments.gather import gather
from palate.experiments.plan import plan


@pytest.fixture(scope="module")
def log():
    """Two weeks under no experiment, with what people did before."""
    return planted_log({"any": 0.3}, 800, 3, name="old", history=3)


def test_history_says_how_many_people_it_takes(log):
    made = plan(log, experiment(), effect=0.1)
    assert made.mean == pytest.approx(0.3, abs=0.02) and 0.3 < made.correlation < 0.7
    adjusted = made.deviation * (1 - made.correlation**2) ** 0.5
    assert made.people == Design(adjusted).people(0.1 * made.mean)
    assert made.reach[-1] == 800 and made.people_declared == 800
    assert made.power_declared == pytest.approx(Design(adjusted).power(0.1 * made.mean, 800))
    assert f"{made.people:,} people" in " ".join(made.words())


@pytest.mark.slow
def test_the_planned_number_of_people_finds_the_planned_effect_as_often(log):
    """Experiments of as many people as were met, with the smallest effect that they find four times of five."""
    made = plan(log, experiment())
    lift = 0.3 * (1 + made.detectable[2])
    metric, found = experiment().metric("click_rate"), []
    for seed in range(20):
        run = gather(planted_log({"control": 0.3, "more": lift}, 800, 3, seed=seed, history=3), experiment())
        found.append(effects_on(metric, "primary", run, experiment())[0].p_value < 0.05)
    assert 0.5 <= sum(found) / len(found) <= 0.97


def test_more_variants_fewer_slots_and_smaller_effects_take_longer(log):
    whole = plan(log, experiment(), effect=0.1)
    thirds = {name: {"share": 1 / 3} for name in ("a", "b", "c")}
    assert plan(log, experiment(variants=thirds), effect=0.1).people > whole.people
    half = plan(log, experiment(slots=(0.0, 0.5)), effect=0.1)
    assert half.people == whole.people and half.people_declared == 400
    assert plan(log, experiment(), effect=0.001).days is None
    assert "not met within two years" in " ".join(plan(log, experiment(), effect=0.001).words())


def test_what_cannot_be_planned(log):
    for said, words in (
        ({"primary": "coverage"}, "means and ratios"),
        ({"primary": "negative_rate"}, "same for everybody"),
    ):
        with pytest.raises(InputError, match=words):
            plan(log, experiment(**said))
    with pytest.raises(InputError, match="Too few"):
        plan(planted_log({"any": 0.3}, 5), experiment())
