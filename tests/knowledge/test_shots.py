import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.knowledge.attributes import Attribute
from palate.knowledge.shots import Shots

FUNNY = Attribute(name="funny", question="Is this funny?")
IDS = [str(n) for n in range(8)]
ANGLES = np.arange(8) * 0.1
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
VALUES = [1.0, 0.0, 1.0, 0.0, 1.0, None, 0.5, 1.0]


def shots(values=VALUES):
    dev = pl.DataFrame({"item_id": IDS, "attribute": "funny", "value": values}, schema_overrides={"value": pl.Float64})
    return Shots(dev, VECTORS, IDS, lambda num: f"film number {num} and a long text about it")


def test_nearest_of_each_option_the_likest_last():
    picked = shots().of(2, FUNNY, 4, 1000)
    assert [(example.item[12], example.answer) for example in picked] in (
        [("0", "Yes"), ("4", "Yes"), ("1", "No"), ("3", "No")],
        [("4", "Yes"), ("0", "Yes"), ("3", "No"), ("1", "No")],
        [("0", "Yes"), ("4", "Yes"), ("3", "No"), ("1", "No")],
        [("4", "Yes"), ("0", "Yes"), ("1", "No"), ("3", "No")],
    )


@given(st.integers(0, 7), st.integers(0, 6), st.integers(50, 200), st.integers(0, 2))
def test_never_itself_never_unsure_never_longer(num, n, chars, skip):
    picked = shots().of(num, FUNNY, n, chars, skip)
    assert len(picked) <= n
    assert all(f"number {num} " not in example.item for example in picked)
    assert all("number 5" not in example.item and "number 6" not in example.item for example in picked)
    assert sum(len(example.item) for example in picked) <= chars + 2 * n


def test_jurors_see_other_examples():
    first, second = (set(shots().of(7, FUNNY, 2, 1000, skip)) for skip in (0, 1))
    assert len(first) == len(second) == 2
    assert not first & second


def test_none_where_nobody_judged():
    assert shots([None] * 8).of(0, FUNNY, 4, 400) == ()
    assert shots().of(0, Attribute(name="sad", question="Is this sad?"), 4, 400) == ()


def test_graded_answers_take_the_nearest_option():
    graded = Attribute(name="funny", question="How funny?", options=("Very", "Somewhat", "No"))
    assert {example.answer for example in shots([1.0, 0.5, 0.0, *[None] * 5]).of(7, graded, 3, 900)} == set(
        graded.options
    )


@pytest.mark.parametrize("chars", [50, 60])
def test_texts_end_at_a_word(chars):
    for example in shots().of(0, FUNNY, 2, chars):
        assert example.item.endswith(" …")
        begun = example.item.removesuffix(" …")
        assert any(f"film number {num} and a long text about it".startswith(f"{begun} ") for num in range(8))
