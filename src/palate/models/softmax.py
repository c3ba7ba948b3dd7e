"""Losses of states against the items that were next: softmax whole, sampled or shared, and two of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.trainer import TrainerConfig

LossKind = Literal["softmax", "full", "sampled", "shared", "bce", "bpr"]
_NOTHING = -1e30  # a logarithm of nothing that can still be subtracted


class LossConfig(TrainerConfig):
    """How a state is compared with the item that was next; how it is trained stands in `TrainerConfig`."""

    loss: LossKind = Field(
        default="softmax",
        description="full: softmax over all items met; sampled: over drawn ones; softmax: full up to `full_softmax` "
        "items, else sampled; shared: over the step's other targets; bce, bpr: `negatives_each` drawn for an event",
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="share of the target given to all items (full)")
    full_softmax: int = Field(default=50_000, ge=1, description="trained items up to which no negatives are sampled")
    negatives: int = Field(default=4096, ge=1, description="drawn for a step and shared by its events (sampled)")
    negatives_each: int = Field(default=1, ge=1, description="drawn for each event (bce, bpr; SASRec's paper: 1)")
    negative_power: float = Field(
        default=0.0, ge=0, le=1, description="items are drawn by their counts to this power; 0: evenly, 1: as met"
    )


class LogPartition(torch.autograd.Function):
    """log Σ_j exp(states · rows_j + rise_j) for each state, with the one large matrix overwritten in place.

    `hits` [2, h] are (state, row) pairs that are left out. 1.5 times as fast as `cross_entropy` with label smoothing,
    and half its memory.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, rows: Tensor, rise: Tensor | None = None, hits: Tensor | None = None
    ) -> Tensor:
        shares = (states @ rows.T).float()
        if rise is not None:
            shares.add_(rise)
        if hits is not None:
            shares[hits[0], hits[1]] = -torch.inf
        top = shares.amax(1, keepdim=True).clamp_(min=_NOTHING)
        shares.sub_(top).exp_()
        total = shares.sum(1, keepdim=True).clamp_(min=torch.finfo(shares.dtype).tiny)
        shares.div_(total)
        ctx.save_for_backward(states, rows, shares)
        return (top + total.log())[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, rows, shares = ctx.saved_tensors
        gradient = gradient[:, None]
        shares = shares.to(states.dtype)
        return gradient * (shares @ rows), shares.T @ (gradient * states), None, None


class CatalogueLoss:
    """The mean loss of states against the items that were next, among all items met in training.

    Drawn negatives are corrected by the logarithm of their chance (Bengio & Senécal 2008; Yi et al. 2019 for shared
    ones): the sum over them estimates the sum over the catalogue. The item that was next is not drawn and therefore
    not corrected, and left out where it is drawn.

    Args:
        rows: Item numbers [...] to their vectors [..., d]: an `nn.Embedding`, or anything that is called like one.
        counts: Events per item in training, [n_items].
        config: Which loss.
    """

    def __init__(self, rows: Callable[[Tensor], Tensor], counts: npt.NDArray[np.int64], config: LossConfig) -> None:
        self.rows, self.config = rows, config
        self.met = torch.from_numpy(np.flatnonzero(counts))
        met = counts[counts > 0].astype(np.float64)
        self.popularity = torch.from_numpy(np.log(counts.clip(min=1) / max(met.sum(), 1)).astype(np.float32))
        chances = met**config.negative_power / max((met**config.negative_power).sum(), 1)
        self.cumulative, self.log_chance = torch.from_numpy(chances.cumsum()), torch.from_numpy(np.log(chances)).float()
        whole = "full" if len(met) <= config.full_softmax else "sampled"
        self.kind = whole if config.loss == "softmax" else config.loss

    def __call__(self, states: Tensor, wanted: Tensor) -> Tensor:
        """`states` [n, d], `wanted` [n] item numbers."""
        if self.kind == "full":
            return self._full(states, wanted)
        if self.kind == "sampled":
            places = self._draw(self.config.negatives)
            return self._softmax(states, wanted, self.met[places], self.log_chance[places], len(places))
        if self.kind == "shared":
            return self._softmax(states, wanted, wanted, self.popularity[wanted], max(len(wanted) - 1, 1))
        return self._pairs(states, wanted)

    def to(self, device: str) -> None:
        """Move what is kept of the catalogue."""
        for name in ("met", "popularity", "cumulative", "log_chance"):
            setattr(self, name, getattr(self, name).to(device))

    def _full(self, states: Tensor, wanted: Tensor) -> Tensor:
        rows, smoothing = self.rows(self.met), self.config.label_smoothing
        goal = (1 - smoothing) * self.rows(wanted) + smoothing * rows.mean(0)
        partition: Tensor = LogPartition.apply(states, rows)  # type: ignore[no-untyped-call]
        loss: Tensor = (partition - (states * goal).sum(1)).mean()
        return loss

    def _softmax(self, states: Tensor, wanted: Tensor, drawn: Tensor, log_chance: Tensor, draws: int) -> Tensor:
        """Against `drawn` [m] items, each the outcome of one of `draws` draws with a known chance."""
        own = (states * self.rows(wanted)).sum(1)
        others: Tensor = LogPartition.apply(  # type: ignore[no-untyped-call]
            states, self.rows(drawn), -(log_chance + math.log(draws)), _equal(wanted, drawn)
        )
        return (torch.logaddexp(own, others) - own).mean()

    def _pairs(self, states: Tensor, wanted: Tensor) -> Tensor:
        drawn = self.met[self._draw(len(wanted) * self.config.negatives_each)].view(len(wanted), -1)
        own = (states * self.rows(wanted)).sum(1, keepdim=True)
        others = (self.rows(drawn) @ states[:, :, None])[:, :, 0]
        if self.kind == "bpr":
            return F.softplus(others - own).mean()
        counted = F.softplus(others).masked_fill(drawn == wanted[:, None], 0.0)
        return (F.softplus(-own)[:, 0] + counted.sum(1)).mean()

    def _draw(self, n: int) -> Tensor:
        """Places in `met`."""
        if self.config.negative_power == 0:
            return torch.randint(len(self.met), (n,), device=self.met.device)
        chances = torch.rand(n, dtype=torch.float64, device=self.met.device)
        return torch.searchsorted(self.cumulative, chances).clamp_(max=len(self.met) - 1)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    """The (place in one, place in other) pairs of equal numbers, [2, h], without the matrix of all pairs."""
    ordered, order = other.sort()
    first = torch.searchsorted(ordered, one)
    counts = torch.searchsorted(ordered, one, right=True) - first
    owner = torch.repeat_interleave(torch.arange(len(one), device=one.device), counts)
    nth = torch.arange(len(owner), device=one.device) - (counts.cumsum(0) - counts)[owner]
    return torch.stack([owner, order[first[owner] + nth]])


def fill_unseen(table: nn.Embedding, counts: npt.NDArray[np.int64]) -> None:
    """Give items never trained on (`counts` [n_items] of 0) the mean row of the rarest, as unknown words have it."""
    seen = counts > 0
    rarest = counts == counts[seen].min() if seen.any() else counts == 0
    with torch.no_grad():
        rows = table.weight[: len(counts)]
        rows[torch.from_numpy(~seen)] = rows[torch.from_numpy(rarest)].mean(0)
