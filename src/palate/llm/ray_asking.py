"""`RayLLM`: the two batch verbs, what is missing in the ledger asked by the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palate.llm.asking import LedgeredLLM, Progress
from palate.llm.budget import Budget
from palate.llm.ledger import Ledger
from palate.llm.ray_run import RayRun, kept
from palate.llm.request import Answer, Engine, Request


class RayLLM(LedgeredLLM):
    """A `LedgeredLLM` whose `generate` is spread over workers; `choose` rests on it.

    Args:
        engine: Of this process: its name and model, and nothing else of it is used.
        make_engine: Makes the engine, in each worker.
        workers: How many to use at once.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        budget: Budget,
        make_engine: Callable[[], Engine],
        workers: int,
        on_progress: Progress | None = None,
    ) -> None:
        super().__init__(engine, ledger, budget, on_progress)
        self._ledger, self._told = ledger, on_progress
        self._run = RayRun(make_engine, engine.model, ledger, budget, workers)

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        known = len(self._ledger.get({request.key(self.model) for request in requests}))
        asked = self._run.ask(requests)
        for name, count in vars(asked.spent).items():
            setattr(self.spent, name, getattr(self.spent, name) + count)
        self.spent.cached += known
        if self._told is not None:
            self._told(len(requests), len(requests))
        return [outcome.answer for outcome in kept(requests, self._ledger, self.model, asked.errors)]
