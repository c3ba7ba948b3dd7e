"""The language model of an exploration study: untuned, tuned on either curation, and tuned on shuffled names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from palate.data.dataset import FloatArray
from palate.experiments.explore_measures import found_interest
from palate.experiments.explore_study import ExploreStudy
from palate.interests.meetings import Meetings, at_random, balanced
from palate.interests.next_llm import TrieNextInterest, examples, free
from palate.llm.request import Answer, ListedWork, Request

if TYPE_CHECKING:
    from palate.llm.engines.torch_lm import TorchEngine
    from palate.models.finetune import Tuned

UNTUNED, TUNED = "untuned LLM", "LLM, balanced curation"
RANDOM, PERMUTED = "LLM, random curation", "LLM, shuffled names"
_RATED, _RATED_UNTUNED = 200, 40  # pairs that the free match rate is measured on: an untuned model rambles
_LOOKED = 32  # meetings of each kind that a look during tuning measures
_LOOKS = 6
_RATE = 1.5e-3  # of learning: steps are dear on a processor, and names must first be learnt by heart
K = 3  # of the recall while tuning


@dataclass(frozen=True)
class Taught:
    """What one model says: `scores` of every pair of the study, and how its free answers fare."""

    name: str
    seed: int
    scores: FloatArray  # [pairs, n_interests]
    match_rate: float
    strays: tuple[str, ...]  # free answers that are no interest
    tuned: Tuned | None = None


def ask_all(work: ExploreStudy) -> list[Taught]:
    """Every model on every pair; without torch or time, what there is and a note."""
    missing = [package for package in ("torch", "transformers", "peft", "gguf") if find_spec(package) is None]
    if missing:
        work.notes.append(f"No language model: {', '.join(missing)} missing (pip install 'palate[torch-lm]').")
        return []
    from palate.llm.engines.torch_lm import TorchEngine

    settings = work.settings
    found = [_answers(work, TorchEngine(settings.local), UNTUNED, 0, work.names)]
    if not settings.minutes:
        work.notes.append("No tuned LLM: the settings give it no time (minutes=0).")
        return found
    curated = balanced(work.train, settings.per_label)
    plan: list[tuple[str, int, Meetings, list[str]]] = [
        (TUNED, seed, curated, work.names) for seed in range(settings.llm_seeds)
    ]
    plan.append((RANDOM, 0, at_random(work.train, len(curated), 0), work.names))
    shuffled = np.random.default_rng(0).permutation(len(work.names))
    plan.append((PERMUTED, 0, curated, [work.names[i] for i in shuffled]))
    work.notes.append(
        f"Tuned {settings.llm_seeds} times on balanced curation, once on random curation and once on shuffled names, "
        f"each for at most {settings.minutes / len(plan):.1f} minutes; item models with {work.study.seeds} seeds."
    )
    for done, (name, seed, meetings, names) in enumerate(plan):
        work.study.progress("tuning", done, len(plan))
        tuned = _tune(work, name, seed, meetings, names, 60 * settings.minutes / len(plan))
        found.append(_answers(work, TorchEngine(settings.local, adapter=tuned.folder), name, seed, names, tuned))
    work.study.progress("tuning", len(plan), len(plan))
    return found


def _tune(work: ExploreStudy, name: str, seed: int, meetings: Meetings, names: list[str], seconds: float) -> Tuned:
    from palate.llm.engines.torch_lm import TorchEngine
    from palate.models.finetune import Example, FinetuneConfig, finetune

    held = work.validation.meetings
    train = [Example(*pair) for pair in examples(meetings.pair, meetings.label, names)]
    validation = [Example(*pair) for pair in examples(held.pair, held.label, names)][:64]
    config = FinetuneConfig(
        epochs=work.settings.epochs, minutes=seconds / 60, learning_rate=_RATE, seed=seed, patience=_LOOKS
    )
    steps = config.epochs * -(-len(train) // config.batch)
    config = config.model_copy(update={"judge_every": max(1, -(-steps // _LOOKS))})
    folder = work.study.workspace / "tuning" / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    report = work.study.progress
    engine = TorchEngine(work.settings.local)
    read = sum(len(engine.prompt_tokens(e.request)) + len(engine.answer_tokens(e.answer)) for e in train)
    tuned = finetune(
        engine,
        train,
        validation,
        folder,
        config,
        lambda what, done, total, _: report(f"{what} {name}", done, total),
        # The curve is of one model: looking costs time that tuning needs.
        (lambda engine: _looked(work, engine, meetings, names)) if name == TUNED and seed == 0 else None,
    )
    passes = tuned.looks[-1].step * config.batch / max(1, len(train))
    work.spent[f"tuning {name}, seed {seed}"] = (int(read * passes), tuned.seconds)
    work.notes.append(
        f"{name}, seed {seed}: tuned on {tuned.examples} examples ({tuned.too_long} too long) in "
        f"{tuned.seconds / 60:.1f} minutes, {tuned.stopped}; step {tuned.best} has the lowest validation loss."
    )
    return tuned


def _looked(work: ExploreStudy, engine: TorchEngine, meetings: Meetings, names: list[str]) -> dict[str, float]:
    """Match rate, and recall of the interest met next on examples and on held-out people."""
    rng, held = np.random.default_rng(0), work.validation
    some = meetings.part(rng.permutation(len(meetings))[:_LOOKED])
    rows = rng.permutation(len(held.meetings))[:_LOOKED]
    scorer = TrieNextInterest(engine, names)
    nothing = np.zeros((len(some), len(names)), dtype=bool)
    fitted = found_interest(scorer.scores(some.pair), nothing, some.label, K)
    outside = held.meetings.part(rows)
    recalled = found_interest(scorer.scores(outside.pair), held.known[rows], outside.label, K)
    return {
        "match_rate": free(_AsItStands(engine), outside.pair, names).match_rate,
        "recall on examples": float(fitted.mean()),
        "recall on held-out people": float(recalled.mean()),
    }


def _answers(
    work: ExploreStudy, engine: TorchEngine, name: str, seed: int, names: list[str], tuned: Tuned | None = None
) -> Taught:
    """Scores of all pairs, in parts so that progress shows, and free answers to some."""
    begun, parts = time.perf_counter(), []
    scorer = TrieNextInterest(engine, names)
    try:
        for start in range(0, len(work.pairs), 64):
            work.study.progress(f"asking {name}", start, len(work.pairs))
            parts.append(scorer.scores(work.pairs[start : start + 64]))
        work.study.progress(f"asking {name}", len(work.pairs), len(work.pairs))
        rated = work.pairs[np.random.default_rng(3).permutation(len(work.pairs))[: _RATED if tuned else _RATED_UNTUNED]]
        said = free(work.study.llm.asking(engine), rated, names)
        read = sum(len(engine.prompt_tokens(request)) for request, _ in examples(work.pairs, work.pairs[:, 0], names))
    finally:
        engine.close()
    strays = tuple(text for text, number in zip(said.texts, said.interests, strict=True) if number < 0)
    work.spent[f"asking {name}, seed {seed}"] = (read, time.perf_counter() - begun)
    return Taught(name, seed, np.concatenate(parts), said.match_rate, strays[:3], tuned)


class _AsItStands:
    """An `LLM` without a ledger: the answers of a model in training are worth keeping nowhere."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.model = engine, engine.model

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        found = dict(pair for batch in self.engine.ask(ListedWork(requests)) for pair in batch)
        return [found[number] for number in range(len(requests))]

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> FloatArray:
        raise NotImplementedError
