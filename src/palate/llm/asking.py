"""`LedgeredLLM`: an engine behind the two batch verbs, a ledger around it. Nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from palate.data.dataset import FloatArray
from palate.errors import BudgetError
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Engine, Request
from palate.llm.structured import checked, repair

Progress = Callable[[int, int], None]  # done, total


@dataclass
class Spent:
    """What this process asked: `calls` reached the engine, `cached` were answered by the ledger."""

    calls: int = 0
    cached: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    def add(self, answer: Answer) -> None:
        self.calls += 1
        self.failed += answer.error is not None
        self.tokens_in += answer.tokens_in
        self.tokens_cached += answer.tokens_cached
        self.tokens_out += answer.tokens_out
        self.seconds += answer.seconds
        self.cost += answer.cost


class LedgeredLLM:
    """The `LLM` that callers see.

    Args:
        engine: Reaches the model.
        ledger: Keeps each answer, committed before it is returned.
        max_calls: No more than this many calls reach the engine in the life of this object.
        on_progress: Called with (done, total) of the running batch.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        max_calls: int | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self.max_calls = max_calls
        self.on_progress = on_progress
        self.spent = Spent()

    @property
    def model(self) -> str:
        return self.engine.model

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of `requests`; a failed one carries `error`.

        Raises:
            BudgetError: before the first call that would exceed `max_calls`; earlier answers are kept.
            EngineError: if the engine cannot be reached at all.
        """
        answers = self._ask(requests)
        broken = [
            i
            for i, (request, answer) in enumerate(zip(requests, answers, strict=True))
            if answer.error is not None and answer.text and (request.schema or request.trie)
        ]
        if broken:
            repaired = self._ask([repair(requests[i], answers[i]) for i in broken])
            for i, answer in zip(broken, repaired, strict=True):
                answers[i] = answer
        return answers

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> FloatArray:
        """Probabilities over `options`, [n_requests, n_options]; a failed row is NaN."""
        answers = self._ask([replace(request, options=tuple(options)) for request in requests])
        result = np.full((len(requests), len(options)), np.nan, dtype=np.float32)
        for row, answer in enumerate(answers):
            if answer.probabilities is not None:
                result[row] = answer.probabilities
        return result

    def _ask(self, requests: Sequence[Request]) -> list[Answer]:
        keys = [request.key(self.model) for request in requests]
        answers = self.ledger.get(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
        self.spent.cached += len(requests) - len(missing)
        self._check_budget(len(missing))
        done = len(requests) - len(missing)
        self._report(done, len(requests))
        waiting = list(missing.items())
        for index, raw in self.engine.ask([request for _, request in waiting]):
            key, request = waiting[index]
            answer = checked(request, raw)
            self.spent.add(answer)
            if answer.error is None:
                self.ledger.put(key, request, answer)
            else:
                self.ledger.fail(key, request, self.model, answer.error)
            answers[key] = answer
            done += 1
            self._report(done, len(requests))
        unanswered = Answer(error="the engine gave no answer")
        return [answers.get(key, unanswered) for key in keys]

    def _check_budget(self, calls: int) -> None:
        if self.max_calls is not None and self.spent.calls + calls > self.max_calls:
            raise BudgetError(
                "The run would make more LLM calls than its budget.",
                got=f"{self.spent.calls} made, {calls} more wanted",
                allowed=f"{self.max_calls} calls",
                hint="Raise the budget or ask about fewer items; answers already kept are not asked again.",
            )

    def _report(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)
