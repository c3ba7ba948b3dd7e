from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.annotate import annotate
from palate.knowledge.attributes import Attribute
from palate.knowledge.fresh import (
    TRICKLE,
    ask_due,
    compared,
    creator_jumps,
    disagreed,
    drift,
    due,
    sample_trickle,
    visit,
)

FUNNY = Attribute(name="funny", question="Is this funny?")
CALM = Attribute(name="calm", question="Is this calm?")
DAY = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]


class Counting:
    """Says yes at 0.8, nothing at all about items that `fails` names, and counts."""

    model = "counting"

    def __init__(self, fails=()):
        self.asked, self.fails = [], fails

    def choose(self, requests, options, **more):
        self.asked += [request.entity for request in requests]
        return np.stack([np.array([0.8, 0.2]) * (np.nan if r.entity in self.fails else 1) for r in requests])


def changed(films, **texts):
    """`films` with other texts, and new items where the id is unknown."""
    rows = {row["item_id"]: row for row in films.items.to_dicts()}
    for item_id, text in texts.items():
        rows[item_id] = {"item_id": item_id, "title": f"Film {item_id}", "text": text, "categories": []}
    items = pl.DataFrame(list(rows.values()), schema=films.items.schema)
    return Dataset.from_tables(items, films.events.drop("item_num", "user_num"))


def reasons(what):
    return {(item_id, name): why for item_id, name, why in what.iter_rows()}


def test_one_new_item_costs_its_questions_and_no_more(films):
    asked = annotate(films, np.arange(3, dtype=np.int32), [FUNNY, CALM], Counting())
    stock = visit(films, None, DAY[0])
    assert due(films, [FUNNY, CALM], asked, stock).is_empty()
    now = changed(films, new="just out")
    what = due(now, [FUNNY, CALM], asked, stock)
    assert reasons(what) == {("new", "funny"): "new", ("new", "calm"): "new"}
    llm = Counting()
    rows = ask_due(what, now, [FUNNY, CALM], llm)
    assert llm.asked == ["new", "new"]
    assert due(now, [FUNNY, CALM], pl.concat([asked, rows]), visit(now, stock, DAY[1])).is_empty()


def test_changed_texts_rewordings_and_further_attributes_are_due(films):
    asked = annotate(films, np.arange(3, dtype=np.int32), [FUNNY], Counting())
    stock = visit(films, None, DAY[0])
    now = changed(films, **{"1": "another text", "6": "nobody asked about this one"})
    assert reasons(due(now, [FUNNY], asked, stock)) == {("1", "funny"): "changed"}
    reworded = FUNNY.model_copy(update={"question": "Does it make people laugh?"})
    assert set(reasons(due(films, [reworded], asked, stock)).values()) == {"reworded"}
    assert reasons(due(films, [FUNNY, CALM], asked, stock)) == {(i, "calm"): "new attribute" for i in "012"}


def test_the_newest_label_counts(films):
    old = annotate(films, np.array([0], dtype=np.int32), [FUNNY], Counting())
    now = changed(films, **{"0": "another text"})
    new = annotate(now, np.array([0], dtype=np.int32), [FUNNY], Counting())
    assert due(now, [FUNNY], pl.concat([old, new]), visit(now, None, DAY[0])).is_empty()
    assert due(films, [FUNNY], pl.concat([old, new]), visit(films, None, DAY[0])).height == 1


def test_the_first_visit_finds_nothing_new(films):
    labels = annotate(films, np.array([0], dtype=np.int32), [FUNNY], Counting())
    assert due(films, [FUNNY], labels, None).is_empty()


def test_items_are_asked_about_what_is_due_of_them_alone(films):
    what = pl.DataFrame({"item_id": ["1", "2", "2"], "name": ["calm", "calm", "funny"], "why": ["changed"] * 3})
    rows = ask_due(what, films, [FUNNY, CALM], Counting())
    assert sorted(rows.select("entity", "name").rows()) == [("1", "calm"), ("2", "calm"), ("2", "funny")]
    assert ask_due(what, films, [FUNNY, CALM], Counting(fails=("1", "2"))).is_empty()
    assert ask_due(what.clear(), films, [FUNNY, CALM], Counting()).is_empty()


