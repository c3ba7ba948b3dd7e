"""The runner: requests in, kept answers out. Nothing is asked twice, no answer is lost, no budget is passed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial

from palate.errors import BudgetError
from palate.llm.budget import UNLIMITED, Budget, Claims
from palate.llm.feed import POLL, Feed, Outcome, Spent, Standing
from palate.llm.ledger import Ledger
from palate.llm.request import Engine, Request

__all__ = ["Outcome", "Runner", "Spent", "Standing"]


class Runner:
    """Takes requests through ledger, budget and engine.

    Each request is looked up, claimed for this process, its bound reserved, asked, validated, repaired once if it does
    not fit, kept (committed) and only then handed out. Equal requests are asked once. A request that another process
    is asking is waited for.

    Args:
        budget: None: no limit.
        ordered: Hand out in the order of the input; otherwise as answers come.
        window: Most requests read ahead of the oldest one not handed out: bounds the memory.
        on_progress: Called after each batch.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        budget: Budget | None = None,
        *,
        ordered: bool = True,
        window: int = 10_000,
        on_progress: Callable[[Standing], None] | None = None,
    ) -> None:
        self.engine, self.ledger = engine, ledger
        self.budget = budget or Budget(UNLIMITED)
        self.spent = Spent()
        self.stopped = False
        self.ordered, self.window, self._on_progress = ordered, window, on_progress

    def stop(self) -> None:
        """Take no more; what is in flight is finished and kept. May be called from a signal handler."""
        self.stopped = True

    def run(self, requests: Iterable[Request], total: int | None = None) -> Iterator[Outcome]:
        """The outcomes of `requests`, which are read as they are needed; `total`, if known, is for the progress.

        Raises:
            BudgetError: The next call might pass the budget; what was in flight has been kept.
            EngineError: The server cannot be reached at all; what was answered has been kept.
        """
        with closing(Claims(self.ledger.path, self.budget)) as claims:
            feed = Feed(self, claims, requests, total)
            while not feed.finished():
                yield from self._pass(feed, claims)
                yield from feed.ready()
                if feed.idle and (feed.elsewhere or feed.short):
                    self._wait(feed, claims)

    def _pass(self, feed: Feed, claims: Claims) -> Iterator[Outcome]:
        """Ask until the engine has nothing in flight."""
        feed.idle = True
        batches = self.engine.ask(feed)
        try:
            for batch in batches:
                feed.idle = False
                settled = feed.settle(batch)
                if settled:
                    entries, settlements = zip(*settled, strict=True)
                    self.ledger.keep(entries, partial(claims.settle, settlements=settlements))
                    feed.hand_out(entries)
                self._report(feed)
                yield from feed.ready()
        finally:
            close = getattr(batches, "close", None)  # generators have it, plain iterators need it not
            if close is not None:
                close()
        if feed.idle:
            self._report(feed)

    def _wait(self, feed: Feed, claims: Claims) -> None:
        """Nothing could be asked: others ask what is left, or hold what is left of the budget, or it is used up."""
        if feed.short and not claims.others():
            calls, tokens, money = claims.spent()
            limits = {what: limit for what, limit in vars(self.budget).items() if what != "name" and limit is not None}
            raise BudgetError(
                "The next call might pass the budget of this run.",
                where=f"budget {self.budget.name}",
                got=f"{calls:,} calls, {tokens:,} tokens, {money:.4f} money spent; {feed.done:,} requests done",
                allowed=", ".join(f"{limit:,} {what}" for what, limit in limits.items()),
                hint="Raise the budget or ask about less; answers already kept are not asked again.",
            )
        time.sleep(POLL)

    def _report(self, feed: Feed) -> None:
        if self._on_progress is not None:
            self._on_progress(feed.standing())
