import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.knowledge.as_of import ALWAYS, Versions

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(-5, 5)), max_size=20)


@given(pairs, pairs)
def test_the_newest_that_is_older_is_joined(versions, wanted):
    found, order = Versions.of([owner for owner, _ in versions], [time for _, time in versions])
    assert sorted(order.tolist()) == list(range(len(versions)))
    rows = found.at([owner for owner, _ in wanted], [time for _, time in wanted])
    for row, (owner, time) in zip(rows.tolist(), wanted, strict=True):
        older = [since for whose, since in versions if whose == owner and since < time]
        if not older:
            assert row == -1
        else:
            assert found.owners[row] == owner
            assert found.since[row] == max(older)


def test_what_has_no_time_is_known_at_any():
    found, _ = Versions.of([0, 0], [100, ALWAYS])
    assert found.at([0, 0, 1], [np.iinfo(np.int64).min + 1, 101, 5]).tolist() == [0, 1, -1]
