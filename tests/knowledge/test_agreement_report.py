"""Reports on people and sources that are made up, so that it is known what must come out."""

import json

import numpy as np
import polars as pl
import pytest

from palate.knowledge.agreement_report import Golden, Terms, agreement_report
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import SCHEMA

N = 400
IDS = [str(n) for n in range(N)]
FUNNY = Attribute(name="funny", question="Is this funny?")
DARK = Attribute(name="dark", question="How dark is it?", options=("very", "somewhat", "hardly", "not"))


def rows(table):
    """Golden rows of {(attribute, rater): values [N]}; NaN: not rated, -1: unsure."""
    made = [
        {"item_id": IDS[k], "attribute": name, "rater": rater, "value": None if v < 0 else float(v), "label": "x"}
        for (name, rater), values in table.items()
        for k, v in enumerate(values)
        if not np.isnan(v)
    ]
    return pl.DataFrame(made, schema=SCHEMA)


def golden_of(table, random_items=None):
    """Even items are dev."""
    whole = rows(table)
    dev = pl.col("item_id").cast(pl.Int64) % 2 == 0
    return Golden(whole.filter(dev), whole.filter(~dev), random_items)


def noisy(truth, right, rng):
    return np.where(rng.random(len(truth)) < right, truth, 1 - truth).astype(float)


@pytest.fixture(scope="module")
def funny():
    """Three people right in 85%; a source as good as they are, one far worse, a coin, and one that said little."""
    rng = np.random.default_rng(0)
    truth = (rng.random(N) < 0.4).astype(float)
    people = {("funny", name): noisy(truth, 0.85, rng) for name in ("anna", "ben", "cleo")}
    people["funny", "dora"] = np.where(np.arange(N) < 40, noisy(truth, 0.85, rng), np.nan)
    scores = {
        "good": noisy(truth, 0.9, rng) * 0.8 + 0.1,
        "poor": noisy(truth, 0.62, rng) * 0.8 + 0.1,
        "coin": rng.random(N),
    }
    scores = {name: values[:, None].astype(np.float32) for name, values in scores.items()}
    scores["rest"] = np.where(np.arange(N)[:, None] % 2 == 0, scores["good"], np.nan)
    return truth, agreement_report(golden_of(people), scores, [FUNNY], IDS)


def test_who_is_as_good_as_a_person_is_found(funny):
    _, report = funny
    sources = report["attributes"][0]["sources"]
    assert sources["good"]["test"]["passed"]
    assert sources["good"]["test"]["winning_rate"] == 1
    assert set(sources["good"]["test"]["p_values"]) == {"anna", "ben", "cleo"}
    assert not sources["poor"]["test"]["passed"]
    assert sources["good"]["test"]["advantage_probability"] > sources["poor"]["test"]["advantage_probability"]
    assert sources["poor"]["ceiling"]["f1_lead"]["high"] < 0 < sources["good"]["ceiling"]["f1_lead"]["high"]
    assert sources["good"]["alpha_with"]["mean"] > sources["poor"]["alpha_with"]["mean"]


def test_the_first_line_says_who_is_no_better_than_chance(funny):
    _, report = funny
    assert report["verdict"].startswith("coin is no better than chance (one by one, no better on 1 of 1 attributes).")
    assert "rest cannot be measured: at most 0 yes of the 0 held-out items it spoke of." in report["verdict"]
    assert "good is as good as a person on 1 of 1 attributes (funny; stands in for 3 of 3" in report["verdict"]
    assert "poor is not shown to be as good as a person" in report["verdict"]
    line = report["attributes"][0]["verdict"]
    assert line.startswith("funny: as good as a person: good (")
    assert "no better than chance: coin (AUC 0." in line
    assert "cannot be said: rest" in line


def test_raters_and_sources_with_too_little_are_named_with_their_counts(funny):
    _, report = funny
    sources = report["attributes"][0]["sources"]
    assert sources["good"]["skipped"] == ["rater dora: 20 items rated by others too, 30 are needed"]
    assert sources["rest"]["skipped"] == ["spoke of 0 of 200 held-out items"]
    assert report["attributes"][0]["raters"]["dora"] == 20


def test_prevalence_is_corrected_by_people(funny):
    truth, report = funny
    found = report["attributes"][0]["prevalence"]
    assert not found["drawn_at_random"]
    assert found["skipped"] == ["rest: spoke of 200 of 400 items, not drawn at random"]
    corrected = found["sources"]["poor"]["corrected"]
    assert corrected["low"] < truth.mean() < corrected["high"]


