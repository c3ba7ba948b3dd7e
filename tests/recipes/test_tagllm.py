"""The recipe on a slice of the bundled sample. The model is a stand-in: what is tested is the comparison, not tags."""

import math

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.movielens import read_movielens, read_movielens_tags
from palate.errors import InputError
from palate.experiments.study import Study
from palate.knowledge.recorded import read_recorded
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound
from palate.recipes.registry import load


class StandIn:
    """Says the item's first words; Yes to values that occur in the item."""

    name, model = "stand-in", "stand-in-1"

    def close(self):
        pass

    def bound(self, request):
        return Bound(100, 0.0)

    def ask(self, work):
        while taken := work.take(8):
            yield [(number, self.answer(request)) for number, request in taken]

    def answer(self, request):
        asked = request.messages[-1].text
        shares = (0.7, 0.3) if asked.split("“")[-1].split("”")[0] in asked.split("\n\n")[0].lower() else (0.4, 0.6)
        text = "; ".join(asked.removeprefix("Item: ").split("\n\n")[0].lower().split()[:7])
        counts = {"tokens_in": 10, "tokens_out": 3, "model": self.model, "engine": self.name}
        return Answer(text, probabilities=shares if request.options else None, **counts)


class WordVectors:
    name, width = "words", 32

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in str(text).lower().replace("\n", " ").split() or ["-"]:
                vectors[row] += np.random.default_rng(list(word.encode()[:12])).standard_normal(self.width)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def study(sample, tmp_path):
    whole = read_movielens(sample)
    busiest = np.argsort(-whole.item_counts)[:300]
    items = whole.items[busiest.tolist()]
    users = whole.events["user_id"].unique(maintain_order=True)[:250]
    events = whole.events.filter(
        pl.col("user_id").is_in(users.to_list()) & pl.col("item_id").is_in(items["item_id"].to_list())
    )
    dataset = Dataset.from_tables(items, events.drop("item_num", "user_num"))
    labels = read_movielens_tags(sample).rename({"tag": "label"}).with_columns(source=pl.lit("ml_user_tag"))
    tags = read_recorded(sample / "answers", "large")["tag"].filter(pl.col("entity").is_in(items["item_id"].to_list()))

    def make(**changes):
        ledger = Ledger(tmp_path / "ledger.sqlite")
        settings = {"items": "60", "minutes": "0", "pairs": "500"} | changes.pop("settings", {})
        given = {"labels": labels, "recorded": Knowledge({"tag": tags}), "settings": settings} | changes
        return Study(
            given.pop("dataset", dataset), LedgeredLLM(StandIn(), ledger), WordVectors(), tmp_path / "work", **given
        )

    return make


@pytest.mark.slow
def test_every_source_is_compared_and_controls_say_nothing(study):
    report = load("tagllm")(study())
    tables = {table.title: table.rows for table in report.tables}
    form = {row["source"]: row for row in tables["Form of the tags"]}
    assert {"categories", "tf-idf terms", "unguided LLM", "recorded model", "student"} <= set(form)
    assert all(row["tags_an_item"] <= 5 for row in form.values())
    shared = {row["source"]: row for row in tables["Future clicks that share a tag with the history"]}
    for control in ("recorded model, permuted", "recorded model, noise"):
        assert shared[control]["nearer_low"] <= 0.53
        assert abs(shared[control]["nearer"] - 0.5) < 0.1
    cold = {row["signal"]: row for row in tables["Cold items, NDCG@10"]}
    assert cold["sentence vectors"]["queries"] > 50
    assert cold["sentence vectors"]["against sentence vectors"] == 0.0
    assert "sentence vectors + recorded model" in cold
    assert not any(math.isnan(row["ndcg"]) for row in cold.values())
    assert any("Cold items" in line for line in report.verdict)
    assert any("No tuned LLM" in note for note in report.notes)


@pytest.mark.slow
def test_data_without_clock_categories_or_people_are_measured_as_far_as_they_go(study):
    whole = study().dataset
    items = whole.items.with_columns(categories=pl.lit([], pl.List(pl.String)))
    stamps = pl.int_range(pl.len()).over("user_id").cast(pl.Int64)
    events = whole.events.with_columns(timestamp=(stamps * 1_000_000).cast(pl.Datetime("us", "UTC")))
    bare = Dataset.from_tables(items, events.drop("item_num", "user_num"))
    report = load("tagllm")(study(dataset=bare, labels=None, recorded=Knowledge(), settings={"teach": "0"}))
    said = " ".join(report.notes)
    assert "no clock" in said
    assert "Nobody's tags" in said
    assert "No recorded model" in said
    assert "No categories" in said
    assert "Cold items, NDCG@10" in {table.title for table in report.tables}


@pytest.mark.parametrize(("name", "value"), [("items", "few"), ("itens", "50"), ("route", "guess")])
def test_a_setting_that_does_not_fit_is_named(study, name, value):
    with pytest.raises(InputError) as caught:
        load("tagllm")(study(settings={name: value}))
    assert name in str(caught.value)
