from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from planted_log import END, experiment, planted_log, planted_tables
from scipy.stats import false_discovery_control

from palate.experiments.analyse import analyse
from palate.experiments.effects import Effect, adjusted, person_effects
from palate.experiments.log import log_of
from palate.experiments.metrics import MetricConfig

THREE = {"old": {"share": 0.5}, "a": {"share": 0.25}, "b": {"share": 0.25}}
SHARES = {"old": 0.5, "a": 0.25, "b": 0.25}


def effect(p_value: float) -> Effect:
    return Effect("m", "", "metric", "a", "up", p_value=p_value)


def test_p_values_are_adjusted_over_those_that_there_are():
    p_values = [0.01, math.nan, 0.04, 0.03]
    holm = [each.adjusted for each in adjusted([effect(p) for p in p_values], "holm")]
    assert holm == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    bh = [each.adjusted for each in adjusted([effect(p) for p in p_values], "bh")]
    known = false_discovery_control([0.01, 0.04, 0.03])
    assert bh == pytest.approx([known[0], math.nan, known[1], known[2]], nan_ok=True)
    assert adjusted([], "holm") == []


def test_holm_is_tea_tastings():
    tea = pytest.importorskip("tea_tasting")
    rng = np.random.default_rng(0)
    table = {"variant": rng.integers(0, 2, 300), **{f"m{n}": rng.normal(size=300) for n in range(5)}}
    result = tea.Experiment({f"m{n}": tea.Mean(f"m{n}") for n in range(5)}).analyze(pl.DataFrame(table))
    for how, known in (
        ("holm", tea.adjust_fwer(result, arbitrary_dependence=True, method="bonferroni")),
        ("bh", tea.adjust_fdr(result, arbitrary_dependence=False)),
    ):
        found = adjusted([effect(result[f"m{n}"].pvalue) for n in range(5)], how)
        said = {row["metric"]: row["pvalue_adj"] for row in known.to_dicts()}
        assert [each.adjusted for each in found] == pytest.approx([said[f"m{n}"] for n in range(5)], abs=1e-8)


def test_several_variants_are_held_against_the_control_that_is_named():
    log = planted_log({"old": 0.3, "a": 0.3, "b": 0.45}, 800, shares=SHARES)
    analysis = analyse(log, experiment(variants=THREE, control="old", metrics=["coverage"]), END)
    clicks = [each for each in analysis.effects if each.metric == "click_rate"]
    assert [each.variant for each in clicks] == ["a", "b"]
    assert analysis.outcome("b") == "better" and analysis.outcome("a") in ("unclear", "no effect")
    assert clicks[1].adjusted == pytest.approx(min(1.0, 2 * clicks[1].p_value))
    assert clicks[0].control == clicks[1].control
    (whole, _) = (each for each in analysis.effects if each.metric == "coverage")
    assert (whole.n_treated, whole.n_control) == (analysis.people["a"], analysis.people["old"])


def test_slices_are_those_of_the_users_table():
    """The effect is in one country; people of none are in no slice."""
    shown, done = planted_tables({"control": 0.2, "more": 0.2}, 900, seed=1)
    users = pl.DataFrame({"user_id": [f"u{n}" for n in range(600)], "country": ["a", "b"] * 300})
    under = shown.select("user_id", "variant").unique().filter(pl.col("variant") == "trial:more")
    lucky = done.join(users.filter(pl.col("country") == "a"), on="user_id", how="semi").join(
        under, on="user_id", how="semi"
    )
    more = pl.concat([done, lucky.with_columns(pl.col("item_id") + "again")])
    analysis = analyse(log_of(shown, more, users=users), experiment(slices=["country"]), END)
    found = dict(analysis.slices)
    assert set(found) == {"country: a", "country: b"}
    assert found["country: a"].found(0.95) == "better" and found["country: b"].found(0.95) == "unclear"
    assert found["country: a"].adjusted == pytest.approx(min(1.0, 2 * found["country: a"].p_value))
    assert 560 < sum(each.n_treated + each.n_control for each in found.values()) <= 600


def test_winsorising_tells_an_effect_that_one_person_hides():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.poisson(3, 400), rng.poisson(4, 400)]).astype(float)
    x[0] = 3000
    people = pl.DataFrame({"variant": np.repeat([0, 1], 400), "m.x": x, "m.before": np.zeros(800)})
    blank = [Effect("m", "", "primary", "more", "up")]
    plainly, capped = (
        person_effects(MetricConfig(of=("play",), winsorise=upper).metric("m"), blank, people, experiment())[0]
        for upper in (None, 0.99)
    )
    assert plainly.found(0.95) == "unclear" and plainly.p_value > 0.05
    assert capped.p_value < 1e-3 and capped.limit < 20


def test_nobody_observed_gives_a_reason_and_no_figure():
    people = pl.DataFrame({"variant": [0, 0, 1], "m.x": [1.0, 2.0, None], "m.before": [0.0, 0.0, 0.0]})
    blank = [Effect("m", "", "primary", "more", "up")]
    for quantile in (None, 0.5):
        metric = MetricConfig(of=("play",), quantile=quantile).metric("m")
        (found,) = person_effects(metric, blank, people, experiment())
        assert "long enough" in found.missing and math.isnan(found.p_value)
        assert found.found(0.95) == "unclear"


def test_random_groups_keep_their_level():
    """Coverage and Gini of people who are all shown the same kind of things, by 20 groups against 20."""
    from palate.evaluation.welch import moments, welch
    from palate.experiments.explore_measures import gini
    from palate.experiments.metrics import covered

    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(60, 0.3))
    counts = rng.multinomial(100, weights, (400, 2, 20))  # of each run, variant and group: items
    for statistic in (covered, gini):
        figures = np.apply_along_axis(statistic, 3, counts)
        p_values = np.array([welch(moments(a), moments(b)).p_value for a, b in figures])
        assert np.mean(p_values < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
