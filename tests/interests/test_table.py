"""The exploration table: what goes in comes out, fast, small, and never from a damaged file."""

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.interests.explore import TransitionTable
from palate.interests.table import make_table, open_table, save_table


def random_rows(n_interests, k, n_rows, ordered, seed, n=5):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, n_interests, (4 * n_rows + 8, k))
    same = drawn if ordered else np.sort(drawn, axis=1)
    first = np.sort(np.unique(same, axis=0, return_index=True)[1])[:n_rows]
    rows = drawn[first]
    candidates = rng.integers(0, n_interests, (len(rows), n))
    candidates[:, 1:][rng.random((len(rows), n - 1)) < 0.2] = -1
    likely = rng.random((len(rows), n)).astype(np.float32)
    likely[rng.random(len(rows)) < 0.2] = np.nan
    hashes = [rng.bytes(16).hex() for _ in rows]
    return rows, candidates, likely, [f"model {number % 3}" for number in range(len(rows))], hashes


@settings(max_examples=60, deadline=None)
@given(
    n_interests=st.integers(1, 40),
    k=st.integers(1, 4),
    n_rows=st.integers(0, 60),
    ordered=st.booleans(),
    seed=st.integers(0, 9999),
)
def test_what_goes_in_comes_out(tmp_path_factory, n_interests, k, n_rows, ordered, seed):
    rows, candidates, likely, models, hashes = random_rows(n_interests, k, n_rows, ordered, seed)
    path = tmp_path_factory.mktemp("table") / "t.table"
    save_table(make_table(n_interests, rows, candidates, likely, models, hashes, ordered=ordered), path)
    table = open_table(path)
    if len(rows):
        asked = rows if ordered else rows[:, ::-1]  # unordered: any order finds the row
        found, shares = table.look_up(asked)
        np.testing.assert_array_equal(found, candidates)
        np.testing.assert_allclose(shares, likely, atol=1e-5)
        assert [table.source(row) for row in table.rows_of(rows)] == list(zip(models, hashes, strict=True))
    known = {tuple(row) if ordered else tuple(sorted(row)) for row in rows.tolist()}
    others = np.random.default_rng(seed + 1).integers(0, n_interests, (50, k))
    there = [(tuple(row) if ordered else tuple(sorted(row))) in known for row in others.tolist()]
    assert (table.rows_of(others) >= 0).tolist() == there
    assert (table.look_up(others)[0][:, 0] == -1).tolist() == [not one for one in there]


def test_nearly_all_pairs_and_a_few_take_different_roads_and_agree():
    pairs = np.array(list(combinations(range(20), 2)))
    rng = np.random.default_rng(0)
    candidates, likely = rng.integers(0, 20, (len(pairs), 2)), rng.random((len(pairs), 2)).astype(np.float32)
    facts = [["m"] * len(pairs), [""] * len(pairs)]
    whole = make_table(20, pairs, candidates, likely, *facts)
    few = make_table(20, pairs[:30], candidates[:30], likely[:30], ["m"] * 30, [""] * 30)
    assert (whole.dense, few.dense) == (True, False)
    for got, wanted in zip(few.look_up(pairs[:30]), whole.look_up(pairs[:30]), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_all_ordered_pairs_of_761_interests_stay_under_30_mb_and_a_microsecond(tmp_path):
    n = 761
    pairs = np.stack(np.divmod(np.arange(n * n), n), axis=1)
    candidates = np.random.default_rng(0).integers(0, n, (n * n, 5))
    hashes = ["ab" * 16] * (n * n)
    table = make_table(
        n, pairs, candidates, np.full((n * n, 5), 0.2, np.float32), ["m"] * (n * n), hashes, ordered=True
    )
    assert save_table(table, tmp_path / "t") < 30e6
    opened = open_table(tmp_path / "t")
    asked = np.random.default_rng(1).integers(0, n, (200_000, 2))
    took = []
    for _ in range(5):
        begun = time.process_time()
        found, _ = opened.look_up(asked)
        took.append(time.process_time() - begun)
    np.testing.assert_array_equal(found, candidates[asked[:, 0] * n + asked[:, 1]])
    assert min(took) / len(asked) < 1e-6


def small():
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    likely = np.array([[0.7, 0.2], [np.nan, np.nan], [0.6, 0.0]], dtype=np.float32)
    return make_table(4, pairs, [[2, 3], [3, -1], [1, -1]], likely, ["a", "b", "a"], ["01" * 16, "02" * 16, ""])


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "newer", "missing", "header"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "x.table"
    save_table(small(), path)
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[-1] ^= 1
    changed = {
        "cut": raw[:-3],
        "flipped": raw,
        "other": b"PK" + raw,
        "newer": raw.replace(b'"format": 1', b'"format": 9'),
        "header": raw.replace(b'"shapes"', b'"shapez"'),
    }
    path.unlink() if damage == "missing" else path.write_bytes(bytes(changed[damage]))
    with pytest.raises(StorageError, match="exploration table cannot be read") as caught:
        open_table(path)
    assert "x.table" in str(caught.value)
    assert "Make the exploration table again" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_write_that_fails_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "x.table"
    save_table(small(), path)
    before = path.read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save_table(small(), tmp_path / "file" / "x.table")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="could not be written"):
        save_table(make_table(4, [[0, 1]], [[2]], np.ones((1, 1), np.float32), ["a"], [""]), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tuples": [[0, 1], [1, 0]]}, "two rows"),
        ({"tuples": [[0, 1], [1, 9]]}, "no such interest"),
        ({"candidates": [[2], [7]]}, "candidate is no interest"),
        ({"probabilities": np.array([[0.5], [1.5]])}, "between 0 and 1"),
        ({"models": ["a"]}, "do not fit"),
        ({"n_interests": 70_000}, "too large"),
    ],
)
def test_what_is_no_table_is_refused(change, said):
    rows = {"n_interests": 4, "tuples": [[0, 1], [1, 2]], "candidates": [[2], [3]], "probabilities": np.ones((2, 1))}
    given = rows | {"models": ["a", "a"], "hashes": ["", ""]} | change
    with pytest.raises(InputError, match=said):
        make_table(**given)


def test_a_look_up_of_something_else_is_refused():
    with pytest.raises(InputError, match="so many interests"):
        small().look_up(np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match="no such interest"):
        small().look_up(np.array([[0, -1]]))


def test_as_transitions_for_serving():
    rows = small().as_rows([10, 11, 12, 13])
    table = TransitionTable(rows)
    assert rows.height == 4
    assert [(t.next_node, t.model, t.prompt_hash) for t in table.of(11, 10)] == [
        (12, "a", "01" * 16),
        (13, "a", "01" * 16),
    ]
    (unknown,) = table.of(11, 12)
    assert (unknown.next_node, unknown.probability, unknown.model) == (13, None, "b")
    assert table.of(12, 13) == []
    with pytest.raises(InputError, match="pairs"):
        make_table(4, [[0, 1, 2]], [[3]], np.ones((1, 1)), ["a"], [""]).as_rows([0, 1, 2, 3])
