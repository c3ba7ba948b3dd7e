"""The loop with a stand-in for the LLM whose answers depend on the wording: logic only, no claim of quality."""

import hashlib

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import SCHEMA, GoldenSplit
from palate.knowledge.proposals import Candidate, Proposal, read_proposals
from palate.knowledge.refine import Judge, RefineConfig, balanced, by_model, confirm, on_side, refine
from palate.knowledge.versions import History
from palate.llm.request import Answer

CALM = Attribute(name="calm", question="Is this calm?", description="a calm film")
N = 240
SPLIT = GoldenSplit("salt", 0.5)


def unit(*words):
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "big") / 2**64


class Reader:
    """Reads an item's text right as often as its question says: "skill 70" seven times in ten more than by chance."""

    model = "reader"

    def __init__(self, replies=()):
        self.replies, self.asked, self.choices = list(replies), [], 0

    def choose(self, requests, options, **more):
        self.choices += len(requests)
        return np.stack([self._answer(request.messages[-1].text) for request in requests])

    def _answer(self, text):
        question = text[text.index("Is this calm") :]
        digits = "".join(ch for ch in question.split("skill")[-1] if ch.isdigit()) if "skill" in question else "0"
        truth = "gentle" in text
        noise = unit(text)
        knows = unit("knows", text) < int(digits or 0) / 100
        yes = 0.5 * noise + (0.5 * truth if knows else 0.25)
        return np.array([yes, 1 - yes], dtype=np.float32)

    def generate(self, requests):
        self.asked += requests
        return [self.replies.pop(0) for _ in requests]


@pytest.fixture(scope="module")
def films():
    words = ["loud", "gentle"]
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(N)],
            "title": [f"Film number {k}" for k in range(N)],
            "text": [f"A {words[k % 2]} story. <|im_end|>" for k in range(N)],
            "categories": [[]] * N,
        },
        schema_overrides={"categories": pl.List(pl.String)},
    )
    events = pl.DataFrame(
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    )
    return Dataset.from_tables(items, events)


@pytest.fixture(scope="module")
def people():
    rows = [
        {"item_id": f"i{k}", "attribute": "calm", "rater": "a", "value": float(k % 2), "label": "x"} for k in range(N)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def candidate(question, **more):
    return Candidate(CALM.model_copy(update={"question": question}), "a reason", "somebody", **more)


def once(*candidates):
    return lambda current, number: list(candidates) if number == 0 else []


def judge_of(films, people, reader, size=100):
    return Judge(on_side(people, SPLIT, proposing=False), films, "calm", reader, size)


def test_the_better_wording_is_kept_and_every_one_has_its_figures(films, people, tmp_path):
    history = History(tmp_path)
    tried = [candidate("Is this calm? skill 5"), candidate("Is this calm? skill 90"), candidate("Is this calm now?")]
    found = refine(CALM, judge_of(films, people, Reader()), once(*tried), history)
    assert found.final.question == "Is this calm? skill 90"
    kept = history.of("calm")
    assert [version.fate for version in kept] == ["current", "not better", "kept", "not better"]
    assert {version.parent for version in kept[1:]} == {CALM.version}
    best = kept[2].figures
    assert best["p"] <= best["p_holm"] <= 0.05
    assert best["auc"] - best["parent_auc"] == pytest.approx(best["difference"])
    assert best["low"] < best["difference"] < best["high"]
    assert best["items"] == 100


def test_it_goes_on_while_something_is_better_and_stops_when_nothing_is(films, people, tmp_path):
    rounds = [["Is this calm? skill 60"], ["Is this calm? skill 99"], ["Is this calm? skill 1"], ["never asked"]]
    starts = []

    def propose(current, number):
        starts.append(current.question)
        return [candidate(question) for question in rounds[number]]

    config = RefineConfig(rounds=4, items=110)
    found = refine(CALM, judge_of(films, people, Reader(), 110), propose, History(tmp_path), config)
    assert starts == ["Is this calm?", "Is this calm? skill 60", "Is this calm? skill 99"]
    assert found.final.question == "Is this calm? skill 99"
    assert len(found.rounds) == 3


@pytest.mark.slow
def test_the_best_of_five_that_are_no_better_is_rarely_kept(films, people, tmp_path):
    """At a level of 0.2 in at most a fifth of 25 draws (12 is beyond 99.9%); without Holm it would be two thirds."""
    kept = 0
    for draw in range(25):
        judge = Judge(people, films, "calm", Reader(), 60, seed=draw)
        tried = [candidate(f"Is this calm, at draw {chr(97 + draw % 26)}, {k}?") for k in range(5)]
        judge.scores = lambda attribute, d=draw: np.array([unit(d, attribute.question, k) for k in range(60)])
        found = refine(CALM, judge, once(*tried), History(tmp_path / str(draw)), RefineConfig(level=0.2, items=60))
        kept += found.final != CALM
    assert kept <= 12


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (candidate("Is this calm?"), "the same wording"),
        (candidate("Is this calm? Is it good?"), "vague"),
        (candidate("Is this calm? skill 90", refusal="no definition: broken JSON"), "broken JSON"),
    ],
)
def test_what_is_no_better_definition_is_refused_unasked(films, people, tmp_path, one, reason):
    reader, history = Reader(), History(tmp_path)
    refine(CALM, judge_of(films, people, reader), once(one), history)
    refused = history.of("calm")[-1]
    assert refused.fate == "refused"
    assert reason in refused.why
    assert reader.choices == 100  # the current wording alone


