from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from planted_log import DAY, END, HOUR, START, experiment, planted_log, planted_tables
from scipy.stats import kstest

from palate.console.words import plain
from palate.data.assignment import Split, assign
from palate.errors import InputError
from palate.experiments.analyse import Analysis, analyse
from palate.experiments.effects import Effect, person_effects
from palate.experiments.gather import gather
from palate.experiments.log import Log, log_of, microseconds, open_log
from palate.experiments.register import Changes
from palate.experiments.verdict import as_data, verdict

SAME = {"control": 0.3, "more": 0.3}


def check(analysis: Analysis, name: str):
    return next(each for each in analysis.checks if each.name == name)


def judged(shown: pl.DataFrame, done: pl.DataFrame, **said: object) -> Analysis:
    return analyse(log_of(shown, done), experiment(**said), END)


@pytest.fixture(scope="module")
def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    return planted_tables({"control": 0.3, "more": 0.42}, 500, history=3)


def test_a_planted_effect_is_found_and_told(tables):
    analysis = judged(*tables, guardrails=["negative_rate"], slices=["newcomer"])
    (effect, guardrail) = analysis.effects
    assert analysis.outcome("more") == "better" and effect.found(0.95) == "better"
    assert effect.relative.low < 0.4 < effect.relative.high
    said = " ".join(verdict(analysis))
    assert "more raises click_rate" in said and "Nothing can be said of the guardrail negative_rate" in said
    assert "hide" in guardrail.missing
    assert {name for name, _ in analysis.slices} == {"newcomer: yes", "newcomer: no"}
    assert effect.correlation > 0.3
    assert json.loads(json.dumps(plain(as_data(analysis, END))))["outcomes"] == {"more": "better"}


def test_an_effect_that_is_not_there_is_not_found():
    analysis = analyse(planted_log(SAME, 400, seed=5), experiment(minimum_effect=0.5), END)
    assert analysis.outcome("more") == "no effect" and "ruled out" in " ".join(verdict(analysis))
    wider = analyse(planted_log(SAME, 400, seed=5), experiment(minimum_effect=0.001), END)
    assert wider.outcome("more") == "unclear" and "more people" in " ".join(verdict(wider))


def test_a_guardrail_takes_the_win_away():
    shown, done = planted_tables({"control": 0.2, "more": 0.5}, 400)
    skips = done.filter(pl.col("item_id").is_in([f"i{n}" for n in range(20)])).with_columns(event_type=pl.lit("skip"))
    analysis = judged(shown, pl.concat([done, skips]), guardrails=["negative_rate"])
    assert analysis.outcome("more") == "mixed" and "makes the guardrail negative_rate worse" in " ".join(
        verdict(analysis)
    )
    fewer = judged(shown, pl.concat([done, skips]), primary="negative_rate")
    assert fewer.outcome("more") == "worse"


def test_a_log_in_shards_says_what_it_says_whole(tables):
    said = {"metrics": ["coverage", "return_rate", "events_per_user"], "slices": ["newcomer"]}
    whole, cut = (analyse(log_of(*tables), experiment(**said), END, rows=size) for size in (10**7, 1500))
    assert [check.words for check in whole.checks] == [check.words for check in cut.checks]
    for one, other in zip(whole.effects, cut.effects, strict=True):
        assert (one.treated, one.absolute.low, one.p_value) == pytest.approx(
            (other.treated, other.absolute.low, other.p_value), rel=1e-9
        )
    for table in ("days", "weekdays", "path"):
        for one, other in zip(getattr(whole, table), getattr(cut, table), strict=True):
            assert one.pop("variant") == other.pop("variant") and one == pytest.approx(other, nan_ok=True)


def test_while_it_runs_only_the_intervals_for_people_who_peek_decide():
    log = planted_log({"control": 0.3, "more": 0.37}, 500, seed=1)
    ended, running = (analyse(log, experiment(people=500), now) for now in (END, END - timedelta(hours=1)))
    effect = ended.effects[0]
    assert effect.p_value < 0.05 < effect.always.p_value
    assert (ended.outcome("more"), running.outcome("more")) == ("better", "running")
    assert "people who peek" in verdict(running)[-1]
    assert running.path[-1]["always_low"] < running.path[-1]["low"]


