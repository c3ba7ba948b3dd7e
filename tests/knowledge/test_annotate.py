import numpy as np
import polars as pl
import pytest

from palate.knowledge.annotate import (
    AnnotateConfig,
    Tally,
    annotate,
    item_text,
    probabilities,
    question,
    questions,
    readings,
    requests_of,
    sample_items,
)
from palate.knowledge.attributes import Attribute
from palate.knowledge.calibrated import calibrated_labels
from palate.knowledge.golden_set import SCHEMA as GOLDEN
from palate.knowledge.guard import OFF, GuardConfig
from palate.knowledge.prompt import Look
from palate.knowledge.shots import Shots
from palate.knowledge.store import in_schema
from palate.llm.request import Answer

FUNNY = Attribute(name="funny", question="Is this funny?")
CALM = Attribute(name="calm", question="Is it calm?")
GRADED = Attribute(name="sad", question="How sad?", options=("Very", "Somewhat", "No"))
BARE = AnnotateConfig(guard=GuardConfig(neutral=False))


class Chooser:
    """Prefers the first option, or what `liking` says of a prompt; fails for item 3; reads aloud what `quotes` says."""

    model = "chooser"

    def __init__(self, liking=None, quotes=None):
        self.asked = []
        self.liking = liking or (lambda prompt, options: [0.8] + [0.2 / (len(options) - 1)] * (len(options) - 1))
        self.quotes = quotes

    def generate(self, requests) -> list[Answer]:
        assert self.quotes is not None, "closed questions only"
        return [
            Answer(value=self.quotes(request), error=None if request.entity != "3" else "lost") for request in requests
        ]

    def choose(self, requests, options):
        self.asked += requests
        for request in requests:
            assert request.options == tuple(options)
        rows = [self.liking(request.messages[1].content, options) for request in requests]
        failed = [[np.nan if request.entity == "3" else 1.0] for request in requests]
        return np.array(rows, dtype=np.float32) * np.array(failed, dtype=np.float32)


def items(*numbers):
    return np.array(numbers, dtype=np.int32)


def test_rows_carry_value_confidence_and_provenance(films):
    tally = Tally()
    rows = annotate(films, items(1, 3), [FUNNY, GRADED], Chooser(), config=BARE, salt="s", tally=tally)
    in_schema("label", rows)
    assert rows.select("entity", "name", "text").rows() == [("1", "funny", "Yes"), ("1", "sad", "Very")]
    assert rows["value"].to_list() == pytest.approx([0.8, 0.8 + 0.05])
    asked = question(item_text(films, 1), FUNNY, "1", config=BARE, salt="s")
    assert rows["prompt_hash"][0] == asked.request.key("chooser")
    assert tally.failed == 2


def test_no_answers_are_no_rows_of_the_same_shape(films):
    tally = Tally()
    rows = annotate(films, items(3), [FUNNY], Chooser(), tally=tally)
    assert (rows.height, tally.failed) == (0, 1)
    assert calibrated_labels(rows, pl.DataFrame(schema=GOLDEN), films.item_ids, [FUNNY])[0].height == 0


def test_questions_of_one_item_follow_each_other(films):
    llm = Chooser()
    annotate(films, items(0, 1), [FUNNY, CALM], llm, config=BARE)
    assert [request.entity for request in llm.asked] == ["0", "0", "1", "1"]


def test_items_with_nothing_to_read_are_named(films):
    empty = films.items.with_columns(
        title=pl.when(pl.col("item_id") == "2").then(pl.lit("")).otherwise("title"),
        text=pl.lit(None, pl.String),
        categories=pl.lit([], pl.List(pl.String)),
    )
    hollow, tally = type(films)(empty, films.events, films.users), Tally()
    rows = annotate(hollow, items(1, 2), [FUNNY], Chooser(), tally=tally)
    assert rows["entity"].to_list() == ["1"]
    assert (tally.skipped, tally.facts()["skipped"]) == (["2"], 1)


def test_what_is_said_of_nothing_is_divided_out(films):
    def liking(prompt, options):  # says Yes to whatever it is asked about this item, a little more if it is funny
        return [0.8, 0.2] if "funny" in prompt else [0.75, 0.25]

    plain = annotate(films, items(1), [FUNNY], Chooser(liking), config=BARE)
    fair = annotate(films, items(1), [FUNNY], Chooser(liking), config=AnnotateConfig(guard=GuardConfig(neutral=True)))
    odds = (0.8 / 0.75) / (0.2 / 0.25)
    assert plain["value"][0] == pytest.approx(0.8)
    assert fair["value"][0] == pytest.approx(odds / (1 + odds))


