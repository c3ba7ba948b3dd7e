"""The pool of drafts against a plain search of the same answers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.llm.decoding.store import DraftStore

ANSWERS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), max_size=12)


def plain(answers: list[list[int]], context: list[int], order: int, length: int) -> set[tuple[int, ...]]:
    """What followed the last `order` tokens; before an answer there are breaks (-1)."""
    want = tuple(([-1] * order + context)[-order:])
    found = set()
    for answer in answers:
        padded = [-1] * order + answer
        for place in range(order, len(padded)):
            if tuple(padded[place - order : place]) == want:
                found.add(tuple(padded[place : place + length]))
    return found


@settings(deadline=None, max_examples=150)
@given(ANSWERS, st.lists(st.integers(0, 4), max_size=6), st.integers(1, 5), st.booleans())
def test_what_followed_is_found_whole_and_nothing_else(answers, context, length, at_once):
    store = DraftStore()
    for part in [answers] if at_once else [[answer] for answer in answers]:
        store.add(part)
    got = store.after(context, length, samples=10_000)
    rows = {tuple(t for t in row if t >= 0) for row in got.following.tolist()}
    orders = (plain(answers, context, order, length) for order in (8, 4, 2, 1))
    assert rows == next(filter(None, orders), set())


def test_segments_and_fresh_answers_answer_alike():
    rng = np.random.default_rng(0)
    answers = [rng.integers(0, 50, 60).tolist() for _ in range(3000)]  # 183,000 tokens: several segments
    store = DraftStore()
    for start in range(0, len(answers), 70):
        store.add(answers[start : start + 70])
    assert len(store) == sum(len(answer) + 1 for answer in answers)
    for number in (0, 1500, 2999):
        context = answers[number][:20]
        got = store.after(context, 5)
        best = got.following[got.matched.argmax()]
        assert got.matched.max() == 8
        assert best.tolist() == answers[number][20:25]


def test_the_bound_holds_and_the_newest_stay():
    rng = np.random.default_rng(1)
    store = DraftStore(most_tokens=5000)
    answers = [rng.integers(0, 1000, 40).tolist() for _ in range(1000)]
    store.add(answers)
    assert len(store) <= 5000
    assert store.nbytes < 5000 * 64 + 300_000
    assert len(store.after(answers[-1][:10])) > 0
    assert store.after(answers[0][:10]).matched.max(initial=0) < 4


def test_a_token_takes_some_twenty_bytes():
    rng = np.random.default_rng(2)
    store = DraftStore()
    store.add([rng.integers(0, 1000, 99).tolist() for _ in range(20_000)])
    assert store.nbytes / len(store) < 25


def test_kept_and_read_again(tmp_path: Path):
    store = DraftStore("words")
    store.add([[1, 2, 3, 4, 5], [1, 2, 9]])
    store.save(tmp_path / "pool")
    again = DraftStore.load(tmp_path / "pool", "words")
    assert sorted(again.after([1, 2], 2).following.tolist()) == [[3, 4], [9, -1]]
    again.add([[1, 2, 7]])
    assert len(again.after([1, 2], 1)) == 3


def test_foreign_and_damaged_pools_are_refused(tmp_path: Path):
    store = DraftStore("words")
    store.add([[1, 2, 3]])
    path = tmp_path / "pool"
    store.save(path)
    with pytest.raises(InputError, match="another tokenizer"):
        DraftStore.load(path, "letters")
    whole = path.read_bytes()
    for wrong in (b"", whole[:-1], whole[:-1] + b"\x07", b"palate drafts 9\n" + whole.split(b"\n", 1)[1], b"\0" * 50):
        path.write_bytes(wrong)
        with pytest.raises(StorageError, match="cannot be read"):
            DraftStore.load(path, "words")
    with pytest.raises(StorageError, match="cannot be read"):
        DraftStore.load(tmp_path / "nowhere", "words")


def test_an_empty_pool_and_empty_answers():
    store = DraftStore()
    assert not len(store.after([1, 2]))
    store.add([[], []])
    assert not len(store.after([1, 2]))
    assert not len(store.after([]))
