"""LLM as annotator: are its labels as good as a person's, and does a cheap student keep them?

Paper: Long et al., "LLM-as-annotators", RecSys 2025 industry track (arXiv 2510.06657).
Claim: an LLM, asked about items' attributes, agrees with a golden set better than crowd raters (F1 81.3 against 63.2
on one attribute); a light student on item vectors carries its labels to the catalogue at slightly lower quality.
Baselines: sentence vectors without any LLM (zero-shot), and a coin (AUC 0.5).
Controls: a student of the same labels on the wrong items (permuted) and of noise. Recorded answers of another model,
where there are any, are one more annotator with a student of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.experiments.study import Chart, Report, ReportTable, Study
from palate.knowledge.agreement_report import Golden, agreement_report
from palate.knowledge.annotate import annotate, item_text
from palate.knowledge.attributes import Attribute
from palate.knowledge.controls import noise, permuted
from palate.knowledge.distil import distil
from palate.knowledge.golden_set import GoldenSplit, worth_asking
from palate.knowledge.matrix import label_matrix
from palate.knowledge.people_words import attributes_from_labels, golden_from_labels
from palate.knowledge.tables import Knowledge

ITEMS, ATTRIBUTES = 400, 12
ZERO_SHOT = "sentence vector, zero-shot"
FIGURES = ("auc", "precision", "recall", "f1", "kappa")


def annotators(study: Study) -> Report:
    """The LLM, its student, recorded answers and their student, zero-shot vectors: against people, with intervals.

    People's labels (`labels.*` of the data) are the gold: an item that somebody labelled, but not so, counts as a no.
    Thresholds are chosen on the dev half of the items, figures taken on the held-out half. Settings: `items` the LLM
    is asked about (400), half of them with a yes of somebody, so that precision and prevalence are of this sample;
    `attributes` made of the commonest labels where no YAML is given (12).
    """
    if study.labels is None:
        raise InputError("This recipe needs people's labels.", hint="Put labels.csv with item_id and label there.")
    dataset, ids = study.dataset, study.dataset.item_ids
    attributes = list(study.attributes)
    if not attributes:
        n = int(study.settings.get("attributes", ATTRIBUTES))
        attributes = attributes_from_labels(study.labels, dataset, n)
    names = [attribute.name for attribute in attributes]
    gold = golden_from_labels(study.labels, attributes)
    recorded = study.recorded.table("label").filter(pl.col("name").is_in(names))
    among = set(recorded["entity"]) or set(ids)
    wanted = worth_asking(gold, among, int(study.settings.get("items", ITEMS)))
    asked = np.array([dataset.item_nums[item_id] for item_id in wanted], dtype=np.int32)
    labels = annotate(dataset, asked, attributes, study.llm)
    vectors = study.encoder.encode([item_text(dataset, n) for n in range(len(ids))])
    tables = _tables(study, labels, recorded, vectors)
    scores = {name: label_matrix(table, ids, names) for name, table in tables.items()}
    meant = study.encoder.encode([attribute.description or attribute.question for attribute in attributes])
    scores[ZERO_SHOT] = np.asarray(vectors @ meant.T, dtype=np.float32)
    unasked = np.ones(len(ids), dtype=bool)
    unasked[asked] = False
    for matrix in scores.values():
        matrix[unasked] = np.nan  # all sources are compared on the same items
    side = GoldenSplit("annotators", 0.5)
    on_dev = pl.Series([side.is_dev(item_id) for item_id in gold["item_id"]], dtype=pl.Boolean)
    golden = Golden(gold.filter(on_dev), gold.filter(~on_dev))
    found = agreement_report(golden, scores, attributes, ids, similarities=[ZERO_SHOT])
    return _report(found, len(asked), attributes, study.llm.spent.tokens_in + study.llm.spent.tokens_out)


def _tables(study: Study, labels: pl.DataFrame, recorded: pl.DataFrame, vectors: FloatArray) -> dict[str, pl.DataFrame]:
    """Label rows by source: teachers, their students, and students of the controls."""
    ids, tables = study.dataset.item_ids, {}
    for name, teacher in ((f"{study.llm.model}, asked here", labels), ("recorded answers", recorded)):
        if not teacher.height:
            continue
        tables[name] = teacher
        tables[f"student of {name}"] = distil(teacher, vectors, ids)
    strongest = recorded if recorded.height else labels
    for name, control in (("permuted", permuted), ("noise", noise)):
        wrong = control(Knowledge({"label": strongest})).table("label")
        tables[f"student of {name} labels"] = distil(wrong, vectors, ids)
    return tables


def _report(found: Mapping[str, Any], items: int, attributes: list[Attribute], tokens: int) -> Report:
    rows = found["rows"]
    shown = [
        {"attribute": row["attribute"], "source": row["source"], "n": row["n"], "yes": row["positives"]}
        | {name + end: row[name + end] for name in FIGURES for end in ("", "_low", "_high")}
        for row in rows
    ]
    means = [row for row in shown if row["attribute"] == "all"]
    verdicts = [{"attribute": part["attribute"], "verdict": part["verdict"]} for part in found["attributes"]]
    return Report(
        "LLM as annotator",
        [found["verdict"], f"{items} items, {len(attributes)} attributes, {tokens:,} tokens in this run."],
        [
            ReportTable("Mean over attributes", means, "Intervals of means resample attributes."),
            ReportTable("Attribute by attribute", [row for row in shown if row["attribute"] != "all"]),
            ReportTable("Is it as good as a person?", verdicts),
        ],
        [
            Chart(
                "AUC against people, held-out items",
                "intervals",
                [r for r in shown if r["attribute"] != "all"],
                "attribute",
                "auc",
                "source",
            )
        ],
        ["A missing label is no real no: precision is understated, AUC is the figure to read."],
    )