def test_what_is_said_of_no_item_is_divided_out_for_each_attribute(films):
    def liking(prompt, options):
        bias = 0.9 if "funny" in prompt else 0.3
        return [bias, 1 - bias]

    config = AnnotateConfig(content_free=True, guard=OFF)
    llm = Chooser(liking)
    rows = annotate(films, items(1, 2), [FUNNY, CALM], llm, config=config)
    assert rows["value"].to_list() == pytest.approx([0.5] * 4)
    assert len(llm.asked) == 4 + 2  # nothing is asked twice


def test_orders_average_the_favour_of_the_first_place_away(films):
    llm = Chooser()  # likes what stands first
    rows = annotate(films, items(1), [FUNNY, GRADED], llm, config=BARE.model_copy(update={"orders": 3}))
    assert rows["value"].to_list() == pytest.approx([0.5, 0.5])
    assert len(llm.asked) == 2 + 3  # no more orders than options


def test_a_failed_order_leaves_the_other(films):
    class Half(Chooser):
        def choose(self, requests, options):
            return super().choose(requests, options) * (np.nan if options[0] == "No" else 1)

    one = question("a film", FUNNY, "1", config=BARE.model_copy(update={"orders": 2}))
    np.testing.assert_allclose(probabilities([one], Half())[0], [0.8, 0.2], atol=1e-6)


def test_jurors_ask_otherwise(films):
    vectors = np.eye(films.n_items, dtype=np.float32)
    dev = pl.DataFrame({"item_id": ["4", "5", "6", "7"], "attribute": "funny", "value": [1.0, 0.0, 1.0, 0.0]})
    shots = Shots(dev, vectors, films.item_ids, lambda num: item_text(films, num))
    config = BARE.model_copy(update={"examples": 2})
    first, second = (
        questions(films, items(1), [FUNNY], config=config, shots=shots, juror=juror)[0].request for juror in (0, 1)
    )
    assert first.options == ("Yes", "No")
    assert second.options == ("No", "Yes")
    assert first.messages[0].content.split(",")[0] != second.messages[0].content.split(",")[0]
    seen = [{n for n in "4567" if f"Film {n}" in request.messages[1].content} for request in (first, second)]
    assert len(seen[0]) == len(seen[1]) == 2
    assert not seen[0] & seen[1]


def quoted(request):
    said = {"1": "about the SEA", "5": "about a ship"}.get(request.entity, "")
    return {"funny": {"evidence": said}, "calm": {"evidence": ""}}


def test_evidence_that_occurs_is_kept_and_shown(films):
    llm, tally = Chooser(quotes=quoted), Tally()
    config = BARE.model_copy(update={"reading": "evidence"})
    rows = annotate(films, items(1, 5, 3), [FUNNY, CALM], llm, config=config, tally=tally)
    found = {(entity, name): words for entity, name, words in rows.select("entity", "name", "evidence").iter_rows()}
    assert found == {("1", "funny"): "about the SEA", ("1", "calm"): None, ("5", "funny"): None, ("5", "calm"): None}
    assert (tally.quoted, tally.unverified, tally.unread) == (2, 1, 1)
    shown = [request.messages[1].content for request in llm.asked]
    assert ["about the SEA" in prompt for prompt in shown] == [True] + [False] * 5


def test_readings_are_one_call_an_item(films):
    calls = []
    llm = Chooser(quotes=lambda request: calls.append(request) or quoted(request))
    looks = readings(films, items(1, 5), [FUNNY, CALM], llm, BARE.model_copy(update={"reading": "reasons"}))
    assert [request.entity for request in calls] == ["1", "5"]
    assert looks[1, "funny"] == Look("about the SEA", "")


def test_the_plan_knows_each_request_once(films):
    config = AnnotateConfig(content_free=True, orders=2, guard=GuardConfig(neutral=True))
    asked = requests_of(questions(films, items(0, 1), [FUNNY, CALM], config=config))
    assert len(asked) == len(set(asked)) == 2 * (2 * (2 + 1) + 2)
    llm = Chooser()
    annotate(films, items(0, 1), [FUNNY, CALM], llm, config=config)
    assert set(llm.asked) == set(asked)


def test_the_sample_keeps_to_its_budget_and_repeats(films):
    first = sample_items(films, 4, first=[6, 7, 5])
    assert len(set(first.tolist())) == 4
    assert len({5, 6, 7} & set(first.tolist())) >= 3
    np.testing.assert_array_equal(first, sample_items(films, 4, first=[6, 7, 5]))
    assert len(sample_items(films, 1000)) == films.n_items
