import polars as pl
import pytest

from palate.errors import InputError
from palate.knowledge.golden_set import worth_asking
from palate.knowledge.people_words import attributes_from_labels, golden_from_labels


def labels(**words):
    rows = [(item_id, word) for word, items in words.items() for item_id in items]
    return pl.DataFrame(rows, schema=["item_id", "label"], orient="row")


def test_common_words_become_questions_but_for_categories(films):
    given = labels(funny="012", drama="0123", rare="0", sea_story="1357", all="01234567")
    made = attributes_from_labels(given, films, 5, fewest=2)
    assert [attribute.name for attribute in made] == ["sea_story", "funny"]
    assert "funny" in made[1].question and made[1].human_labels == ("funny",)
    with pytest.raises(InputError, match="common enough"):
        attributes_from_labels(labels(rare="0"), films, 5)


def test_half_of_the_items_worth_asking_have_a_yes_and_more_items_keep_the_first(films):
    given = labels(funny="012", sad="2345", other="01234567")
    made = attributes_from_labels(given.filter(pl.col("label") != "other"), films, 5, fewest=1)
    gold = golden_from_labels(given, made)
    assert gold.filter(pl.col("item_id") == "7")["value"].to_list() == [0.0] * len(made)
    six, four = worth_asking(gold, films.item_ids, 6), worth_asking(gold, films.item_ids, 4)
    assert len({*six}) == 6 and {*four[:2]} <= {*six[:3]}
    assert {*worth_asking(gold, ["6", "7"], 4)} == {"6", "7"}
    yes = set(gold.filter(pl.col("value") == 1)["item_id"])
    assert {*six[:3]} <= yes
