"""The recipe on made-up people who like some kinds of films and not others, which the last few events do not tell."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")

from palate.data.chosen import NONE
from palate.data.dataset import TIMESTAMP, Dataset
from palate.errors import InputError
from palate.experiments.rella_llm import requests
from palate.experiments.rella_study import FORMS, RANDOM, RECENT, RETRIEVED, RellaSettings, RellaStudy
from palate.experiments.study import Report, Study
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.llm.request import Answer
from palate.models.ranking.ranker import Ranker
from palate.recipes.registry import load

START, N_KINDS, N_ITEMS, N_USERS, N_EVENTS = datetime(2024, 1, 1, tzinfo=UTC), 6, 60, 50, 60


def people(valued: bool = True) -> Dataset:
    """User `u` likes three of the six kinds; a film's kind is its number modulo six."""
    rng, rows = np.random.default_rng(0), []
    liked = [set(rng.permutation(N_KINDS)[:3].tolist()) for _ in range(N_USERS)]
    for step in range(N_EVENTS):
        for user in range(N_USERS):
            item = int(rng.integers(N_ITEMS))
            value = (5.0 if item % N_KINDS in liked[user] else 1.0) if valued else None
            rows.append((f"u{user}", f"i{item}", START + timedelta(hours=step, seconds=user), value))
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(N_ITEMS)], "title": [f"Film {i}" for i in range(N_ITEMS)]})
    items = items.with_columns(
        text=pl.lit(None, pl.String), categories=pl.Series([[f"kind {i % N_KINDS}"] for i in range(N_ITEMS)])
    )
    users, ids, times, values = (list(column) for column in zip(*rows, strict=True))
    events = pl.DataFrame({"user_id": users, "item_id": ids, "timestamp": pl.Series(times).cast(TIMESTAMP)})
    value = pl.Series("value", values, dtype=pl.Float32)
    return Dataset.from_tables(items, events.with_columns(value, event_type=pl.lit(None, pl.String)))


class Kinds:
    """Vectors by the kind."""

    name, width = "kinds", N_KINDS

    def encode(self, texts):
        return np.eye(N_KINDS, dtype=np.float32)[[int(re.findall(r"\d+", text)[0]) % N_KINDS for text in texts]]


class Attentive:
    """Reads the list, and says yes as far as the films of the target's kind were liked."""

    name = "attentive"
    model = "attentive-1"

    def __init__(self) -> None:
        self.asked = 0

    def bound(self, request):
        from palate.llm.prices import Prices, bound_of

        return bound_of(request, Prices())

    def ask(self, work):
        while taken := work.take(16):
            self.asked += len(taken)
            yield [(number, self._answer(request.messages[-1].text)) for number, request in taken]

    def _answer(self, text: str) -> Answer:
        target = int(re.findall(r"\*\*\*Film (\d+)\*\*\*", text)[0]) % N_KINDS
        met = [(int(film) % N_KINDS, float(stars)) for film, stars in re.findall(r"Film (\d+) \((\d) stars\)", text)]
        own = [stars for kind, stars in met if kind == target]
        yes = 0.1 + 0.8 * (np.mean(own) - 1) / 4 if own else 0.5
        return Answer(
            "Yes", probabilities=(yes, 1 - yes), model=self.model, engine=self.name, tokens_in=90, tokens_out=1
        )

    def close(self) -> None: ...


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def study(folder: Path, ledger: Ledger, engine, data: Dataset | None = None, seeds: int = 1, **settings) -> Study:
    given = {"k": 3, "pairs": 120, "tune": 8, "looked": 8, "minutes": 0, "ctr_epochs": 6, "batch": 128} | settings
    return Study(
        people() if data is None else data,
        LedgeredLLM(engine, ledger),
        Kinds(),
        folder,
        seeds=seeds,
        settings={name: str(value) for name, value in given.items()},
    )


def table(report: Report, title: str) -> dict[str, dict]:
    return {row["arm"]: row for found in report.tables if title in found.title for row in found.rows}


