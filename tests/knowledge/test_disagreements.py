import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.disagreements import disagreements
from palate.knowledge.golden_set import SCHEMA


def catalogue(n=48):
    """Odd items are about war, even ones about the sea."""
    topic = ["war soldiers", "sea ships"]
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "title": [f"Film {k}" for k in range(n)],
            "text": [f"of {topic[k % 2 == 0]}" for k in range(n)],
            "categories": [["Sea"] if k % 2 == 0 else ["War", "Drama"] for k in range(n)],
        }
    )
    events = pl.DataFrame(
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    )
    return Dataset.from_tables(items, events)


def golden(values, **more):
    rows = [{"item_id": i, "attribute": "calm", "rater": "a", "value": v, "label": "x"} | more for i, v in values]
    return pl.DataFrame(rows, schema=SCHEMA)


def labels(values, **more):
    rows = [
        {"entity": i, "name": "calm", "value": v, "confidence": 0.9, "evidence": f"words of {i}"} for i, v in values
    ]
    return pl.DataFrame([row | more for row in rows])


def test_errors_come_with_evidence_the_most_confident_first():
    people = golden([("i0", 1.0), ("i1", 0.0), ("i2", 0.0), ("i3", 1.0), ("i4", 1.0), ("i9", None)], comment="slow")
    said = labels([("i0", 0.9), ("i1", 0.8), ("i2", 0.6), ("i3", 0.4), ("i5", 0.9)])
    found = disagreements(people, said, catalogue(), "calm", threshold=0.5)
    assert found.errors.select("item_id", "kind").rows() == [
        ("i1", "false yes"),
        ("i2", "false yes"),
        ("i3", "false no"),
    ]
    assert found.errors["margin"].to_list() == pytest.approx([0.6, 0.2, 0.2])
    first = found.errors.row(0, named=True)
    assert (first["evidence"], first["confidence"], first["raters"], first["comments"]) == (
        "words of i1",
        0.9,
        1,
        "slow",
    )
    assert (found.judged, found.silent) == (4, 1)


def test_groups_count_errors_by_kind_category_and_cluster():
    data = catalogue()
    people = golden([(f"i{k}", 0.0) for k in range(48)])
    said = labels([(f"i{k}", 0.9 if k % 2 else 0.1) for k in range(48)])  # wrong about war alone
    vectors = np.eye(2, dtype=np.float32)[np.arange(48) % 2] + np.arange(48)[:, None].astype(np.float32) / 1000
    found = disagreements(people, said, data, "calm", vectors, threshold=0.5)
    rows = {(by, group): (n, yes, no) for by, group, n, yes, no in found.groups.iter_rows()}
    assert rows["kind", "all"] == (48, 24, 0)
    assert rows["category", "War"] == rows["category", "Drama"] == (24, 24, 0)
    assert rows["category", "Sea"] == (24, 0, 0)
    clusters = found.groups.filter(pl.col("by") == "cluster")
    assert clusters["judged"].sum() == 48
    assert {"war", "soldiers"} & set(clusters["group"][0].replace(",", "").split())
    assert clusters.filter(pl.col("group").str.contains("ships"))["false_yes"].sum() == 0


def test_without_a_threshold_it_is_the_one_of_the_best_f1():
    people = golden([("i0", 1.0), ("i1", 1.0), ("i2", 0.0), ("i3", 0.0)])
    found = disagreements(people, labels([("i0", 0.9), ("i1", 0.8), ("i2", 0.75), ("i3", 0.7)]), catalogue(), "calm")
    assert (found.threshold, found.errors.height) == (pytest.approx(0.8), 0)
    assert found.errors.filter(pl.col("kind") == "false yes").is_empty()


def test_labels_without_evidence_will_do():
    said = labels([("i0", 0.1)]).drop("evidence", "confidence")
    found = disagreements(golden([("i0", 1.0)]), said, catalogue(), "calm", threshold=0.5)
    assert found.errors["evidence"].to_list() == [None]


def test_nothing_in_common_is_said():
    with pytest.raises(InputError) as caught:
        disagreements(golden([("i0", 1.0)]), labels([("i1", 0.5)]), catalogue(), "calm")
    assert "1 items judged by people, 1 labelled" in str(caught.value)
