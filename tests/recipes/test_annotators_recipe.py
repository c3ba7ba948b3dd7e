"""The recipe with the real embedded model and encoder on a slice of the bundled films."""

from pathlib import Path

import polars as pl
import pytest

from palate.data.dataset import Dataset
from palate.data.movielens import read_movielens, read_movielens_tags
from palate.errors import InputError
from palate.experiments.study import Report, Study
from palate.knowledge.attributes import load_attributes
from palate.knowledge.recorded import read_recorded
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import CachedEncoder, MiniLMEncoder
from palate.llm.engines.llama import LlamaEngine
from palate.llm.ledger import Ledger
from palate.recipes.registry import load

ATTRIBUTES = Path(__file__).resolve().parents[2] / "examples" / "movielens" / "attributes"


def study_of(sample: Path, workspace: Path, ledger: Ledger, engine: LlamaEngine) -> Study:
    """The 60 films with most tags among those that the large model was asked about."""
    whole, tags = read_movielens(sample), read_movielens_tags(sample)
    recorded = read_recorded(sample / "answers", "large")["label"]
    labels = tags.rename({"tag": "label"}).with_columns(source=pl.lit("people"))
    known = labels.join(recorded.select(item_id="entity").unique(), on="item_id", how="semi")
    most = known.group_by("item_id").len().sort("len", "item_id", descending=[True, False]).head(60)["item_id"]
    items = whole.items.filter(pl.col("item_id").is_in(most.implode()))
    events = whole.events.filter(pl.col("item_id").is_in(most.implode()))
    return Study(
        Dataset.from_tables(items, events),
        LedgeredLLM(engine, ledger),
        CachedEncoder(MiniLMEncoder(), ledger),
        workspace,
        labels.filter(pl.col("item_id").is_in(most.implode())),
        recorded=Knowledge({"label": recorded.filter(pl.col("entity").is_in(most.implode()))}),
        attributes=tuple(load_attributes(ATTRIBUTES)[:2]),
        settings={"items": "28"},
    )


@pytest.mark.slow
def test_every_annotator_and_every_control_is_judged_on_the_same_held_out_items(sample: Path, tmp_path: Path) -> None:
    engine = LlamaEngine(threads=1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        study = study_of(sample, tmp_path, ledger, engine)
        report = load("annotators")(study)
        spent = study.llm.spent
        again = study_of(sample, tmp_path, ledger, engine)
        assert rows(load("annotators")(again)) == rows(report)
        assert (again.llm.spent.calls, again.llm.spent.cached) == (0, spent.calls)
    engine.close()
    assert spent.calls > 0
    sources = {row["source"] for row in report.tables[0].rows}
    model = engine.model
    assert sources >= {f"{model}, asked here", f"student of {model}, asked here", "sentence vector, zero-shot"}
    assert sources >= {"student of permuted labels", "student of noise labels"}
    by_attribute: dict[str, set[int]] = {}
    for row in report.tables[1].rows:
        by_attribute.setdefault(str(row["attribute"]), set()).add(int(row["n"]))
        assert row["auc"] is None or 0 <= row["auc"] <= 1 or row["auc"] != row["auc"]
    assert all(len(counts) == 1 for counts in by_attribute.values())  # the same items for all
    assert all(0 < n < 28 for counts in by_attribute.values() for n in counts)  # the dev half is not among them
    assert f"{spent.tokens_in + spent.tokens_out:,} tokens" in report.verdict[1]


def test_without_peoples_labels_it_says_so(sample: Path, tmp_path: Path) -> None:
    engine = LlamaEngine(threads=1)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        study = study_of(sample, tmp_path, ledger, engine)
        with pytest.raises(InputError, match="needs people's labels"):
            load("annotators")(Study(study.dataset, study.llm, study.encoder, tmp_path))
    engine.close()


def rows(report: Report) -> list[str]:
    return [repr(dict(row)) for table in report.tables for row in table.rows]
