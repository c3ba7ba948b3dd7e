from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest

from palate.data.assignment import NOBODY, Assigned, Split, assign, assign_all, label, place, read_label

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HALVES = {"control": 0.5, "more": 0.5}
PEOPLE = [f"u{n}" for n in range(4000)]
texts = st.text(max_size=20)


def drawn(split: Split) -> list[str]:
    found = [assign(split, unit, NOW) for unit in PEOPLE]
    return ["" if each is None else each.variant for each in found]


def split(name: str = "a", **said: object) -> Split:
    return Split(name, **{"salt": name, "layer": name, "shares": HALVES, **said})  # type: ignore[arg-type]


@pytest.mark.parametrize("salt", ["a", "novelty", "x" * 500, "\x00"])
def test_places_are_uniform_whatever_the_salt(salt):
    assert kstest([place("variant", salt, unit) for unit in PEOPLE], "uniform").pvalue > 1e-4


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(0.05, 1), min_size=2, max_size=4), st.integers(0, 50))
@settings(max_examples=10)
def test_variants_get_their_shares(shares, number):
    found = drawn(split(salt=f"s{number}", shares=shares))
    expected = np.array(list(shares.values())) / sum(shares.values()) * len(PEOPLE)
    assert chisquare([found.count(name) for name in shares], expected).pvalue > 1e-6


@given(texts, texts, texts)
def test_a_unit_keeps_its_variant(salt, layer, unit):
    one, other = (Split("e", salt, layer, HALVES) for _ in range(2))
    later = NOW + timedelta(days=300)
    assert assign(one, unit, NOW) == assign(other, unit, later)
    assert (assign(one, unit, NOW) is None) == (unit == "")


def test_known_places_do_not_move():
    """Another release that put people elsewhere would break every experiment that runs."""
    assert [round(place("variant", "novelty", unit), 6) for unit in ("u1", "ü", "")] == KNOWN


KNOWN = [0.627193, 0.247603, 0.179955]


def test_layers_and_salts_are_independent():
    table = np.zeros((2, 2))
    for one, other in zip(drawn(split("a")), drawn(split("b")), strict=True):
        table[list(HALVES).index(one), list(HALVES).index(other)] += 1
    assert chi2_contingency(table).pvalue > 1e-4


def test_where_a_unit_stands_in_a_layer_says_nothing_of_its_variant():
    half = drawn(split("a", layer="shared", last=0.5))
    among = [variant for variant in half if variant]
    assert abs(len(among) / len(PEOPLE) - 0.5) < 0.04
    assert chisquare([among.count(name) for name in HALVES]).pvalue > 1e-4


@given(st.floats(0.1, 0.9), texts)
@settings(max_examples=20)
def test_experiments_of_a_layer_exclude_each_other(edge, layer):
    left, right = split("a", layer=layer, last=edge), split("b", layer=layer, first=edge)
    for unit in PEOPLE[:200]:
        assert len(assign_all([left, right], unit, NOW)) == 1


def test_nobody_is_taken_before_the_start_and_from_the_end_on():
    timed = split(start=NOW, end=NOW + timedelta(days=1))
    moments = [NOW - timedelta(microseconds=1), NOW, NOW + timedelta(days=1)]
    assert [assign(timed, "u1", moment) is None for moment in moments] == [True, False, True]


def test_an_override_holds_everywhere_and_is_marked():
    forced = split(first=0.0, last=1e-9, start=NOW + timedelta(days=9), overrides={"tester": "more"})
    assert assign(forced, "tester", NOW) == Assigned("more", forced=True)
    assert assign(forced, "u1", NOW) is None


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=12)


@given(st.dictionaries(names, st.builds(Assigned, names, st.booleans()), max_size=4))
def test_labels_say_what_was_assigned(assigned):
    assert read_label(label(assigned)) == assigned
    assert (label(assigned) == NOBODY) == (not assigned)


@given(st.text(max_size=40))
def test_any_label_can_be_read(text):
    assert all(name and each.variant for name, each in read_label(text).items())


def test_labels_of_other_systems_name_no_experiment():
    assert [read_label(text) for text in ("default", "", "control", "a:", ":b", "|")] == [{}] * 6
