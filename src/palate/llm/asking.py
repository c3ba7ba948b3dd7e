"""`LedgeredLLM`: an engine behind the two batch verbs, a ledger around it. Nothing is asked twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palate.data.dataset import FloatArray
from palate.llm.budget import Budget
from palate.llm.choice import averaged, calibrated, in_orders
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Engine, Request
from palate.llm.runner import Runner, Standing

Progress = Callable[[int, int], None]  # done, total


class LedgeredLLM:
    """The `LLM` that callers see.

    Args:
        engine: Reaches the model.
        ledger: Keeps each answer, committed before it is returned.
        budget: What all asking through this object, and other processes of the same run, may spend.
        on_progress: Called with (done, total) of the running batch.
    """

    def __init__(
        self, engine: Engine, ledger: Ledger, budget: Budget | None = None, on_progress: Progress | None = None
    ) -> None:

        def report(standing: Standing) -> None:
            if on_progress is not None:
                on_progress(standing.done, standing.total or standing.done)

        self._ledger, self._budget, self._on_progress = ledger, budget, on_progress
        self._runner = Runner(engine, ledger, budget, on_progress=report)
        self.spent = self._runner.spent

    @property
    def model(self) -> str:
        return self._runner.engine.model

    def asking(self, engine: Engine) -> LedgeredLLM:
        """Another engine around the same ledger, under the same budget: a tuned model beside the one it came from."""
        return LedgeredLLM(engine, self._ledger, self._budget, self._on_progress)

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers in the order of `requests`; a failed one carries `error`.

        Raises:
            BudgetError: The next call might pass the budget; earlier answers are kept.
            EngineError: if the engine cannot be reached at all.
        """
        return [outcome.answer for outcome in self._runner.run(requests, len(requests))]

    def choose(
        self,
        requests: Sequence[Request],
        options: Sequence[str],
        *,
        orders: int = 1,
        content_free: Sequence[Request] = (),
    ) -> FloatArray:
        """Probabilities over `options`, [n_requests, n_options]; a failed row is NaN.

        Args:
            orders: Ask with so many rotations of the options, and average (see `palate.llm.choice`).
            content_free: The same question about nothing ("N/A"): what is answered to it is divided out.
        """
        asked = in_orders([*requests, *content_free], options, orders)
        shares = averaged([answer.probabilities for answer in self.generate(asked)], len(options), orders)
        found, empty = shares[: len(requests)], shares[len(requests) :]
        return calibrated(found, empty) if content_free else found
