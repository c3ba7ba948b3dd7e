"""Runs that are mapped over: the same whoever maps, and not run twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.lineup import Trial, try_out
from palate.experiments.worlds.sweep import spread_over, sweep

CONFIG = WorldConfig(people=60, items=120, interests=16, themes=4, dimensions=6, places=8)
TRIALS = [Trial("w", CONFIG, 0, 7, policy, ranker="content") for policy in ("random", "content", "LLM exploration")]


@pytest.fixture(scope="module")
def alone():
    return [figures for _, figures in sweep(TRIALS)]


def test_trials_do_not_depend_on_each_other(alone):
    assert [try_out(trial) for trial in reversed(TRIALS)][::-1] == alone
    assert alone[0]["uci@5"] >= alone[0]["uci@10"]
    assert alone[0]["satisfied_week@1"] == alone[0]["satisfied"]


def test_what_was_run_is_kept_even_after_a_kill(alone, tmp_path):
    kept, asked = tmp_path / "kept" / "runs.jsonl", []

    def counted(run, trials):
        trials = list(trials)
        asked.append(len(trials))
        return map(run, trials)

    assert [figures for _, figures in sweep(TRIALS[:2], counted, kept)] == alone[:2]
    kept.write_text(kept.read_text() + '{"key": "half')  # cut off while it was written
    assert [figures for _, figures in sweep(TRIALS, counted, kept)] == alone
    other = [Trial("w", CONFIG.model_copy(update={"satiation": 0.5}), 0, 7, "random")]
    list(sweep(other, counted, kept))
    list(sweep([replace(TRIALS[0], world="by another name"), *TRIALS], counted))
    assert asked == [2, 1, 1, 3]
    whole = [line for line in kept.read_text().splitlines() if line != '{"key": "half']
    assert len({json.loads(line)["key"] for line in whole}) == 4


def test_progress_counts_all(tmp_path):
    said = []
    list(sweep(TRIALS[:1], progress=lambda done, total: said.append((done, total))))
    assert said == [(1, 1)]


def test_local_processes_map():
    with spread_over() as over:
        assert over is map
    with spread_over(processes=2) as over:
        assert list(over(abs, [-1, 2])) == [1, 2]