def test_prevalence_of_few_labels_gains_by_a_good_source_and_holds_with_a_bad_one():
    rng = np.random.default_rng(3)
    truth = (rng.random(N) < 0.3).astype(float)
    drawn = frozenset(map(str, rng.choice(N, 80, replace=False)))
    said = np.array([value if IDS[k] in drawn else np.nan for k, value in enumerate(truth)])
    said[:60] = truth[:60]  # chosen, not drawn: must not count
    good = np.where(rng.random(N) < 0.95, truth, 1 - truth)
    scores = {"good": good, "says yes": np.where(rng.random(N) < 0.9, 0.9, 0.6)}
    scores = {name: values[:, None].astype(np.float32) for name, values in scores.items()}
    report = agreement_report(golden_of({("funny", "anna"): said}, drawn), scores, [FUNNY], IDS)
    found = report["attributes"][0]["prevalence"]
    assert (found["n"], found["drawn_at_random"]) == (80, True)

    def width(interval):
        return interval["high"] - interval["low"]

    assert width(found["sources"]["good"]["corrected"]) < 0.7 * width(found["people"])
    assert found["sources"]["says yes"]["naive"] == 1
    for source in found["sources"].values():
        assert source["corrected"]["low"] < truth.mean() < source["corrected"]["high"]


def test_an_ordinal_attribute_is_measured_on_its_scale():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, N)

    def person(spread):
        return np.clip(truth + rng.choice([-1, 0, 1], N, p=[spread, 1 - 2 * spread, spread]), 0, 3) / 3

    people = {("dark", name): person(0.15) for name in ("anna", "ben", "cleo")}
    people["dark", "ben"][:30] = -1
    near, wild = person(0.1) + rng.uniform(-0.1, 0.1, N), rng.random(N)
    scores = {"near": np.clip(near, 0, 1)[:, None], "wild": wild[:, None], "odd": (near * 9 - 3)[:, None]}
    scores["alike"] = scores["near"] * 0.5
    report = agreement_report(golden_of(people), scores, [DARK], IDS, similarities=["alike"])
    part = report["attributes"][0]
    assert (part["level"], part["alpha"]["mean"] > 0.8) == ("ordinal", True)
    assert "15 rating(s) unsure" in part["skipped"]
    assert part["sources"]["near"]["test"]["passed"]
    assert not part["sources"]["wild"]["test"]["passed"]
    for name in ("odd", "alike"):  # only rank
        assert part["sources"][name]["skipped"] == ["gives no step of the scale to compare with people's"]
    assert part["prevalence"]["skipped"] == ["odd: gives no probabilities", "alike: gives no probabilities"]


def test_one_rater_is_said_and_what_can_be_measured_is():
    rng = np.random.default_rng(2)
    truth = (rng.random(N) < 0.5).astype(float)
    scores = {"good": noisy(truth, 0.8, rng)[:, None].astype(np.float32)}
    report = agreement_report(golden_of({("funny", "anna"): truth}), scores, [FUNNY], IDS)
    assert report["verdict"] == (
        "Whether any source is as good as a person cannot be said: the held-out labels are of 1 rater(s)."
    )
    part = report["attributes"][0]
    assert part["alpha"] is None
    assert any("1 rater(s), no held-out item rated twice" in words for words in part["skipped"])
    assert part["sources"]["good"]["measured"]["auc_low"] > 0.5
    assert "better than chance, people cannot be compared: good" in part["verdict"]


def test_an_empty_dev_side_and_no_positives_are_said():
    rng = np.random.default_rng(2)
    truth = (rng.random(N) < 0.5).astype(float)
    odd = np.where(np.arange(N) % 2 == 1, truth, np.nan)
    people = {("funny", name): odd for name in ("anna", "ben")} | {("dark", "anna"): np.zeros(N)}
    scores = {"good": np.column_stack([noisy(truth, 0.8, rng), noisy(truth, 0.8, rng)]).astype(np.float32)}
    report = agreement_report(golden_of(people), scores, [FUNNY, DARK], IDS, Terms(min_items=10))
    funny, dark = report["attributes"]
    assert "no threshold: 0 dev items, 0 of them yes" in funny["skipped"]
    assert np.isnan(funny["sources"]["good"]["measured"]["f1"])
    assert funny["sources"]["good"]["skipped"] == ["no threshold, so no yes or no to compare with people's"]
    assert "0 yes and 200 no held out, 5 of each are needed" in dark["skipped"]
    assert dark["verdict"] == "dark: cannot be said: good (0 yes of the 200 held-out items it spoke of)."


def test_nothing_at_all_is_a_report_too():
    report = agreement_report(golden_of({}), {}, [FUNNY], IDS)
    assert report["verdict"] == "There is no source of labels to measure."
    assert report["rows"] == []
    assert json.loads(json.dumps(report))["attributes"][0]["prevalence"]["n"] == 0