# What can be wrong with a log


def test_a_sample_ratio_mismatch_stops_the_report(tables):
    shown, done = tables
    lost = shown.filter(pl.col("variant") == "trial:more")["user_id"].unique().sort().head(120)
    analysis = judged(shown.filter(~pl.col("user_id").is_in(lost.implode())), done)
    assert not analysis.readable and not analysis.effects and not analysis.path
    assert analysis.outcome("more") == "not readable"
    assert check(analysis, "sample ratio").state == "stop" and "cannot be read" in verdict(analysis)[0]
    data = as_data(analysis, END)
    assert data["effects"] == [] and data["outcomes"] == {"more": "not readable"}


def test_a_mismatch_says_where_it_is_furthest_off():
    """One variant shows nothing to people who come on its last six days."""
    shown, done = planted_tables(SAME, 800, 1)
    crashed = (pl.col("variant") == "trial:more") & (pl.col("timestamp") >= END - timedelta(days=6))
    analysis = judged(shown.filter(~crashed), done)
    assert not analysis.readable
    assert "furthest off among first seen on: 2026-03-1" in check(analysis, "sample ratio").words


def test_a_variant_that_nobody_saw_stops_the_report(tables):
    shown, done = tables
    analysis = judged(shown.filter(pl.col("variant") != "trial:more"), done)
    assert check(analysis, "empty variants").state == "stop" and "more" in check(analysis, "empty variants").words


def other_variant(shown: pl.DataFrame, people: list[str]) -> pl.DataFrame:
    """The same impressions a minute later, under the other variant."""
    turned = {"trial:more": "trial:control", "trial:control": "trial:more"}
    late = pl.col("timestamp") + timedelta(minutes=1)
    rows = shown.filter(pl.col("user_id").is_in(people))
    return rows.with_columns(late, pl.col("variant").replace(turned), pl.col("request_id") + "b")


def test_people_in_two_variants_are_counted_named_and_left_out(tables):
    shown, done = tables
    few, many = shown["user_id"].unique().sort().to_list()[:3], shown["user_id"].unique().sort().to_list()[:30]
    analysis = judged(pl.concat([shown, other_variant(shown, few)]), done)
    found = check(analysis, "people in two variants")
    assert found.state == "warning" and found.figures["people"] == 3 and found.figures["as"] == few
    assert analysis.readable and sum(analysis.people.values()) == 497
    assert check(judged(pl.concat([shown, other_variant(shown, many)]), done), "people in two variants").state == "stop"


def test_rows_logged_twice_count_once(tables):
    shown, done = tables
    analysis = judged(pl.concat([shown, shown.head(40)]), pl.concat([done, done.tail(7)]))
    plainly = judged(shown, done)
    assert check(analysis, "impressions logged twice").figures == {"rows": 40}
    assert check(analysis, "events logged twice").figures == {"rows": 7}
    assert analysis.effects[0].treated == pytest.approx(plainly.effects[0].treated)


def test_exposures_and_events_out_of_time_are_left_out(tables):
    shown, done = tables
    late = shown.head(50).with_columns(pl.col("timestamp") + timedelta(days=30))
    early = shown.tail(20).with_columns(pl.col("timestamp") - timedelta(days=30))
    after = (
        done.unique(["user_id", "item_id"], maintain_order=True)
        .head(8)
        .with_columns(pl.lit(END).cast(done.schema["timestamp"]).alias("timestamp"))
    )
    analysis = judged(
        pl.concat([shown, late, early]).with_columns(request_id=pl.lit(None, pl.String)), pl.concat([done, after])
    )
    assert check(analysis, "impressions outside the experiment's time").figures == {"rows": 70}
    assert check(analysis, "events after the experiment's end").figures["rows"] == 8


