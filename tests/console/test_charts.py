from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.console import charts, words
from palate.console.views import comparison_rows, detail_words

NAN = float("nan")


def test_numbers_in_words() -> None:
    assert [words.seconds(s) for s in (0.02, 3.25, 95, 4020)] == ["20 ms", "3.2 s", "1 min 35 s", "1 h 07 min"]
    assert [words.count(n) for n in (12345.0, None, "x", NAN)] == ["12,345", "–", "–", "–"]
    assert [words.score(s) for s in (0.12345, 0.00042, 0, True)] == ["0.123", "0.00042", "0.000", "–"]
    assert [words.money(m) for m in (0, 0.0123, 1234.5)] == ["free", "0.0123", "1,234.50"]
    assert [words.some(n, "event") for n in (1, 2)] == ["1 event", "2 events"]
    assert words.interval(0.1, 0.05, 0.15) == "0.100 [0.050, 0.150]"
    assert words.interval(0.1, None, 0.15) == "0.100"


@pytest.mark.parametrize("time", [964981179, 964981179e6, "2000-07-30T18:19:39Z", datetime(2000, 7, 30, 18, 19, 39)])
def test_a_time_is_read_from_seconds_microseconds_and_text(time: object) -> None:
    assert words.moment(time) == "2000-07-30 18:19"


def test_a_time_that_is_none_stays_as_it_was_said() -> None:
    assert [words.moment(t) for t in (None, "last week", 1e300)] == ["–", "last week", "1e+300"]


def test_json_turns_what_browsers_refuse_into_null() -> None:
    said = {"a": NAN, "b": [np.float32("inf"), np.int64(3)], "c": datetime(2024, 1, 1, tzinfo=UTC), 4: {"x"}}
    assert json.loads(words.safe_json(said)) == {
        "a": None,
        "b": [None, 3],
        "c": "2024-01-01T00:00:00+00:00",
        "4": ["x"],
    }


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.floats() | st.lists(st.text())))
def test_no_text_leaves_its_json_block(value: dict[str, object]) -> None:
    block = str(words.safe_json(value))
    assert block.isascii()
    assert not set("<>&") & set(block)
    assert json.loads(block) == words.plain(value)


def test_intervals_keep_order_and_leave_holes_where_a_source_was_not_measured() -> None:
    rows = [
        {"attribute": "funny", "source": "large", "auc": 0.9, "auc_low": 0.8, "auc_high": 0.95},
        {"attribute": "bleak", "source": "large", "auc": 0.7},
        {"attribute": "bleak", "source": "small", "auc": 0.5},
        {"attribute": "tense", "source": "small", "auc": NAN},
    ]
    made = charts.intervals(rows, "auc", "attribute", "source", reference=0.5)
    assert made["categories"] == ["funny", "bleak"]
    assert made["series"][0] == {"name": "large", "points": [[0.9, 0.8, 0.95], [0.7, None, None]]}
    assert made["series"][1]["points"] == [None, [0.5, None, None]]
    assert made["reference"] == 0.5


def test_cached_tokens_are_not_counted_twice() -> None:
    made = charts.tokens(
        [{"purpose": "annotate", "model": "m", "tokens_in": 100, "tokens_cached": 70, "tokens_out": 5}]
    )
    assert [one["values"] for one in made["series"]] == [[30.0], [70.0], [5.0]]


def test_the_tree_is_nested_and_sized_by_items_where_nobody_came() -> None:
    nodes = [
        {"node": 0, "parent": None, "title": "all", "n_items": 9, "traffic": 0},
        {"node": 1, "parent": 0, "title": "crime, noir", "keywords": ["crime", "noir", "heist"], "n_items": 4},
        {"node": 2, "parent": 0, "n_items": 5},
    ]
    made = charts.tree(nodes)
    assert made["unit"] == "items"
    assert [(cell["name"], cell["value"]) for cell in made["roots"]] == [("crime, noir", 4.0), ("Interest 2", 5.0)]
    assert made["roots"][0]["keywords"] == ["heist"]  # what the title says is not said again


def test_a_comparison_is_read_from_the_results_of_compare() -> None:
    means = {"NDCG@10": {"mean": 0.07, "low": 0.06, "high": 0.08}, "recall@10": {"mean": 0.1}}
    found = comparison_rows({"results": [{"name": "pop", "means": {}}, {"name": "sasrec", "means": means}]})
    assert [row["model"] for row in found] == ["sasrec", "pop"]
    assert found[0]["ndcg_text"] == "0.070 [0.060, 0.080]"
    assert found[1]["ndcg_text"] == "–"


def test_a_steps_detail_is_said_in_words() -> None:
    assert detail_words({"detail": {"judged_items": 1200, "nested": {"a": 1}, "of": "x"}}) == "judged items 1,200, of x"
    assert detail_words({"detail": "done"}) == "done"
