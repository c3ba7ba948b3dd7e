from collections import Counter
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.golden_queue import extend_queue, random_part, read_queue
from palate.knowledge.golden_sample import MIX, sample_golden, sample_table

N = 400
NAMES = ["calm", "loud"]


@pytest.fixture(scope="module")
def shop():
    """400 items in three categories; item k has about 400/(k + 1) events."""
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(N)],
            "title": [f"Thing {n}" for n in range(N)],
            "text": ["about it"] * N,
            "categories": [[("toys", "books", "tools")[n % 3]] for n in range(N)],
        }
    )
    seen = [f"i{n}" for n in range(N) for _ in range(N // (n + 1))]
    events = pl.DataFrame(
        {
            "user_id": ["u"] * len(seen),
            "item_id": seen,
            "timestamp": pl.Series([datetime(2020, 1, 1, tzinfo=UTC)] * len(seen)).cast(pl.Datetime("us", "UTC")),
            "event_type": ["view"] * len(seen),
            "value": pl.Series([None] * len(seen), dtype=pl.Float32),
        }
    )
    return Dataset.from_tables(items, events)


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    llm = rng.uniform(0.8, 1, (N, 2)).astype(np.float32)
    llm[:20] = 0.5 + rng.uniform(-0.01, 0.01, (20, 2))
    student = llm + rng.uniform(-0.05, 0, (N, 2)).astype(np.float32)
    student[100:120, 0] = 0.1
    llm[300:] = np.nan
    return {"llm": llm, "student": student}


def by_part(sampled):
    parts = {}
    for pick in sampled.picks:
        parts.setdefault(pick.why, []).append(pick)
    return parts


def test_each_part_is_what_it_says(shop, scores):
    parts = by_part(sample_golden(shop, scores, NAMES, 100))
    assert {name: len(picks) for name, picks in parts.items()} == MIX
    assert all(100 <= int(pick.item_id[1:]) < 120 for pick in parts["disagreeing"] if pick.attribute == "calm")
    assert sum(int(pick.item_id[1:]) < 20 for pick in parts["uncertain"]) >= 15
    assert all(int(pick.item_id[1:]) >= 200 for pick in parts["tail"])
    assert {pick.probability for pick in parts["random"]} == {40 / N}
    assert all(pick.probability is None and pick.attribute in NAMES for pick in parts["uncertain"])
    assert len({pick.stratum for pick in parts["stratified"]}) == 9
    assert all(0 < pick.probability < 1 for pick in parts["stratified"] + parts["tail"])


def test_the_same_seed_draws_the_same_and_another_does_not(shop, scores):
    first, again, other = (sample_golden(shop, scores, NAMES, 60, seed=seed).picks for seed in (1, 1, 2))
    assert first == again
    assert {pick.item_id for pick in first} != {pick.item_id for pick in other}
    assert len({pick.item_id for pick in first if pick.ask}) == 60


def test_what_is_done_or_queued_is_never_asked_again(shop, scores):
    first = sample_golden(shop, scores, NAMES, 100)
    done = {f"i{n}" for n in range(0, N, 2)}
    second = sample_golden(shop, scores, NAMES, 100, done=done, queued=first.picks)
    asked = [pick.item_id for pick in second.picks if pick.ask]
    assert len(asked) == len(set(asked)) == 100
    assert not set(asked) & done
    assert not set(asked) & {pick.item_id for pick in first.picks}


def test_the_random_part_of_several_rounds_is_one_random_sample(shop, scores):
    """What purposive parts took first stays in the sample: else the rest would be too easy."""
    queue = []
    for _ in range(3):
        done = {pick.item_id for pick in queue}
        queue += sample_golden(shop, scores, NAMES, 100, done=done, queued=queue).picks
    drawn = [pick.item_id for pick in queue if pick.why == "random"]
    assert len(drawn) == len(set(drawn)) >= 120
    ahead = {pick.item_id for pick in sample_golden(shop, {}, NAMES, len(drawn), {"random": 1}).picks}
    assert set(drawn) == ahead
    assert any(not pick.ask for pick in queue)


def test_what_is_missing_is_said_and_drawn_at_random(shop):
    sampled = sample_golden(shop, {}, NAMES, 50)
    assert Counter(pick.why for pick in sampled.picks if pick.ask) == {"random": 40, "tail": 5, "stratified": 5}
    assert [note for note in sampled.notes if "no source of labels" in note and "10 of 10 uncertain" in note]
    few = sample_golden(shop, {}, NAMES, 50, done={f"i{n}" for n in range(N - 7)})
    assert sum(pick.ask for pick in few.picks) == 7
    assert few.notes


def test_parts_are_mixed_in_the_order_of_asking(shop, scores):
    picks = sample_golden(shop, scores, NAMES, 100).picks
    assert len({pick.why for pick in picks[:20]}) >= 3


@pytest.mark.parametrize("mix", [{"rare": 1.0}, {"random": 0.0}, {"random": 2.0, "tail": -1.0}])
def test_a_mix_that_cannot_be_read_is_an_error(shop, mix):
    with pytest.raises(InputError, match="uncertain"):
        sample_golden(shop, {}, NAMES, 10, mix)


def test_the_table_counts_every_pick(shop, scores):
    rows = sample_table(sample_golden(shop, scores, NAMES, 100).picks)
    assert sum(row["items"] for row in rows) == 100
    assert [row["part"] for row in rows] == sorted((row["part"] for row in rows), key=list(MIX).index)


def test_the_queue_is_kept_and_grows(shop, scores, tmp_path):
    assert random_part(tmp_path) is None
    first = sample_golden(shop, scores, NAMES, 10).picks
    extend_queue(tmp_path, first)
    extend_queue(tmp_path, sample_golden(shop, scores, NAMES, 10, queued=first).picks)
    assert read_queue(tmp_path)[:10] == first
    assert len(random_part(tmp_path)) >= 8
    (tmp_path / "queue.jsonl").write_text('{"item_id": "i1", "why": "random"}\n{"item')
    with pytest.raises(InputError, match="line 2"):
        read_queue(tmp_path)
