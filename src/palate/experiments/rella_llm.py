"""The language model of the recipe `rella`: asked as it is, and tuned on histories in one form or in both (ReiT)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from palate.data.chosen import NONE
from palate.data.dataset import FloatArray
from palate.data.samples import Places
from palate.evaluation.rating import auc
from palate.experiments.rella_study import FORMS, TUNINGS, RellaStudy
from palate.knowledge.like_prompts import YES_NO, like_request
from palate.llm.request import Answer, ListedWork, Request

if TYPE_CHECKING:
    from palate.llm.asking import LedgeredLLM
    from palate.llm.engines.torch_lm import TorchEngine
    from palate.models.finetune import Example, Look, Tuned

_LOOKS = 3  # after the one before the first step
_LOSS_ROWS = 8  # of a look's loss, which tells equal AUC apart and no more
_LONGEST = 1024  # tokens of an example
_BATCH, _STEP = 8, 4  # questions computed together; examples of a step: with so few of them, steps must be small


@dataclass(frozen=True)
class Asked:
    """Probabilities of yes, [n], and what they took, whenever that was."""

    chances: FloatArray
    tokens: int
    seconds: float
    failed: int
    tuned: Tuned | None = None


def requests(work: RellaStudy, form: str, rows: Places, purpose: str = "rella") -> list[Request]:
    """One question for each of `rows`."""
    dataset, chosen = work.study.dataset, work.forms[form].take(rows)
    titles = [str(title or "") for title in dataset.items["title"].to_list()]
    met, values = dataset.histories.items, work.values
    found = []
    for user, item, places in zip(chosen.users.tolist(), chosen.items.tolist(), chosen.places.tolist(), strict=True):
        kept = [place for place in places if place != NONE]
        history = [(titles[met[p]], None if np.isnan(values[p]) else float(values[p])) for p in kept]
        entity = f"{dataset.user_ids[user]}|{dataset.item_ids[item]}"
        chars = work.settings.title_chars
        found.append(
            like_request(history, titles[item], title_chars=chars, purpose=f"{purpose}: {form}", entity=entity)
        )
    return found


def zero_shot(work: RellaStudy) -> dict[str, Asked]:
    """The language model at hand, by form; where it is the one to be tuned, by the engine that is tuned."""
    llm, engine = work.study.llm, None
    if not _missing():
        from palate.llm.engines.torch_lm import TorchEngine

        local = TorchEngine(work.settings.local, batch_size=_BATCH)
        engine = local if local.model == llm.model else None
    try:
        asking = llm if engine is None else llm.asking(engine)
        return {form: _asked(asking, requests(work, form, work.test)) for form in FORMS}
    finally:
        if engine is not None:
            engine.close()


def tuned(work: RellaStudy) -> dict[str, Asked]:
    """A local model after each tuning; without torch or time nothing, and a note."""
    if _missing() or not work.settings.minutes:
        why = f"{', '.join(_missing())} missing (pip install 'palate[torch-lm]')" if _missing() else "minutes=0"
        work.notes.append(f"No tuned LLM: {why}.")
        return {}
    from palate.llm.engines.torch_lm import TorchEngine

    found, names = {}, work.settings.chosen
    for done, name in enumerate(names):
        work.study.progress("tuning", done, len(names))
        forms, tested = TUNINGS[name]
        learnt = _tune(work, name, forms, tested)
        engine = TorchEngine(work.settings.local, batch_size=_BATCH, adapter=learnt.folder)
        try:
            found[name] = _asked(work.study.llm.asking(engine), requests(work, tested, work.test), learnt)
        finally:
            engine.close()
    work.study.progress("tuning", len(names), len(names))
    return found


def _missing() -> list[str]:
    return [package for package in ("torch", "transformers", "peft", "gguf") if find_spec(package) is None]


def looks(found: dict[str, Asked]) -> list[dict[str, object]]:
    """Of each tuning the validation AUC by step."""
    listed: list[tuple[str, Look]] = [
        (name, look) for name, each in found.items() if each.tuned is not None for look in each.tuned.looks
    ]
    return [{"tuned on": name, "step": look.step, "auc": look.figures.get("auc")} for name, look in listed]


def _tune(work: RellaStudy, name: str, forms: Sequence[str], tested: str) -> Tuned:
    from palate.llm.engines.torch_lm import TorchEngine
    from palate.models.finetune import FinetuneConfig, finetune

    settings, report = work.settings, work.study.progress
    sides = [_examples(work, form, work.tuning) for form in forms]
    train = [example for same_row in zip(*sides, strict=True) for example in same_row]
    held, labels = requests(work, tested, work.looked), work.samples.labels[work.looked, 0]
    judged = 0 < labels.mean() < 1
    epochs = settings.epochs * max(map(len, (each for each, _ in TUNINGS.values()))) // len(forms)
    steps = epochs * -(-len(train) // _STEP)
    config = FinetuneConfig(
        epochs=epochs,
        batch=_STEP,
        learning_rate=settings.learning_rate,
        warmup=min(10, steps // 8),
        max_tokens=_LONGEST,
        judge_every=-(-steps // _LOOKS),
        patience=steps,
        minutes=settings.minutes / len(settings.chosen),
        by="auc" if judged else "loss",
    )
    learnt = finetune(
        TorchEngine(settings.local, batch_size=_BATCH),
        train,
        _examples(work, tested, work.looked[:_LOSS_ROWS] if judged else work.looked),
        work.study.workspace / "tuning" / name,
        config,
        lambda what, done, total, _: report(f"{what} {name}", done, total),
        (lambda engine: {"auc": auc(labels, _as_it_stands(engine, held))}) if judged else None,
    )
    work.notes.append(
        f"Tuned on {name}: {learnt.examples} examples ({learnt.too_long} too long) of {len(work.tuning)} rows in "
        f"{learnt.seconds / 60:.1f} minutes, {learnt.stopped}; step {learnt.best} of {learnt.looks[-1].step} is taken."
    )
    return learnt


def _examples(work: RellaStudy, form: str, rows: Places) -> list[Example]:
    from palate.models.finetune import Example

    liked = work.samples.labels[rows, 0] > 0
    pairs = zip(requests(work, form, rows), liked.tolist(), strict=True)
    return [Example(request, YES_NO[0] if yes else YES_NO[1]) for request, yes in pairs]


def _asked(llm: LedgeredLLM, questions: list[Request], learnt: Tuned | None = None) -> Asked:
    answers = llm.generate(questions)
    return Asked(
        _chances(answers),
        sum(answer.tokens_in + answer.tokens_out for answer in answers),
        sum(answer.seconds for answer in answers),
        sum(answer.probabilities is None for answer in answers),
        learnt,
    )


def _as_it_stands(engine: TorchEngine, questions: list[Request]) -> FloatArray:
    """Of a model in training, whose answers are worth keeping nowhere."""
    found = dict(pair for batch in engine.ask(ListedWork(questions)) for pair in batch)
    return _chances([found[number] for number in range(len(questions))])


def _chances(answers: Sequence[Answer]) -> FloatArray:
    """Probabilities of yes; where there is no answer, one half: it speaks for neither."""
    return np.array([0.5 if a.probabilities is None else a.probabilities[0] for a in answers], dtype=np.float32)
