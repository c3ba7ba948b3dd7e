"""The proof in small: every policy lives, every claim is answered, and what hangs on an assumption is said."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import TIMESTAMP, Dataset
from palate.errors import InputError
from palate.experiments.study import Study
from palate.experiments.worlds.lineup import EXPLORERS, LLM, NAMES
from palate.experiments.worlds.proof import ASSUMPTIONS, flips, mean_of
from palate.experiments.worlds.proof_report import flips_by_chance, flips_said, sensitivity_rows
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound
from palate.recipes.registry import load

SMALL = {
    "people": 20,
    "items": 100,
    "days": 7,
    "synthetic": 1,
    "sweep": "false",
    "every": 7,
    "steps": 3,
    "least": 5,
}


def data(n_users=60) -> Dataset:
    rng = np.random.default_rng(0)
    items = pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(120)], "title": [f"c{i % 12}" for i in range(120)], "text": ""}
    )
    items = items.with_columns(categories=pl.Series([[f"c{i % 12}"] for i in range(120)]))
    rows = [
        (f"u{u}", f"i{(u + rng.integers(4)) % 12 + 12 * rng.integers(10)}", 3600 * n)
        for u in range(n_users)
        for n in range(8)
    ]
    users, taken, times = zip(*rows, strict=True)
    stamps = pl.Series(np.array(times, dtype=np.int64) * 1_000_000).cast(TIMESTAMP)
    events = pl.DataFrame({"user_id": list(users), "item_id": list(taken), "timestamp": stamps})
    return Dataset.from_tables(items, events.with_columns(event_type=pl.lit("event"), value=pl.lit(None, pl.Float32)))


class Fan:
    """In place of a language model: enjoys an offer that is named like something the person likes."""

    name, model = "fan", "fan-1"

    def close(self):
        pass

    def bound(self, request):
        return Bound(10, 0.0)

    def ask(self, work):
        while taken := work.take(64):
            answers = []
            for number, request in taken:
                likes, _, offer, _ = request.messages[1].text.splitlines()
                liked = offer.removeprefix("Offer: ") in likes.removeprefix("The person likes: ").rstrip(".").split(
                    ", "
                )
                answers.append((number, Answer("enjoy" if liked else "skip", model=self.model, engine=self.name)))
            yield answers


def study(tmp_path, seeds=2, llm=None, **settings) -> Study:
    given = {name: str(value) for name, value in (SMALL | settings).items()}
    return Study(data(), llm, None, tmp_path, seeds=seeds, settings=given)


@pytest.mark.slow
def test_every_policy_is_compared(tmp_path):
    pytest.importorskip("torch", reason="needs the extra `train`")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        report = load("proof")(study(tmp_path, llm=LedgeredLLM(Fan(), ledger), synthetic=0, played=10))
    tables = {table.title: table.rows for table in report.tables}
    rows = tables["The comparison"]
    assert [(row["world"], row["policy"]) for row in rows] == [("fitted to the data", policy) for policy in NAMES]
    assert all(0 <= row["quality"] <= 1 and row["novelty_low"] <= row["novelty"] <= row["novelty_high"] for row in rows)
    assert {row["N"] for row in tables["People who took something of N interests in the last week (UCI@N)"]} >= {5, 200}
    assert "The fitted world beside the log" in tables
    played = {row["policy"]: row for row in tables["People played by the language model"]}
    assert played["content"]["satisfied, language model"] > 1.5 * played["random"]["satisfied, language model"] > 0
    assert all(row["failed"] == 0 < row["questions"] for row in played.values())
    said = " ".join(report.verdict)
    assert "played by the language model" in said
    assert all(word in said for word in ("novelty", "quality", "returned", "UCI@N", "hierarchical bandit"))
    assert "stands in for a language model" in " ".join(report.notes)
    assert {chart.title for chart in report.charts} >= {"Novelty and quality", "UCI@N", "Satisfied consumption by week"}


def made_up(signs):
    """Figures in which LLM exploration is above or below the others by a sign for each value of an assumption."""
    found = {}
    for each in ASSUMPTIONS:
        for value, sign in zip(each.values, signs if each.field == "satiation" else (1, 1, 1), strict=True):
            for policy in ("content", *EXPLORERS):
                base = 100 + (5 * sign if policy == LLM else 0)
                runs = [
                    dict.fromkeys(("quality", "satisfied", "returned", "discovered"), base + s) for s in (0.0, 1.0, 2.0)
                ]
                found[f"{each.name} {value:g}", policy] = runs
    return found


def test_an_order_that_turns_round_is_said_with_its_assumption():
    turned = flips(made_up((1, 0, -1)))
    assert {flip.assumption for flip in turned} == {"satiation"}
    assert {flip.winner for flip in turned} | {flip.loser for flip in turned} >= {LLM, "count table"}
    assert "satiation" in flips_said(turned, 18)
    assert flips(made_up((1, 1, 1))) == []
    assert "No two policies" in flips_said([], 18)
    assert flips_by_chance(5) == pytest.approx(6 * 6 * 4 * 10 * 0.025**2)
    rows = sensitivity_rows(made_up((1, 0, -1)), "content")
    assert [row["best by satisfied"] == LLM for row in rows if row["assumption"] == "satiation"][0::2] == [True, False]


def test_means_have_students_interval():
    found = mean_of([1.0, 2.0, 3.0])
    assert (found.mean, found.high) == (2.0, pytest.approx(2 + 4.302652729911275 / np.sqrt(3)))
    assert np.isnan(mean_of([1.0]).low)


def test_what_cannot_be_set_is_named(tmp_path):
    with pytest.raises(InputError, match="people"):
        load("proof")(study(tmp_path, people=1))
    with pytest.raises(InputError, match="no names to ask"):
        load("proof")(study(tmp_path, fitted="false", table="asked"))
    with pytest.raises(InputError, match=r"(?s)no titles.*--set played"):
        load("proof")(study(tmp_path, fitted="false", played=5))
    with pytest.raises(InputError, match=r"(?s)two people.*--set played"):
        load("proof")(study(tmp_path, played=1))
