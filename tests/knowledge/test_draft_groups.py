"""Groups of users and items for pools of drafts."""

from __future__ import annotations

import polars as pl

from palate.data.dataset import ITEM_SCHEMA, Dataset
from palate.knowledge.draft_groups import NONE, GroupsConfig, groups_of
from palate.llm.request import Message, Request


def tastes() -> Dataset:
    """Two circles of five users and six films each; `late` met three films, `nobody` is not in the log."""
    categories = [["Comedy"]] * 6 + [["Horror", "Comedy"]] * 6 + [[]]
    ids = [str(n) for n in range(13)]
    items = pl.DataFrame({"item_id": ids, "title": ids, "text": ids, "categories": categories}, schema=ITEM_SCHEMA)
    rows = [(str(user), str(item)) for user in range(5) for item in range(6)]
    rows += [(str(user), str(item)) for user in range(5, 10) for item in range(6, 12)]
    rows += [("late", "0"), ("late", "1"), ("late", "6")]
    events = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.int_range(pl.len()).cast(pl.Datetime("us", "UTC")),
        event_type=pl.lit("met"),
        value=pl.lit(1.0, pl.Float32),
    )
    return Dataset.from_tables(items, events)


def ask(entity: str, side: str) -> Request:
    return Request((Message("user", "?"),), purpose=f"kar: {side}", entity=entity)


def test_users_with_a_history_by_what_they_met_and_others_by_category():
    group_of = groups_of(tastes(), GroupsConfig(clusters=2, least_events=5))
    first, second = ({group_of(ask(str(n), "user")) for n in circle} for circle in (range(5), range(5, 10)))
    assert len(first) == len(second) == 1 and first != second
    assert group_of(ask("late", "user")) == "category Comedy"
    assert group_of(ask("nobody", "user")) == NONE


def test_items_by_their_first_category():
    group_of = groups_of(tastes())
    assert [group_of(ask(n, "item")) for n in ("0", "6", "12", "unknown")] == [
        "category Comedy",
        "category Horror",
        f"category {NONE}",
        NONE,
    ]
