"""The recipe on made-up people, written about by a random model of 30,000 weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra `torch-lm`")
sys.path.insert(0, str(Path(__file__).parents[1] / "knowledge"))
sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))
from echo_engine import EchoEngine
from profile_data import Letters, log

from palate.experiments.study import Study
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.recipes.registry import load


@pytest.mark.slow
def test_relaxed_writing_is_held_against_strict(tmp_path, tiny_llm):
    settings = {"model": tiny_llm, "items": 6, "users": 8, "epochs": 1, "batch": 16, "cap": 3, "floor": 0.0}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        given = Study(
            log(n_users=20, n_events=12),
            LedgeredLLM(EchoEngine(tmp_path / "asked"), ledger),
            Letters(),  # type: ignore[arg-type]
            tmp_path,
            seeds=2,
            settings={name: str(value) for name, value in settings.items()},
        )
        report = load("dare")(given)
        again = load("dare")(given)
    tables = {table.title: {row["mode"]: row for row in table.rows} for table in report.tables[:2]}
    writing = tables["Writing"]
    assert writing["strict"]["not the likeliest %"] == 0
    assert writing["relaxed"]["answers"] == writing["strict"]["answers"] == 14
    assert writing["relaxed"]["tokens a pass"] >= 1
    assert set(tables["Texts"]) == {"strict", "relaxed"}
    assert report.verdict[0].startswith("Relaxed writing")
    assert again.verdict == report.verdict  # every answer came from the ledger
