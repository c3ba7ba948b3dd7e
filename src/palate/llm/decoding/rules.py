"""Which drafted tokens are accepted, and what is written where none is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class RuleConfig(BaseModel):
    """How drafts are verified.

    strict: only what the model itself would write, greedily. relaxed (DARE, arXiv 2408.05676): a token among the
    `rank` likeliest with a probability above `floor`; another text, as good for what is made of it, in fewer passes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["strict", "relaxed"] = "strict"
    rank: int = Field(default=2, ge=1, description="relaxed: places from the likeliest (DARE: 2)")
    floor: float = Field(default=0.1, ge=0, lt=1, description="relaxed: least probability (DARE: 0.1)")


class Rule(Protocol):
    """Looks at the logits [n, vocabulary] of a row's tokens: the last written one, then the drafted ones."""

    def look(self, logits: Tensor) -> None: ...

    def accepts(self, place: int, token: int) -> bool:
        """May `token` follow the token at `place`?"""
        ...

    def own(self, place: int) -> int:
        """What is written after the token at `place` where no draft is accepted."""
        ...

    def likeliest(self, place: int) -> int:
        """What greedy decoding would write there."""
        ...


class Strict:
    """The likeliest token and no other: what is written is what greedy decoding writes."""

    def look(self, logits: Tensor) -> None:
        self.best = logits.argmax(-1).tolist()

    def accepts(self, place: int, token: int) -> bool:
        return bool(self.best[place] == token)

    def own(self, place: int) -> int:
        return int(self.best[place])

    likeliest = own


class Relaxed:
    """The `rank` likeliest tokens with more than `floor`; the likeliest always."""

    def __init__(self, rank: int, floor: float) -> None:
        self.rank, self.floor = rank, floor

    def look(self, logits: Tensor) -> None:
        logits = logits.float()
        top, tokens = logits.topk(min(self.rank, logits.shape[-1]), dim=-1)
        shares = (top - logits.logsumexp(-1, keepdim=True)).exp()
        shares[:, 0] = 2.0  # the likeliest always
        allowed = (shares > self.floor).tolist()
        self.best = tokens[:, 0].tolist()
        self.allowed = [
            {token for token, ok in zip(row, flags, strict=True) if ok}
            for row, flags in zip(tokens.tolist(), allowed, strict=True)
        ]

    def accepts(self, place: int, token: int) -> bool:
        return token in self.allowed[place]

    def own(self, place: int) -> int:
        return int(self.best[place])

    likeliest = own


class Sampled:
    """Draws from the model's distribution at a temperature: lossless whatever was drafted.

    A drafted token is taken with its probability; each one refused is taken out of the distribution before the next
    is tried, and the rest is drawn from what is left (Leviathan et al. 2023, arXiv 2211.17192, with drafts that are
    certain; several children as in SpecInfer, arXiv 2305.09781).
    """

    def __init__(self, temperature: float, top_p: float | None, seed: int) -> None:
        self.temperature, self.top_p = temperature, top_p
        self._rng = np.random.default_rng(seed)

    def look(self, logits: Tensor) -> None:
        self._logits = logits
        self._left: dict[int, Any] = {}
        self._gone_on: set[int] = set()  # places after which a draft was taken: their other drafts are too late

    def accepts(self, place: int, token: int) -> bool:
        if place in self._gone_on:
            return False
        left = self._shares(place)
        total = float(left.sum())
        if total <= 0:
            return False
        if self._rng.random() < float(left[token]) / total:
            self._gone_on.add(place)
            return True
        left[token] = 0.0
        return False

    def own(self, place: int) -> int:
        left = self._shares(place)
        return int(self._rng.choice(len(left), p=left / left.sum()))

    def likeliest(self, place: int) -> int:
        return int(self._logits[place].argmax())

    def _shares(self, place: int) -> Any:
        if place not in self._left:
            shares = (self._logits[place].double() / self.temperature).softmax(-1).cpu().numpy()
            self._left[place] = _nucleus(shares, self.top_p)
        return self._left[place]


def rule_of(config: RuleConfig, temperature: float, top_p: float | None, seed: int) -> Rule:
    """Of one request: a temperature above 0 draws, and drafts change nothing about what may be drawn."""
    if temperature > 0:
        return Sampled(temperature, top_p, seed)
    return Strict() if config.mode == "strict" else Relaxed(config.rank, config.floor)


def _nucleus(shares: Any, top_p: float | None) -> Any:
    if top_p is None or top_p >= 1:
        return shares
    order = np.argsort(-shares, kind="stable")
    kept = order[: int((np.cumsum(shares[order]) < top_p).sum()) + 1]
    left = np.zeros_like(shares)
    left[kept] = shares[kept]
    return left / left.sum()