def test_an_items_first_day_is_that_of_its_content(films):
    stock = visit(films, None, DAY[0])
    later = visit(changed(films, **{"1": "another text", "new": "just out"}), stock, DAY[1])
    days = dict(later.select("item_id", "since").iter_rows())
    assert (days["0"], days["1"], days["new"]) == (DAY[0], DAY[1], DAY[1])


def answers(rng, n, apart, name="funny"):
    """LLM and student, both yes for half of the items, apart in a share of them."""
    llm = np.arange(n) % 2
    student = np.where(rng.random(n) < apart, 1 - llm, llm)
    rows = {"item_id": [f"i{k}" for k in range(n)], "name": name, "llm": llm, "student": student}
    return pl.DataFrame(rows).cast(TRICKLE)


def test_steady_disagreement_alarms_no_more_than_promised():
    """Within 200 items at a chance of 200 / 2,000; the bound on the usual rate makes it rarer still."""
    alarms = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        (found,) = drift(answers(rng, 300, 0.2), answers(rng, 200, 0.2), run_length=2000)
        alarms += bool(found.chart.alarms)
    assert alarms / 150 <= 0.1


def test_drift_is_found_and_told_by_attribute():
    rng = np.random.default_rng(0)
    history = pl.concat([answers(rng, 300, 0.1), answers(rng, 300, 0.1, "calm")])
    trickle = pl.concat([answers(rng, 60, 0.5), answers(rng, 60, 0.1, "calm")])
    funny, calm = drift(history, trickle)
    assert (funny.name, bool(funny.chart.alarms)) == ("funny", True)
    assert funny.before[0] / funny.before[1] < funny.usual < 0.2
    assert (calm.name, calm.chart.alarms, calm.trickled[1]) == ("calm", (), 60)
    assert disagreed(history, trickle)["hit"].sum() == funny.trickled[0] + calm.trickled[0]
    with pytest.raises(InputError, match="how student and LLM agreed"):
        drift(history.filter(pl.col("name") == "calm"), trickle)
    assert drift(history, trickle.clear()) == []


def test_the_trickle_compares_what_both_said(films):
    said = annotate(films, np.array([0, 1], dtype=np.int32), [FUNNY], Counting())
    student = pl.DataFrame({"entity": ["1", "5", "6"], "name": ["funny"] * 3, "value": [0.3, 0.2, 0.1]})
    pairs = compared(said, student)
    assert pairs.select("item_id", "student").rows() == [("1", 0.3)]
    assert pairs["llm"][0] == pytest.approx(0.8)
    assert compared(pl.DataFrame(), student).is_empty()
    drawn = sample_trickle(films, student, 2, seed=1)
    assert set(drawn.tolist()) <= {1, 5, 6}
    assert len(set(drawn.tolist())) == 2


def creators(rng, rates_now, n_before=40, n_now=12, before=0.1):
    parts = []
    for k, rate in enumerate(rates_now):
        hits = np.concatenate([rng.random(n_before) < before, rng.random(n_now) < rate])
        recent = np.arange(n_before + n_now) >= n_before
        parts.append(pl.DataFrame({"group": f"creator {k}", "name": "funny", "hit": hits, "recent": recent}))
    return pl.concat(parts)


@pytest.mark.slow
def test_where_no_creator_changed_alarms_come_no_more_often_than_promised():
    false = sum(bool(creator_jumps(creators(np.random.default_rng(s), [0.1] * 30), q=0.1)[0]) for s in range(150))
    assert false / 150 <= 0.1


def test_the_creators_that_changed_are_named():
    found, counts = creator_jumps(creators(np.random.default_rng(0), [0.1] * 25 + [0.9] * 5), q=0.1)
    assert {jump.group for jump in found} >= {f"creator {k}" for k in range(25, 30)}
    assert len(found) <= 6
    assert counts == {"tested": 30, "quiet": 0, "without history": 0}
    assert [jump.p_value for jump in found] == sorted(jump.p_value for jump in found)


def test_creators_that_cannot_be_compared_are_counted():
    rows = pl.DataFrame(
        {
            "group": ["old", "newcomer", "both", "both", None],
            "name": ["funny"] * 5,
            "hit": [True] * 5,
            "recent": [False, True, False, True, True],
        }
    )
    assert creator_jumps(rows) == ([], {"tested": 1, "quiet": 1, "without history": 1})
    assert creator_jumps(rows.clear())[0] == []
