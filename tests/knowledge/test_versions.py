import json
import multiprocessing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.errors import InputError, StorageError
from palate.knowledge.attributes import Attribute, load_attributes
from palate.knowledge.versions import History, Version, wording

FILE = """# Moods.
- name: calm
  question: Is this calm?  # asked of every film
  options: ["Yes", "No"]

# Funny: see the minutes of May.
- name: funny
  question: >
    Is this
    funny?
  description: a funny film   # zero-shot
  edge_cases:
    - Satire counts.
    - "Slapstick: counts"
- {name: sad, question: "Is it sad?", guidance: 'Tears.'}
"""


def version(attribute, fate="better", **more):
    return Version(version=attribute.version, fate=fate, definition=wording(attribute), **more)


def applied(folder, name, text=FILE, **change):
    """The YAML after `change` was applied to `name`, and the file that was written."""
    (folder / "a.yaml").write_text(text, newline="")
    (one,) = [attribute for attribute in load_attributes(folder) if attribute.name == name]
    history = History(folder)
    history.add(name, version(one.model_copy(update=change)))
    written = history.apply(name, one.model_copy(update=change).version)
    return (folder / "a.yaml").read_bytes().decode(), written


def test_only_the_entry_changes_and_no_comment_is_lost(tmp_path):
    text, written = applied(tmp_path, "funny", question="Does it make people laugh?", guidance="Jokes: count.")
    assert written == tmp_path / "a.yaml"
    before, after = FILE.splitlines(), text.splitlines()
    gone = [line for line in before if line not in after]
    assert gone == ["  question: >", "    Is this", "    funny?"]
    assert [line for line in after if line not in before] == [
        '  question: "Does it make people laugh?"',
        '  guidance: "Jokes: count."',
    ]
    assert load_attributes(tmp_path)[1].guidance == "Jokes: count."
    assert History(tmp_path).of("funny")[-1].fate == "applied"


def test_lists_flow_entries_and_windows_newlines(tmp_path):
    text, _ = applied(tmp_path, "funny", edge_cases=("Puns # too.",))
    assert '  edge_cases:\n    - "Puns # too."\n- {name' in text
    text, _ = applied(tmp_path, "sad", guidance="No.", edge_cases=("A.", "B."))
    assert text.endswith('- {name: sad, edge_cases: ["A.", "B."], question: "Is it sad?", guidance: "No."}\n')
    text, _ = applied(tmp_path, "calm", text=FILE.replace("\n", "\r\n"), edge_cases=("A.",))
    assert text.count("\n") == text.count("\r\n") == FILE.count("\n") + 2


@pytest.mark.parametrize(
    "text",
    [
        FILE.replace("- Satire counts.", "- Satire counts.  # May"),
        FILE.replace("question: >", "question: > # folded"),
        "- {name: base, question: &q 'Is it?'}\n- name: funny\n  question: *q\n  edge_cases: [a]\n",
        "- name: funny\n  question: &q Is it?\n  edge_cases: [a]\n- {name: other, question: *q }\n",
    ],
)
def test_what_would_lose_something_is_proposed_beside_it(tmp_path, text):
    after, written = applied(tmp_path, "funny", text=text, question="Is it odd?", edge_cases=())
    assert after == text
    assert written.name == "funny.proposal.yaml"
    assert written.read_text().startswith("# Copy these lines")
    assert yaml.safe_load(written.read_text())["question"] == "Is it odd?"
    assert len(load_attributes(tmp_path)) == text.count("name:")  # the proposal is not read as an attribute


def test_a_part_of_a_multi_is_proposed(tmp_path):
    text = "name: place\nkind: multi\nquestion: Where is it?\noptions: [Sea, City]\n"
    after, written = applied(tmp_path, "place_sea", text=text, guidance="Any coast.")
    assert (after, written.name) == (text, "place_sea.proposal.yaml")


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["calm", "funny", "sad"]), words, st.lists(words, max_size=3))
def test_whatever_the_wording_it_is_read_back_or_nothing_changes(tmp_path_factory, name, guidance, cases):
    folder = tmp_path_factory.mktemp("a")
    text, written = applied(folder, name, guidance=guidance, edge_cases=tuple(cases))
    if written.name != "a.yaml":
        assert text == FILE
        return
    (one,) = [attribute for attribute in load_attributes(folder) if attribute.name == name]
    assert (one.guidance, one.edge_cases) == (guidance, tuple(cases))
    for comment in ("# Moods.", "# asked of every film", "# Funny: see the minutes of May.", "# zero-shot"):
        assert comment in text


CALM = Attribute(name="calm", question="Is this calm?")


def test_the_history_is_lines_that_people_can_read(tmp_path):
    history = History(tmp_path)
    history.add("calm", version(CALM, by="a model", why="clearer", figures={"auc": 0.7}))
    history.add("calm", version(CALM, by="a model", why="clearer", figures={"auc": 0.7}))  # the same: one line
    history.add("calm", version(CALM, fate="not better", parent="0" * 8))
    first, second = map(json.loads, (tmp_path / "versions" / "calm.jsonl").read_text().splitlines())
    assert (first["definition"]["question"], first["figures"], second["fate"]) == (
        "Is this calm?",
        {"auc": 0.7},
        "not better",
    )
    assert first["at"] > "2020"
    assert [one.parent for one in history.of("calm")] == [None, "0" * 8]
    assert history.of("loud") == []


def test_a_line_cut_short_is_dropped_and_a_damaged_one_named(tmp_path):
    history = History(tmp_path)
    history.add("calm", version(CALM))
    path = history.path("calm")
    path.write_bytes(path.read_bytes() + b'{"version": "12')
    assert len(history.of("calm")) == 1
    history.add("calm", version(CALM, why="again"))
    assert [one.why for one in history.of("calm")] == ["", "again"]
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(InputError) as caught:
        history.of("calm")
    assert "line 1, version" in str(caught.value)


def test_an_unknown_or_refused_version_is_not_applied(tmp_path):
    (tmp_path / "a.yaml").write_text(FILE)
    history = History(tmp_path)
    history.add("calm", version(CALM, fate="refused"))
    for known in ("00000000", CALM.version):
        with pytest.raises(InputError, match="no such version"):
            history.apply("calm", known)
    assert (tmp_path / "a.yaml").read_text() == FILE


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "versions").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        History(tmp_path).add("calm", version(CALM))
    assert "calm.jsonl" in str(caught.value)


def _add_twenty(folder, writer):
    for number in range(20):
        History(folder).add("calm", version(CALM, why=f"{writer} {number}"))


@pytest.mark.slow
def test_two_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_twenty, args=(tmp_path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(History(tmp_path).of("calm")) == 40