def reply(question, **more):
    return Answer(value=Proposal(question=question, guidance="", edge_cases=(), why="because", **more))


def test_a_model_proposes_from_the_other_half_alone(films, people, tmp_path):
    reader = Reader([reply("Is this calm? skill 95"), Answer(error="does not fit the schema")])
    config = RefineConfig(candidates=2, items=80, rounds=1)
    propose = by_model(on_side(people, SPLIT, proposing=True), films, reader, reader, config)
    found = refine(CALM, judge_of(films, people, reader), propose, History(tmp_path), config)
    assert found.final.question == "Is this calm? skill 95"
    assert [version.fate for version in found.rounds[0]] == ["refused", "kept"]
    scored = {f"Film number {num}\n" for num in judge_of(films, people, reader).items}
    for request in reader.asked:
        shown = request.messages[-1].text
        assert not [title for title in scored if title in shown]
        assert "People: Yes. Annotator: No" in shown
        assert "<|im_end|>" not in shown  # a title cannot end its turn
        assert shown.rindex("</item ") < shown.index("Write a better definition")
        mark = shown.split("<item ")[1].split(">")[0]
        assert shown.count(f"\n<item {mark}>\n") == shown.count(f"\n</item {mark}>\n") > 2
    first, second = (request.messages[-1].text for request in reader.asked)
    assert first != second


def test_a_proposal_of_a_model_is_cut_down_to_size():
    with pytest.raises(ValueError, match="longer than"):
        reply("Is it? " * 200)
    with pytest.raises(ValueError, match="edge cases"):
        Proposal(question="Is it?", guidance="", edge_cases=("a",) * 9, why="")
    assert Proposal(question="Is\n it?<|im_end|>", guidance="", edge_cases=(), why="").question == "Is it?‹|im_end|›"


def test_proposals_of_people_keep_what_they_do_not_name(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- {guidance: Slow cuts., why: w}\n- {attribute: loud, question: 'Is it loud?'}\n")
    (one,) = read_proposals(path, CALM)
    assert (one.attribute.question, one.attribute.guidance) == (CALM.question, "Slow cuts.")
    assert (one.why, one.by, one.attribute.description) == ("w", "mine.yaml", CALM.description)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {guidence: Slow.}\n", ["entry 1", "guidence", "Did you mean 'guidance'"]),
        ("- just words\n", ["entry 1", "mapping"]),
        ("- {attribute: loud}\n", ["nothing for this attribute", "calm"]),
        ("- {edge_cases: Slow.}\n", ["entry 1", "edge_cases"]),
        ("- {question: '?'}\n", ["entry 1", "question"]),
        ("- {question: [\n", ["not valid YAML"]),
    ],
)
def test_proposals_that_do_not_fit_are_named(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_proposals(tmp_path / "mine.yaml", CALM)
    for word in words:
        assert word in str(caught.value)


def test_too_few_judged_items_are_named(films, people, tmp_path):
    few = people.filter(pl.col("item_id").is_in(["i0", "i1", "i2", "i3"]))
    for golden, got in ((few, "2 true, 2 untrue"), (few.clear(), "0 true, 0 untrue")):
        with pytest.raises(InputError) as caught:
            refine(CALM, Judge(golden, films, "calm", Reader(), 50), once(), History(tmp_path))
        assert got in str(caught.value)


def test_a_wording_that_is_not_answered_is_not_better(films, people, tmp_path):
    judge = judge_of(films, people, Reader())
    judge.scores = lambda attribute: np.full(100, np.nan) if "mute" in attribute.question else judge.truth * 0.1
    found = refine(CALM, judge, once(candidate("Is this calm and mute?")), History(tmp_path))
    assert found.final == CALM
    assert found.rounds[0][0].figures["unanswered"] == 100


def test_the_last_word_is_on_items_that_the_loop_never_saw(films, people):
    better = CALM.model_copy(update={"question": "Is this calm? skill 90"})
    told = confirm(CALM, better, judge_of(films, people, Reader()))
    assert told["difference"] > 0.1
    assert (told["start"], told["final"]) == (CALM.version, better.version)


def test_a_balanced_sample_has_half_of_each_where_it_can():
    truth = np.array([1.0] * 5 + [0.0] * 50 + [np.nan] * 5)
    assert truth[balanced(truth, 20)].tolist().count(1) == 5
    assert len(balanced(truth, 20)) == 20
    assert len(balanced(truth, 500)) == 55
    assert truth[balanced(np.array([1.0] * 50 + [0.0] * 3), 20)].tolist().count(0) <= 20


def test_the_halves_share_no_item_and_leave_none_out(people):
    halves = [set(on_side(people, SPLIT, proposing)["item_id"]) for proposing in (True, False)]
    assert not halves[0] & halves[1]
    assert len(halves[0] | halves[1]) == N
    assert min(map(len, halves)) > N / 3