def test_forced_and_unknown_variants_and_nobody_are_left_out(tables):
    shown, done = tables
    forced = shown.filter(pl.col("user_id") == "u1").with_columns(variant=pl.lit("trial:more!"))
    strange = shown.head(30).with_columns(variant=pl.lit("trial:most"), request_id=pl.lit("r-strange"))
    nameless = shown.head(11).with_columns(user_id=pl.lit(""))
    rest = shown.filter(pl.col("user_id") != "u1")
    elsewhere = shown.head(5).with_columns(variant=pl.lit("default"))
    analysis = judged(pl.concat([rest, forced, strange, nameless, elsewhere]), done)
    assert check(analysis, "impressions forced by an override").figures["rows"] == forced.height
    assert check(analysis, "impressions under a variant that is not declared").state == "warning"
    assert check(analysis, "impressions without a unit").figures == {"rows": 11}
    assert sum(analysis.people.values()) == 499 and analysis.rows["of other experiments"] == 5


def test_metrics_without_events_are_named(tables):
    shown, done = tables
    analysis = judged(shown, done, metrics=["completion_rate"])
    assert check(analysis, "metrics without events").state == "warning"
    nothing = judged(shown, done.with_columns(event_type=pl.lit("view")))
    assert (
        check(nothing, "metrics without events").state == "stop"
        and "view" in check(nothing, "metrics without events").words
    )


@pytest.mark.parametrize(
    ("moved", "words"), [(timedelta(hours=2), "+2 hours"), (-timedelta(hours=5, minutes=30), "-5.5 hours")]
)
def test_a_time_zone_is_told_by_its_whole_hours(tables, moved, words):
    shown, done = tables
    quick = done.drop_nulls("request_id").join(
        shown.select("request_id", "timestamp").unique("request_id"), on="request_id", suffix="_shown"
    )
    soon = quick.with_columns(timestamp=pl.col("timestamp_shown") + moved + timedelta(minutes=2)).select(done.columns)
    found = check(judged(shown, soon), "clocks")
    assert found.state == "warning" and words in found.words


def test_clocks_that_go_wrong_are_counted(tables):
    shown, done = tables
    early = done.with_row_index().with_columns(
        pl.when(pl.col("index") < 25)
        .then(pl.col("timestamp") - timedelta(days=1))
        .otherwise("timestamp")
        .alias("timestamp")
    )
    found = check(judged(shown, early.drop("index")), "clocks")
    assert found.state == "warning" and found.figures["early"] == done.head(25)["request_id"].count()
    assert check(judged(shown, done.with_columns(request_id=pl.lit(None, pl.String))), "clocks").state == "good"


def test_times_without_a_zone_are_refused_and_other_zones_read(tables):
    shown, done = tables
    with pytest.raises(InputError, match="no time zone"):
        log_of(shown.with_columns(pl.col("timestamp").dt.replace_time_zone(None)), done)
    moved = shown.with_columns(pl.col("timestamp").dt.convert_time_zone("Asia/Kolkata"))
    analysis = judged(moved, done)
    assert "Asia/Kolkata" in check(analysis, "time zones").words
    assert analysis.effects[0].treated == pytest.approx(judged(shown, done).effects[0].treated)


def test_logs_that_cannot_be_read(tables, tmp_path):
    shown, done = tables
    with pytest.raises(InputError, match="no column variant"):
        log_of(shown.drop("variant"), done)
    with pytest.raises(InputError, match="another type"):
        log_of(shown.with_columns(pl.col("timestamp").to_physical()), done)
    with pytest.raises(InputError, match="no impressions"):
        open_log(tmp_path, tmp_path)
    with pytest.raises(InputError, match="Nothing was shown"):
        judged(shown.with_columns(variant=pl.lit("default")), done)
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_log(tmp_path, tmp_path)


def test_what_changed_since_the_start_is_told(tables):
    split, later = Changes(split=("salt was 1, is 2",)), Changes(plan=("primary was a, is b",))
    stopped = analyse(log_of(*tables), experiment(), END, split)
    assert check(stopped, "declaration").state == "stop" and not stopped.effects
    warned = analyse(log_of(*tables), experiment(), END, later)
    assert check(warned, "declaration").state == "warning" and "primary was a" in check(warned, "declaration").words