@pytest.mark.slow
def test_what_only_similar_events_tell_is_found_by_retrieving_them(tmp_path, ledger, monkeypatch):
    engine = Attentive()
    given = study(tmp_path, ledger, engine)
    report = load("rella")(given)
    asked, din = table(report, "asked about"), table(report, "all ")
    assert asked["LLM as it is, retrieved"]["auc"] == 1.0  # three films of the kind: they say all
    for arm in (RECENT, RANDOM):
        assert 0.55 < asked[f"LLM as it is, {arm}"]["auc"] < 0.9
        assert asked[f"LLM as it is, {arm}"]["tokens"] == 120 * 91
    assert asked["LLM as it is, retrieved"]["log_loss"] < asked["LLM as it is, recent"]["log_loss"]
    assert din["DIN, retrieved"]["auc"] > max(din[f"DIN, {arm}"]["auc"] for arm in (RECENT, RANDOM)) + 0.1
    assert din["DIN, same categories"]["auc"] == pytest.approx(din["DIN, retrieved"]["auc"])
    assert any(
        line.startswith("LLM as it is, retrieved beats LLM as it is, recent: AUC +0.") for line in report.verdict
    )
    assert report.notes == ["No tuned LLM: minutes=0."]
    facts = {row["what"]: row["n"] for found in report.tables if found.title == "Facts" for row in found.rows}
    assert facts["categories in the retrieved"] == 1.0
    assert facts["share of the retrieved that are recent"] < 0.3

    def no_training(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Ranker, "fit", no_training)
    before = engine.asked
    assert load("rella")(given).verdict == report.verdict  # a run that was cut off loses nothing
    assert engine.asked == before == 3 * 120


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # transformers warns about itself
def test_a_local_model_is_tuned_on_each_form_and_on_both(tmp_path, ledger, tiny_llm):
    pytest.importorskip("transformers", reason="needs the extra `torch-lm`")
    pytest.importorskip("peft", reason="needs the extra `torch-lm`")
    pytest.importorskip("gguf", reason="needs the extra `torch-lm`")
    from palate.llm.engines.torch_lm import TorchEngine

    given = study(tmp_path, ledger, TorchEngine(tiny_llm), local=tiny_llm, minutes=5, pairs=12, ctr_epochs=1)
    report = load("rella")(given)
    rows = table(report, "asked about")
    assert {f"LLM tuned on {name}" for name in (*FORMS, "both")} < set(rows)
    assert all(row["failed"] == 0 for name, row in rows.items() if name.startswith("LLM"))
    assert len([note for note in report.notes if note.startswith("Tuned on")]) == 4
    assert "Tuned on both: 16 examples" in " ".join(report.notes)
    assert "Tuned on recent: 8 examples" in " ".join(report.notes)
    (curve,) = [chart for chart in report.charts if chart.title.startswith("Validation")]
    last = {row["tuned on"]: row["step"] for row in curve.rows}
    assert last == dict.fromkeys((*FORMS, "both"), 4)  # as many steps on one form as on both
    assert all(0 <= row["auc"] <= 1 for row in curve.rows)


def test_nothing_of_the_moment_or_later_is_asked_about_or_learned_from(tmp_path, ledger):
    for data in (people(), people(valued=False)):
        given = study(tmp_path, ledger, Attentive(), data)
        work = RellaStudy(given, RellaSettings.of(given))
        packed = data.histories
        for form in FORMS:
            chosen = work.forms[form]
            kept = chosen.places != NONE
            assert kept.all()
            assert (packed.times[chosen.places] < chosen.times[:, None]).all()
        assert (work.samples.ends - work.samples.starts >= 20).all()
        assert work.samples.part[work.test].tolist() == [2] * 120
        assert set(work.samples.part[work.tuning].tolist()) == {0}
        assert set(work.samples.part[work.looked].tolist()) == {1}


def test_questions_show_the_events_that_were_chosen(tmp_path, ledger):
    given = study(tmp_path, ledger, Attentive())
    work = RellaStudy(given, RellaSettings.of(given))
    rows = work.test[:4]
    chosen = work.forms[RETRIEVED].take(rows)
    for row, request in enumerate(requests(work, RETRIEVED, rows)):
        shown = [int(film) for film in re.findall(r"\d\. Film (\d+) \(", request.messages[-1].text)]
        assert shown == given.dataset.histories.items[chosen.places[row]].tolist()
        assert {film % N_KINDS for film in shown} == {chosen.items[row] % N_KINDS}
        assert request.entity == f"u{chosen.users[row]}|i{chosen.items[row]}"


def test_what_cannot_be_compared_is_said(tmp_path, ledger):
    with pytest.raises(InputError, match="Too few rows have a history") as error:
        load("rella")(study(tmp_path, ledger, Attentive(), least=500))
    assert "lower --set least" in str(error.value)
    with pytest.raises(InputError, match="field k"):
        load("rella")(study(tmp_path, ledger, Attentive(), k=0))
    with pytest.raises(InputError, match="no such tuning"):
        load("rella")(study(tmp_path, ledger, Attentive(), tunings="both,newest"))
    with pytest.raises(InputError, match="Did you mean 'pairs'"):
        load("rella")(study(tmp_path, ledger, Attentive(), pair=5))


def test_an_answer_that_failed_speaks_for_neither(tmp_path, ledger):
    class Mute(Attentive):
        model = "mute"

        def _answer(self, text: str) -> Answer:
            return replace(super()._answer(text), probabilities=None, error="no answer")

    from palate.experiments.rella_llm import zero_shot

    given = study(tmp_path, ledger, Mute(), pairs=5)
    work = RellaStudy(given, RellaSettings.of(given))
    for asked in zero_shot(work).values():
        assert asked.failed == 5
        assert asked.chances.tolist() == [0.5] * 5
