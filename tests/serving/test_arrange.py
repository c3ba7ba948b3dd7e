"""Places of a slate: shares, caps, and drawn places whose chances are those that are logged."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.serving.arrange import Caps, Entry, arrange
from palate.serving.candidates import Candidates
from palate.serving.opened import Snapshot
from palate.serving.pipeline_config import CapsConfig
from palate.serving.reasons import Reason


def entries(source: str, items: list[int], weights: dict[int, float] | None = None, chance: float = 1.0) -> list[Entry]:
    scores = np.linspace(1, 0, len(items), dtype=np.float32)
    by = Candidates(source, np.array(items, dtype=np.int32), scores, lambda item: Reason(""), chance, weights)
    return [Entry(item, score, None, by) for item, score in zip(items, scores.tolist(), strict=True)]


@settings(deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 15), unique=True), min_size=1, max_size=4),
    shares=st.lists(st.floats(0.1, 1), min_size=4, max_size=4),
    n=st.integers(1, 12),
)
def test_each_item_comes_once_and_the_order_of_a_list_is_kept(snapshot: Snapshot, lists, shares, n) -> None:
    given_ = [entries(str(number), items) for number, items in enumerate(lists)]
    places = arrange(given_, shares, n, Caps(snapshot, CapsConfig()))
    items = [place.entry.item for place in places]
    assert len(set(items)) == len(items) == min(n, len({item for own in lists for item in own}))
    assert {place.propensity for place in places} <= {1.0}
    for number, own in enumerate(lists):
        mine = [place.entry.item for place in places if place.entry.by.source == str(number)]
        assert all(own.index(a) < own.index(b) for a, b in pairwise(mine))


def test_shares_are_kept() -> None:
    lists = [entries("a", list(range(20))), entries("b", list(range(100, 120)))]
    places = arrange(lists, [0.7, 0.3], 10, Caps(None, CapsConfig()))  # type: ignore[arg-type]
    assert Counter(place.entry.by.source for place in places) == {"a": 7, "b": 3}


@pytest.mark.parametrize("kind", ["leaf", "category", "source"])
def test_no_more_than_the_cap_of_a_kind(snapshot: Snapshot, kind: str) -> None:
    lists = [entries("a", list(range(100))), entries("b", list(range(100, 200)))]
    places = arrange(lists, [0.5, 0.5], 12, Caps(snapshot, CapsConfig(**{kind: 2})))
    of = {
        "leaf": lambda entry: snapshot.leaf_of(entry.item),
        "category": lambda entry: snapshot.categories[entry.item][0],
        "source": lambda entry: entry.by.source,
    }[kind]
    counts = Counter(of(place.entry) for place in places)
    assert max(counts.values()) == 2
    assert len(places) == (4 if kind == "source" else 12)


def check_chances(lists, shares, n, epsilon, drawn=None):  # type: ignore[no-untyped-def]
    """Of all slates that began alike (items and their lists), how many go on with an item, against what was logged."""
    rng, draws = np.random.default_rng(0), 4000
    begun: Counter[tuple[object, ...]] = Counter()
    found: Counter[tuple[object, ...]] = Counter()
    logged: dict[tuple[object, ...], float] = {}
    for _ in range(draws):
        own = lists if drawn is None else [*lists, drawn(rng)]
        above: tuple[object, ...] = ()
        for place in arrange(own, shares, n, Caps(None, CapsConfig()), epsilon, rng.random((n, 3)).tolist()):  # type: ignore[arg-type]
            begun[above] += 1
            found[above, place.entry.item] += 1
            logged[above, place.entry.item] = place.propensity  # type: ignore[assignment]
            above = (*above, place.entry.item, place.entry.by.source)
    for (above, item), chance in logged.items():
        size = begun[above]
        spread = 5 * np.sqrt(chance * (1 - chance) / size)
        assert abs(found[above, item] / size - chance) < spread + 3 / size, (above, item, chance)
    for above, size in begun.items():
        if size > 1000:  # so many that all was seen that can be
            assert sum(logged[key] for key in logged if key[0] == above) == pytest.approx(1)
    return len(logged)


def test_the_chance_of_a_drawn_place_is_how_often_it_comes() -> None:
    assert check_chances([entries("a", [1, 2, 3]), entries("b", [3, 4])], [0.6, 0.4], 3, 0.4) > 40


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_so_is_that_of_one_whose_source_draws_its_order(epsilon: float) -> None:
    weights = {3: 3.0, 7: 2.0, 8: 1.0}

    def drawn(rng: np.random.Generator) -> list[Entry]:
        keys = {item: np.log(weight) + rng.gumbel() for item, weight in weights.items()}
        return entries("b", sorted(weights, key=lambda item: -keys[item]), weights)

    assert check_chances([entries("a", [1, 3, 2])], [0.3, 0.7], 3, epsilon, drawn) > 5


def test_what_a_source_proposed_by_chance_is_weighed_by_it() -> None:
    lists = [entries("a", [1, 2]), entries("b", [5], chance=0.25)]
    places = arrange(lists, [0.5, 0.5], 2, Caps(None, CapsConfig()))  # type: ignore[arg-type]
    assert {place.entry.item: place.propensity for place in places} == {1: 1.0, 5: 0.25}