def test_another_experiment_that_changes_the_effect_is_told():
    """Within the other's variant the effect turns round."""
    rates = {"control:off": 0.2, "control:on": 0.5, "more:off": 0.5, "more:on": 0.2}
    shown, done = planted_tables(rates, 500, name="x")
    label = pl.col("variant").str.replace(r"x:(\w+):(\w+)", "other:$2|trial:$1")
    analysis = judged(shown.with_columns(label), done)
    assert "they interact" in check(analysis, "interference").words
    alike = planted_tables(dict.fromkeys(rates, 0.3), 500, name="x")
    assert check(judged(alike[0].with_columns(label), alike[1]), "interference").state == "good"


def test_snapshots_that_changed_while_it_ran_are_told(tables):
    shown, done = tables
    snapshot = pl.when(pl.col("timestamp") < START + timedelta(days=7)).then(pl.lit("a")).otherwise(pl.lit("b"))
    assert "2 snapshots" in check(judged(shown.with_columns(snapshot=snapshot), done), "interference").words


def test_an_effect_that_wears_off_is_told():
    """Clicks of the first day of people under `more` are doubled."""
    shown, done = planted_tables({"control": 0.25, "more": 0.25}, 500, 6)
    first = shown.group_by("user_id").agg(pl.col("timestamp").min().alias("exposed"))
    under = shown.select("user_id", "variant").unique()
    fresh = done.join(first, on="user_id").join(under, on="user_id")
    fresh = fresh.filter(
        (pl.col("timestamp") < pl.col("exposed") + timedelta(days=1)) & (pl.col("variant") == "trial:more")
    )
    extra = fresh.select(done.columns).with_columns(pl.col("item_id") + "again")
    analysis = judged(shown, pl.concat([done, extra]))
    assert analysis.steady["more"]["slope_p"] < 0.05 and "novelty" in " ".join(verdict(analysis))
    steady = judged(*planted_tables({"control": 0.25, "more": 0.4}, 500, 6))
    assert "novelty" not in " ".join(verdict(steady))


def test_weeks_that_are_not_whole_are_told(tables):
    early = analyse(log_of(*tables), experiment(), START + timedelta(days=10))
    assert check(early, "whole weeks").state == "warning" and "10.0 days" in check(early, "whole weeks").words


# What holds over many runs


@pytest.mark.slow
def test_a_a_experiments_find_nothing_more_often_than_they_may():
    """1,000 splits by other salts of people who were all treated alike: CUPED, delta method and Welch together."""
    people = gather(planted_log({"control": 0.3}, 200, history=3), experiment()).people.drop("variant")
    blank = [Effect("click_rate", "", "primary", "more", "up")]
    p_values = []
    for run in range(1000):
        split = Split("trial", f"salt {run}", "trial", {"control": 0.5, "more": 0.5})
        drawn = [assign(split, f"u{n}", START).variant == "more" for n in range(people.height)]
        made = people.with_columns(variant=pl.Series(drawn).cast(pl.UInt8))
        p_values.append(person_effects(experiment().metric("click_rate"), blank, made, experiment())[0].p_value)
    wrong = np.mean(np.array(p_values) < 0.05)
    assert abs(wrong - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 1000)
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_microseconds_are_of_utc():
    assert microseconds(datetime(1970, 1, 2, tzinfo=UTC)) == DAY == 24 * HOUR
    assert isinstance(planted_log(SAME, 10), Log)


def test_an_event_with_its_id_and_one_without_are_the_same_event(tables):
    shown, done = tables
    named = done.unique(["user_id", "item_id", "timestamp"]).with_columns(
        event_id=pl.int_range(pl.len()).cast(pl.String)
    )
    bare = named.head(60).with_columns(event_id=pl.lit(None, pl.String))
    assert check(judged(shown, pl.concat([named, bare])), "events logged twice").figures == {"rows": 60}
