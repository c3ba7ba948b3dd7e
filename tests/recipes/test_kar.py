"""The recipe on made-up people whose taste nobody's events tell, but the recorded answers do."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch", reason="needs the extra `train`")
sys.path.insert(0, str(Path(__file__).parents[1] / "knowledge"))
from profile_data import Echo, Letters, dataset

from palate.errors import InputError
from palate.experiments.controls import Arm
from palate.experiments.kar_study import KarSettings, KarStudy
from palate.experiments.study import Study
from palate.knowledge.store import in_schema
from palate.knowledge.tables import Knowledge
from palate.models.ranking.ranker import Ranker
from palate.recipes.registry import load

KINDS, START = ("war", "sea", "love"), datetime(2024, 1, 1, tzinfo=UTC)
N_USERS, N_ITEMS = 150, 90


def taste(number: int) -> str:
    return KINDS[number % 3]


def people(clock: bool = True, valued: bool = True):
    """Each likes the items of one kind; two early events that say nothing of it, then twelve."""
    rng, rows = np.random.default_rng(0), []
    start = START if clock else datetime(1970, 1, 1, tzinfo=UTC)
    for user in range(N_USERS):
        for step in range(14):
            item = int(rng.integers(N_ITEMS))
            if not valued and step > 1:  # what is taken is liked
                item = item // 3 * 3 + user % 3
            value = 3.0 if step < 2 else 5.0 if taste(item) == taste(user) else 1.0
            rows.append(
                (f"u{user}", f"i{item}", start + timedelta(hours=20 * user * clock + step), value if valued else None)
            )
    return dataset(rows, N_ITEMS)


def answers(data) -> Knowledge:
    """What another model is said to know: the kind of each item and of each person."""
    facts = pl.DataFrame({"entity": [f"i{k}" for k in range(N_ITEMS)], "text": [taste(k) for k in range(N_ITEMS)]})
    packed = data.histories
    times = packed.times[np.minimum(packed.offsets[:-1], len(packed.times) - 1)]
    profiles = pl.DataFrame({"entity": data.user_ids, "text": [taste(int(u[1:])) for u in data.user_ids]})
    profiles = profiles.with_columns(pl.Series("as_of", times).cast(pl.Datetime("us", "UTC")))
    tables = {"fact": facts, "profile": profiles}
    return Knowledge({kind: in_schema(kind, t.with_columns(model=pl.lit("oracle"))) for kind, t in tables.items()})


def study(folder: Path, data=None, seeds: int = 2, **settings) -> Study:
    data = people() if data is None else data
    given = {"backbones": "deepfm", "cap": 2, "epochs": 4, "batch": 32, "items": N_ITEMS, "adapter": "mlp"} | settings
    return Study(
        data,
        Echo(),  # type: ignore[arg-type]
        Letters(),
        folder,
        recorded=answers(data),
        seeds=seeds,
        settings={name: str(value) for name, value in given.items()},
    )


@pytest.mark.slow
def test_knowledge_that_is_some_survives_and_chatter_does_not(tmp_path, monkeypatch):
    given = study(tmp_path, seeds=2, adapter="similarity")
    report = load("kar")(given)
    tables = {table.title: table.rows for table in report.tables}
    means = {row["arm"]: row for row in tables["Mean of 1 backbones"]}
    assert means["recorded answers"]["auc"] > max(means[name]["auc"] for name in ("off", "noise")) + 0.05
    assert means["echo-1"]["tokens"] > 0
    assert means["echo-1"]["LLM seconds"] > 0
    assert means["recorded answers"]["tokens"] is None
    (row,) = tables["AUC by backbone"]
    assert row["recorded answers: survives"]
    assert not row["echo-1: survives"]
    assert "echo-1 does not beat" in report.verdict[0]
    assert "recorded answers beats every control" in report.verdict[-1]
    assert {r["slice"] for r in tables["By slice, mean of the backbones"]} >= {"users without a training row"}

    def no_training(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(Ranker, "fit", no_training)
    assert load("kar")(given).verdict == report.verdict  # a run that was cut off loses nothing that it trained


def test_samples_come_after_what_profiles_know(tmp_path):
    for settings in ({}, {"split": "user"}, {"cap": 5}):
        work = KarStudy(study(tmp_path, **settings), KarSettings.of(study(tmp_path, **settings)))
        samples, versions = work.samples, work.arms.versions
        assert (versions.at(samples.users, samples.times) >= 0).all()  # each is older than the row that it is read in
        last = dict(zip(versions.owners.tolist(), versions.since.tolist(), strict=True))
        assert (samples.times > np.array([last[user] for user in samples.users.tolist()])).all()
        assert {*samples.part.tolist()} == {0, 1, 2}
    held = KarStudy(study(tmp_path, split="user"), KarSettings(split="user", cap=2)).samples
    assert not set(held.train.users.tolist()) & set(held.test.users.tolist())


def test_an_arm_without_knowledge_is_zeros_and_the_same_everywhere(tmp_path):
    given = study(tmp_path, items=30)
    arms = KarStudy(given, KarSettings.of(given)).arms
    recorded, own = arms.knowledge()
    assert arms.asked.sum() == 30
    for arm in (recorded, own, arms.raw()):
        assert arm.item is not None
        assert not arm.item[~arms.asked].any()


def test_shared_codes_are_reported(tmp_path):
    given = study(tmp_path, adapter="discrete")
    work = KarStudy(given, KarSettings.of(given))
    rows = work.collisions(work.arms.knowledge())
    found = {(row["knowledge"], row["of"]): row for row in rows}
    assert found["recorded answers", "users"]["codes"] == 3  # three tastes in all
    assert found["recorded answers", "users"]["share"] == 1.0
    assert found["echo-1", "items"]["share"] < 1.0


@pytest.mark.parametrize("extraction", ["collective", "streaming"])
def test_other_extractions(tmp_path, extraction):
    settings = {"extraction": extraction, "clusters": 4, "updates": 1, "sources": "asked"}
    data = people(clock=extraction == "streaming", valued=extraction == "streaming")
    given = study(tmp_path, data, **settings)
    work = KarStudy(given, KarSettings.of(given))
    (arm,) = work.arms.knowledge()
    assert isinstance(arm, Arm)
    assert arm.user is not None
    assert arm.item is not None
    assert len(arm.user) == len(work.arms.versions.owners)
    if extraction == "collective":
        assert len({r.entity for r in given.llm.asked if "cluster" in r.entity}) == 8  # type: ignore[attr-defined]
        assert arm.user.any(axis=1).all()


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(InputError, match="no such backbone"):
        load("kar")(study(tmp_path, backbones="transformer"))
    with pytest.raises(InputError, match="backbone") as error:
        load("kar")(study(tmp_path, backbone="din"))
    assert "Did you mean 'backbones'" in str(error.value)
    bare = replace(study(tmp_path, sources="recorded"), recorded=Knowledge())
    with pytest.raises(InputError, match="no recorded answers"):
        load("kar")(bare)
    short = people()
    short = short.with_events(short.events.filter(pl.col("user_id") == "u0").head(4))
    with pytest.raises(InputError, match="few"):
        load("kar")(study(tmp_path, short))
