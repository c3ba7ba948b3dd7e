"""The compact set says of every mark whether it was there, like Python's own."""

from hypothesis import given
from hypothesis import strategies as st

from palate.llm.seen import Seen

MARKS = st.integers(0, 2**64 - 1)


@given(st.lists(st.one_of(MARKS, st.integers(2, 40).map(lambda n: n << 40))))
def test_it_says_what_a_set_says(marks):
    seen, plain = Seen(), set()
    for mark in marks:
        assert seen.add(mark) is (mark not in plain)
        plain.add(mark)


def test_nought_is_a_mark_like_others():
    seen = Seen()
    assert [seen.add(mark) for mark in (0, 1, 0, 1)] == [True, True, False, False]


def test_it_grows():
    seen = Seen()
    assert all(seen.add(mark * 2654435761 % 2**64) for mark in range(1, 50_000))
    assert not any(seen.add(mark * 2654435761 % 2**64) for mark in range(1, 50_000))
