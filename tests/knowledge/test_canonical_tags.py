"""Canonical tags: the result depends on the tags and their counts, on nothing else."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import WordEncoder

from palate.knowledge.canonical import canonical_rows, canonical_tags

ENCODER = WordEncoder()
words = st.sampled_from(
    ["war", "wars", "War", "the", "space", "hero", "1980s", "1970s", "not", "cold-war", "ß", "#cosy"]
)
tags = st.lists(words, min_size=1, max_size=3).map(" ".join) | st.text(max_size=12)
counts = st.dictionaries(tags, st.integers(1, 9), max_size=12)


@given(counts, st.randoms(use_true_random=False), st.sampled_from([0.6, 0.9]))
@settings(max_examples=80, deadline=None)
def test_the_order_of_tags_changes_nothing(found, random, near):
    shuffled = list(found.items())
    random.shuffle(shuffled)
    assert canonical_tags(dict(shuffled), ENCODER, near) == canonical_tags(found, ENCODER, near)


@given(counts, st.sampled_from([0.6, 0.9]))
@settings(max_examples=80, deadline=None)
def test_canonical_tags_are_their_own(found, near):
    mapping = canonical_tags(found, ENCODER, near)
    used = {name: sum(found[tag] for tag, to in mapping.items() if to == name) for name in mapping.values()}
    assert canonical_tags(used, ENCODER, near) == {name: name for name in used}


def test_spellings_join_under_the_most_used():
    mapping = canonical_tags({"Cold War": 1, "cold-wars": 2, "the war of cold": 1, "love story": 1}, ENCODER)
    assert mapping == {
        "Cold War": "cold-wars",
        "cold-wars": "cold-wars",
        "the war of cold": "cold-wars",
        "love story": "love story",
    }


def test_near_vectors_join_but_numbers_and_nots_keep_apart():
    long = "a very old and quite long tale about the deep blue sea"
    mapping = canonical_tags({long: 2, f"{long} voyage": 1, f"{long} 2": 1, f"not {long}": 1}, ENCODER, near=0.8)
    assert mapping[f"{long} voyage"] == long
    assert mapping[f"{long} 2"] == f"{long} 2"
    assert mapping[f"not {long}"] == f"not {long}"


def test_tags_of_marks_alone_are_left_out():
    assert canonical_tags({"...": 3, "": 1, "sea": 1}, ENCODER) == {"sea": "sea"}


def test_rows_keep_one_of_two_that_became_the_same():
    rows = pl.DataFrame({"entity": ["1", "1", "2"], "text": ["war", "wars", "..."], "model": "m", "source": "llm"})
    joined = canonical_rows(rows, canonical_tags({"war": 2, "wars": 1}, ENCODER))
    assert joined.select("entity", "text").rows() == [("1", "war")]
