"""The handbook finds what was planted and leaves out what is chance, at the rate that it states."""

import numpy as np
import pytest
from planted import CHANCE, TASTES, WordEncoder, planted

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.clicks import clicks_only, training_pairs
from palate.knowledge.handbook import (
    ALL,
    Dimension,
    Handbook,
    HandbookConfig,
    Section,
    mine_handbook,
    read_handbook,
    write_handbook,
)
from palate.knowledge.information import information
from palate.knowledge.terms import item_documents, occurrences

CONFIG = HandbookConfig(values_each=2, max_share=0.5, permutations=299, min_pairs=100)


@pytest.mark.slow
def test_a_planted_dimension_is_found_and_proposals_are_tested_alike():
    dataset = planted()
    asked = [Dimension(name="beings", values=TASTES), Dimension(name="colours", values=CHANCE[:4])]
    found = mine_handbook(dataset, item_documents(dataset), WordEncoder(), CONFIG, asked)
    everything = next(section for section in found.sections if section.category == ALL)
    kept = {d.name: d for d in everything.dimensions}
    assert "beings" in kept
    assert "colours" not in kept
    assert kept["beings"].lift > 0.15
    assert kept["beings"].information > 0
    assert kept["beings"].q <= CONFIG.q
    assert set(kept["beings"].values) == set(TASTES)
    assert {section.category for section in found.sections} == {ALL, "book", "film"}


@pytest.mark.slow
def test_chance_is_kept_at_the_stated_rate():
    """p-values of meaningless values are uniform: of 320, about 5% are below 0.05 (at most 8.5% at four sigma)."""
    p_values = []
    for seed in range(40):
        dataset = planted(seed)
        table = occurrences(item_documents(dataset), CHANCE)
        members = np.eye(len(CHANCE), dtype=np.float32)
        from scipy.sparse import csr_matrix

        found = information(dataset, training_pairs(dataset), table.incidence, csr_matrix(members), 99, seed)
        p_values += found.p.tolist()
    share = np.mean(np.array(p_values) <= 0.05)
    assert 0.01 <= share <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(p_values))


def test_too_few_clicks_are_said_to_be_too_few():
    dataset = planted(n_users=5)
    found = mine_handbook(dataset, item_documents(dataset), WordEncoder(), CONFIG)
    assert found.sections == ()
    assert "Fewer than 100 clicks" in found.notes[0]
    assert found.of(["book"]) == []


def test_a_catalogue_without_words_has_no_dimension():
    dataset = planted()
    found = mine_handbook(dataset, [[] for _ in range(dataset.n_items)], WordEncoder(), CONFIG)
    assert all(section.dimensions == () for section in found.sections)
    assert "No dimension carries information" in found.notes[0]


def test_what_was_shown_but_not_clicked_is_no_click():
    dataset = planted()
    import polars as pl

    shown = dataset.with_events(dataset.events.with_columns(event_type=pl.lit("impression")))
    assert clicks_only(shown).events.height == 0
    assert clicks_only(dataset).events.height == dataset.events.height


def test_matched_items_are_new_to_the_user_and_of_the_category():
    dataset = planted()
    pairs = training_pairs(dataset)
    categories = dataset.items["categories"].to_list()
    assert len(pairs) > 500
    for user, clicked, matched in zip(pairs.users, pairs.clicked, pairs.matched, strict=True):
        assert matched not in dataset.histories.of(int(user))
        assert categories[clicked] == categories[matched]


def test_a_handbook_survives_the_file(tmp_path):
    own = Dimension(name="zeit & ort: #1", values=("süß", "no", "1980"), examples=("Film: a",), information=0.01)
    book = Handbook(sections=(Section(category="all", dimensions=(own,)),), notes=("a note",))
    write_handbook(book, tmp_path / "handbook.yaml")
    assert read_handbook(tmp_path / "handbook.yaml") == book
    assert [file.name for file in tmp_path.iterdir()] == ["handbook.yaml"]


def test_a_handbook_may_be_written_by_hand(tmp_path):
    path = tmp_path / "handbook.yaml"
    path.write_text("sections:\n- category: Drama\n  dimensions:\n  - {name: mood, values: [calm, tense]}\n")
    assert [d.name for d in read_handbook(path).of(["Drama"])] == ["mood"]
    assert read_handbook(path).of(["Comedy"]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sections:\n- category: all\n  dimensions:\n  - {name: mood, values: [a], valeus: [b]}\n",
            "Did you mean 'values'",
        ),
        ("sections:\n- category: all\n  dimensions:\n  - {name: mood, values: []}\n", "values"),
        ("- a\n", "mapping with sections"),
        ("sections: [\n", "line 2"),
    ],
)
def test_a_broken_handbook_is_named(tmp_path, text, said):
    (tmp_path / "handbook.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_handbook(tmp_path / "handbook.yaml")
    assert said in str(caught.value)
    assert "handbook.yaml" in str(caught.value)


def test_a_missing_handbook_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="no handbook") as caught:
        read_handbook(tmp_path / "handbook.yaml")
    assert "palate tags handbook" in str(caught.value)


def test_versions_follow_names_and_values():
    def book(*values, q=None):
        return Handbook(sections=(Section(category="all", dimensions=(Dimension(name="d", values=values, q=q),)),))

    assert book("a").version == book("a", q=0.1).version
    assert book("a").version != book("b").version


@pytest.mark.slow
def test_a_dataset_is_not_touched():
    dataset = planted()
    before = dataset.events.clone()
    mine_handbook(dataset, item_documents(dataset), WordEncoder(), CONFIG)
    assert isinstance(dataset, Dataset)
    assert dataset.events.equals(before)
