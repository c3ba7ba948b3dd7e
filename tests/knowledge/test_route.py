import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.data.movielens import read_movielens
from palate.errors import InputError
from palate.knowledge.blocks import item_blocks, side_by_side
from palate.knowledge.distil import Student, StudentConfig
from palate.knowledge.promise import check_promise, cost_curve, worst_error
from palate.knowledge.route import PEOPLE, Judge, RouteConfig, calibrate, labels_needed, route, stage_rows

BOTH = pytest.mark.parametrize("error", ["class", "answer"])


def world(n=2000, share=0.3, skill=(1.0, 2.5), seed=0):
    """Labels of which `share` are yes, and judges whose scores lie `skill` deviations apart."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 1)) < share).astype(float)
    judges = [
        Judge(f"judge {k}", (truth * d + rng.standard_normal((n, 1))).astype(np.float32), float(k))
        for k, d in enumerate(skill)
    ]
    return judges, truth


@BOTH
def test_cheap_judges_answer_what_they_may_and_the_rest_goes_on(error):
    judges, truth = world()
    rules, silences = calibrate(judges, truth, ["a"], RouteConfig(error=error))
    routed = route(judges, rules)
    assert not silences
    assert set(np.unique(routed.takes)) == {PEOPLE, 0, 1}
    assert worst_error(routed.says, truth, error) <= 0.1
    assert np.isnan(routed.says[routed.takes == PEOPLE]).all()


@BOTH
def test_it_abstains_rather_than_lies_on_few_labels(error):
    judges, truth = world(n=24, skill=(9.0,))  # perfect, but on few labels
    rules, silences = calibrate(judges, truth, ["a"], RouteConfig(error=error))
    assert all(rule.silent for row in rules for rule in row)
    assert (route(judges, rules).takes == PEOPLE).all()
    assert {silence.attribute for silence in silences} == {"a"}
    assert all("labels of people" in silence.why for silence in silences)


@BOTH
def test_it_abstains_where_the_surest_are_wrong(error):
    judges, truth = world(skill=(-4.0,))
    rules, _ = calibrate(judges, truth, ["a"], RouteConfig(error=error, alpha=0.05))
    says = route(judges, rules).says
    assert worst_error(says, truth, error) <= 0.05
    assert (~np.isnan(says)).mean() < 0.1


def test_always_no_does_not_keep_the_promise_of_classes():
    """5% are yes and the judge is blind: no to all would be wrong 5% of the time, and is not allowed."""
    judges, truth = world(share=0.05, skill=(0.0,))
    rules, _ = calibrate(judges, truth, ["a"], RouteConfig(error="class", alpha=0.2))
    says = route(judges, rules).says
    assert (says == 0)[truth == 1].mean() <= 0.2
    assert np.isnan(says).mean() > 0.5
    by_answer, _ = calibrate(judges, truth, ["a"], RouteConfig(error="answer", alpha=0.2))
    assert np.nanmean(route(judges, by_answer).says) == 0  # which the other promise allows: read `missed`


@given(st.integers(0, 400), st.integers(0, 400), st.floats(0.02, 0.5), st.sampled_from(["class", "answer"]))
@settings(deadline=None, max_examples=30)
def test_whatever_the_labels_dev_errors_stay_within(yes, no, alpha, error):
    rng = np.random.default_rng(yes + no)
    truth = np.r_[np.ones(yes), np.zeros(no)][:, None]
    scores = rng.integers(0, 6, truth.shape).astype(np.float32)  # many ties
    scores[rng.random(truth.shape) < 0.2] = np.nan
    judges = [Judge("a", scores), Judge("b", (truth + scores).astype(np.float32))]
    config = RouteConfig(alpha=alpha, error=error)
    rules, _ = calibrate(judges, truth, ["x"], config)
    assert worst_error(route(judges, rules).says, truth, error) <= alpha


def test_fewest_labels_is_where_a_perfect_judge_begins_to_speak():
    config = RouteConfig(error="class", alpha=0.2)
    needed = labels_needed(config, 1)
    for n, silent in ((needed - 1, True), (needed, False)):
        truth = np.r_[np.ones(n), np.zeros(n)][:, None]
        rules, _ = calibrate([Judge("perfect", truth.astype(np.float32))], truth, ["a"], config)
        assert rules[0][0].silent is silent


def test_a_judge_that_was_not_asked_is_waited_for_unless_it_is_silent():
    judges, truth = world(skill=(1.0, 4.0))
    asked = judges[1].scores.copy()
    asked[1000:] = np.nan
    judges[1] = Judge("second", asked, 1.0)
    judges.append(Judge("mute", np.full_like(asked, np.nan), 9.0))
    rules, _ = calibrate(judges, truth, ["a"], RouteConfig())
    routed = route(judges, rules)
    assert (routed.waits[:1000] == -1).all()
    assert set(np.unique(routed.waits[1000:])) == {-1, 1}
    rows = {
        row["stage"]: row for row in stage_rows(judges, rules, routed, truth, ["a"], 5.0) if row["attribute"] == "a"
    }
    assert rows["mute"]["reached"] == 0 and rows["mute"]["money"] == 0
    assert rows["second"]["waiting"] == (routed.waits == 1).sum()
    assert sum(row["answered"] + row["waiting"] for row in rows.values()) == 2000
    assert rows["people"]["money"] == 5.0 * rows["people"]["answered"]


def test_an_attribute_without_dev_labels_is_named_and_left_to_people():
    judges, truth = world()
    two = [Judge(j.name, np.hstack([j.scores, j.scores])) for j in judges]
    truth = np.hstack([truth, np.full_like(truth, np.nan)])
    rules, silences = calibrate(two, truth, ["a", "unlabelled"], RouteConfig())
    assert [(s.attribute, s.why) for s in silences] == [("unlabelled", "people labelled none of its dev items")]
    assert (route(two, rules).takes[:, 1] == PEOPLE).all()
    with pytest.raises(InputError, match="do not fit"):
        calibrate(two, truth[:, :1], ["a", "unlabelled"], RouteConfig())


def test_more_error_buys_more_coverage_for_less_money():
    judges, truth = world()
    rows = [row for row in cost_curve(judges, truth, ["a"], RouteConfig(), 100.0) if row["series"] != "machines"]
    assert [row["coverage"] for row in rows] == sorted(row["coverage"] for row in rows)
    assert rows[-1]["money"] < rows[0]["money"]


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("drawn", [False, True])
def test_the_promise_holds_over_200_random_splits_of_real_labels(sample, error, drawn):
    """Genres of MovieLens, and two students of them: one on who met a film, one on how they liked it as well."""
    data = read_movielens(sample)
    met = np.flatnonzero(data.item_counts >= 5)
    genres = item_blocks(data, ("categories",))[0][met]
    common = np.argsort(-genres.sum(axis=0))[[0, 1, 9]]  # two common ones and a rare one
    company, taste = (block[met] for block in item_blocks(data, ("company", "taste")))
    truth = genres[:, common].astype(np.float64)
    config = StudentConfig(strengths=(3.0,), folds=3)
    features = (side_by_side([company[:, :16]]), side_by_side([company, taste]))
    judges = [Judge(str(k), Student(config).fit(x, truth).astype(np.float32)) for k, x in enumerate(features)]
    names = ["common", "second", "rare"]
    rows = check_promise(judges, truth, names, RouteConfig(error=error, alpha=0.25, delta=0.1), drawn=drawn)
    assert [row["attribute"] for row in rows] == names
    for row in rows:
        assert row["kept"], row
        assert row["answered"] > 0.1, row  # a promise that is kept by silence is worth nothing
