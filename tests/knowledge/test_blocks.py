from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.blocks import item_blocks, side_by_side


def two_tastes(values=None):
    """40 people: even ones meet even items, odd ones odd items; the first half of the items pleases."""
    rng = np.random.default_rng(0)
    pairs = [(u, int(rng.integers(10)) * 2 + u % 2) for u in range(40) for _ in range(8)]
    events = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u, _ in pairs],
            "item_id": [f"i{i}" for _, i in pairs],
            "timestamp": pl.Series([datetime(2020, 1, 1, tzinfo=UTC)] * len(pairs)).cast(pl.Datetime("us", "UTC")),
            "event_type": ["rating"] * len(pairs),
            "value": pl.Series([None if values is None else values(i) for _, i in pairs], dtype=pl.Float32),
        }
    )
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(21)],  # the last is met by nobody
            "title": [f"t{n}" for n in range(21)],
            "text": [None] * 21,
            "categories": [["a"], ["a", "b"], []] * 7,
        },
        schema_overrides={"text": pl.String},
    )
    return Dataset.from_tables(items, events)


def test_items_of_one_company_lie_together():
    data = two_tastes()
    (company,) = item_blocks(data, ("company",))
    unit = side_by_side([company])
    near = unit @ unit.T
    assert near[0:20:2, 0:20:2].mean() > near[0:20:2, 1:20:2].mean() + 0.2
    assert not unit[20].any()
    assert np.array_equal(company, item_blocks(data, ("company",))[0])  # the same every time


def test_taste_tells_what_pleased_from_what_did_not():
    (taste,) = item_blocks(two_tastes(lambda i: 5.0 if i < 10 else 1.0), ("taste",))
    unit = side_by_side([taste[:20, :2]])  # one direction for each of the two companies
    for company in (slice(0, 20, 2), slice(1, 20, 2)):
        near = unit[company] @ unit[company].T
        assert near[:5, :5].min() > 0.5
        assert near[:5, 5:].max() < -0.5


def test_a_block_that_the_data_cannot_fill_is_left_out():
    blocks = item_blocks(two_tastes(), ("categories", "company", "taste"))
    assert [block.shape[1] for block in blocks] == [2, 20]  # no values: no taste
    assert blocks[0][1].tolist() == [1.0, 1.0]


@given(arrays.arrays(np.float32, (5, 3), elements=st.floats(-1e3, 1e3, width=32)), st.floats(0.25, 100))
def test_every_block_weighs_the_same_whatever_its_units(block, scale):
    joined = side_by_side([block, block * np.float32(scale)])
    norms = np.linalg.norm(joined, axis=1)
    seen = np.linalg.norm(block, axis=1) > 1e-3
    assert np.allclose(norms[seen], np.sqrt(2), atol=1e-3)
    assert np.allclose(joined[seen, :3], joined[seen, 3:], atol=1e-3)


def test_what_is_not_known_is_zero_and_lengths_must_fit():
    block = np.array([[np.nan, 1.0], [3.0, 4.0]], dtype=np.float32)
    assert side_by_side([block]).tolist() == [[0.0, 0.0], [pytest.approx(0.6), pytest.approx(0.8)]]
    with pytest.raises(InputError, match="one row an item"):
        side_by_side([block, block[:1]])
