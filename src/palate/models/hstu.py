"""HSTU: pointwise attention without softmax, gated element by element (Zhai et al., ICML 2024, arXiv 2402.17152).

The block of the published research code:

    [U, V, Q, K] = silu(norm(X) W)          norm without weights, W without bias
    A = silu(Q Kᵀ + r_place + r_time) / n    where the column is no later than the row; n a constant
    Y = X + dropout(U · norm(A V)) W_out + b

r_place is one number for each distance in events, r_time one for each of 129 logarithmic steps of the seconds from an
event to the moment that is asked about, both shared by the heads. That moment is the *target's* own time in training
and `Query.as_of` in use. Differences: a history begins with a token of its own, and absolute places are off unless
asked for, since windows cut a history anywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import FloatArray, IntArray
from palate.data.query import Query
from palate.errors import PalateError
from palate.models.dropout import Dropout
from palate.models.sequence_encoder import times_of, tokens_of
from palate.models.sequence_retriever import Counts, Loss, SequenceConfig, SequenceNetwork, SequenceRetriever
from palate.models.windows import IGNORED, SequenceBatch

GAPS = 128  # the last step of time
STEP = 0.301  # natural logarithm of the ratio of two steps of time, as published
SECOND = 1_000_000  # microseconds
HIDDEN = -1e4  # silu of it is 0 to the last bit, and so is its slope


class HstuConfig(SequenceConfig):
    """Sizes of the network and what it is told of order and time; the rest stands in `SequenceConfig`."""

    blocks: int = Field(default=2, ge=1, description="of attention and gate (ML-1M: 2, large: 8)")
    heads: int = Field(default=1, ge=1, description="of each attention (ML-1M: 1)")
    place_bias: bool = Field(default=True, description="attention knows how many events ago an event was")
    time_bias: bool = Field(default=True, description="attention knows how long before the moment asked an event was")
    places: bool = Field(default=False, description="a vector is learned for each place of a window (published: yes)")
    alpha: float | None = Field(
        default=None, gt=0, le=2, description="stochastic length: windows are cut to length^(alpha/2) events at most"
    )
    candidates: int = Field(
        default=0,
        ge=0,
        description="items drawn for each window that the encoder learns to tell from the true next one",
    )


Kept = list[tuple[Tensor, Tensor]]  # keys and values of a history, a pair for each block


class HstuBlock(nn.Module):
    """One block. `n` is the constant that attention is divided by, `length` the most distances told apart."""

    def __init__(self, d: int, heads: int, length: int, dropout: float, places: bool, times: bool) -> None:
        super().__init__()
        self.heads, self.n, self.dropout = heads, length, Dropout(dropout)
        self.mix, self.out = nn.Linear(d, 4 * d, bias=False), nn.Linear(d, d)
        self.near = nn.Parameter(0.02 * torch.randn(length + 1)) if places else None
        self.gaps = nn.Parameter(0.02 * torch.randn(GAPS + 1)) if times else None
        nn.init.normal_(self.mix.weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, back: Tensor, steps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [b, t, d], `back` [t, t] distances (negative: hidden), `steps` [b, t, t]; the output, keys, values."""
        u, v, q, k = self._mixed(x)
        weights = F.silu(q @ k.transpose(-1, -2) + self._bias(back, steps)) / self.n
        return self._gated(x, u, weights @ v), k, v

    def beside(self, x: Tensor, kept: tuple[Tensor, Tensor], back: Tensor, steps: Tensor | None) -> Tensor:
        """Candidates `x` [b, m, d] that see a history (its `kept` keys and values) and themselves, not each other.

        `back` [b, t + 1] is the distance of each event (negative: padding), `steps` [b, t + 1] its step of time; the
        last column is the candidate's own.
        """
        keys, values = kept
        u, v, q, k = self._mixed(x)
        bias = self._bias(back[:, None], None if steps is None else steps[:, None])
        weights = F.silu(q @ keys.transpose(-1, -2) + bias[..., :-1]) / self.n
        own = F.silu((q * k).sum(-1, keepdim=True) + bias[..., -1:]) / self.n
        return self._gated(x, u, weights @ values + own * v)

    def _mixed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U [b, t, d]; V, Q, K [b, heads, t, d / heads]."""
        mixed = F.silu(self.mix(F.layer_norm(x, x.shape[-1:], eps=1e-6)))
        u, *others = mixed.chunk(4, -1)
        v, q, k = (y.view(*y.shape[:-1], self.heads, -1).transpose(1, 2) for y in others)
        return u, v, q, k

    def _bias(self, back: Tensor, steps: Tensor | None) -> Tensor:
        """Of [..., rows, columns], alike for all heads: [..., 1, rows, columns]."""
        bias = torch.zeros_like(back, dtype=self.mix.weight.dtype)
        if self.near is not None:
            bias = self.near[back.clamp(min=0)]
        if self.gaps is not None and steps is not None:
            bias = bias + self.gaps[steps]
        return torch.where(back < 0, HIDDEN, bias).unsqueeze(-3)

    def _gated(self, x: Tensor, u: Tensor, read: Tensor) -> Tensor:
        read = read.transpose(1, 2).flatten(2)
        inner = u * F.layer_norm(read, read.shape[-1:], eps=1e-6)
        return x + self.out(self.dropout(inner))  # type: ignore[no-any-return]


class Network(SequenceNetwork):
    """Item vectors times sqrt(d), the blocks, and states of unit length where a temperature says so."""

    def __init__(self, items: nn.Module, config: HstuConfig) -> None:
        super().__init__(items)
        d, length = config.dimensions, config.length
        told = config.place_bias, config.time_bias
        blocks = [HstuBlock(d, config.heads, length, config.dropout, *told) for _ in range(config.blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.dropout, self.timed = Dropout(config.dropout), config.time_bias
        self.places = nn.Parameter(0.02 * torch.randn(length + 1, d)) if config.places else None
        self.judge: Any = nn.Linear(d, 1) if config.candidates else None

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        return self._run(tokens, times)[0]

    def beside(self, tokens: Tensor, times: Tensor, candidates: Tensor, size: int) -> Tensor:
        """The state that each candidate would have as the next event, [b, m, d] (M-FALCON).

        The history is read once; then candidates go through in parts of `size`, over its kept keys and values. Each
        sees the history and itself, as if it alone had been added behind.
        """
        kept = self._run(tokens, times)[1]
        ends = (tokens != self.items.n_items).sum(1)
        back = ends[:, None] - torch.arange(tokens.shape[1] + 1, device=tokens.device)
        back = torch.where(back > 0, back, -1)
        back[:, -1] = 0
        asked = times[:, -1:]
        steps = steps_between(asked, torch.cat([times[:, :-1], asked], 1))[:, 0] if self.timed else None
        starts = range(0, candidates.shape[1], size)
        parts = [self._beside(candidates[:, a : a + size], kept, back, steps, ends) for a in starts]
        return torch.cat([kept[0][0].new_zeros(len(tokens), 0, self.items.dimensions), *parts], 1)

    def judged(self, states: Tensor) -> Tensor:
        """States of candidates [b, m, d] to scores [b, m]."""
        return self.judge(states)[..., 0]  # type: ignore[no-any-return]

    def _run(self, tokens: Tensor, times: Tensor) -> tuple[Tensor, Kept]:
        order = torch.arange(tokens.shape[1], device=tokens.device)
        back = order[:, None] - order[None, :]
        steps = steps_between(times[:, 1:], times[:, :-1]) if self.timed else None
        x, kept = self._entered(tokens, order), []
        for block in self.blocks:
            x, keys, values = block(x, back, steps)
            kept.append((keys, values))
        return x, kept

    def _beside(self, part: Tensor, kept: Kept, back: Tensor, steps: Tensor | None, ends: Tensor) -> Tensor:
        x = self._entered(part, ends[:, None])
        for block, pair in zip(self.blocks, kept, strict=True):
            x = block.beside(x, pair, back, steps)  # type: ignore[operator]
        return x

    def _entered(self, tokens: Tensor, order: Tensor) -> Tensor:
        x = self.items(tokens) * self.items.dimensions**0.5
        return self.dropout(x if self.places is None else x + self.places[order])  # type: ignore[no-any-return]


def steps_between(asked: Tensor, times: Tensor) -> Tensor:
    """Logarithmic steps of the seconds from `times` [b, t] to `asked` [b, r], both in microseconds: [b, r, t]."""
    gaps = (asked[:, :, None] - times[:, None, :]).abs() // SECOND
    return (gaps.clamp(min=1).log() / STEP).long().clamp(max=GAPS)


class Hstu(SequenceRetriever[HstuConfig]):
    """A `Retriever`, and with `candidates` a judge of candidates that sees them beside the history.

    An item never trained on takes the mean vector of the rarest items.
    """

    name = "hstu"
    config_kind = HstuConfig

    def network(self, items: nn.Module) -> Network:
        return Network(items, self.config)

    def loss(self, network: Any, counts: Counts) -> Loss:
        config, retrieving, met = self.config, super().loss(network, counts), torch.from_numpy(np.flatnonzero(counts))

        def mean(tokens: Tensor, times: Tensor, targets: Tensor) -> Tensor:
            batch = SequenceBatch(tokens, times, targets)
            if config.alpha is not None:
                batch = shortened(batch, config.length, config.alpha)
            loss = retrieving(*batch)
            if config.candidates:
                loss = loss + _told_apart(network, batch, met[torch.randint(len(met), (config.candidates,))])
            return loss

        return mean

    def score_candidates(self, query: Query, items: IntArray, size: int = 256) -> FloatArray:
        """The score of each of `items` [m] as the next event, judged beside the history: [m].

        The history is read once, then `size` candidates at a time (M-FALCON); how many at a time changes nothing.

        Raises:
            PalateError: The model was not trained with `candidates`.
        """
        network: Any = self._fitted()
        if network.judge is None:
            raise PalateError("This HSTU has not learned to judge candidates", where=self.name, hint="candidates=64")
        tokens = torch.from_numpy(tokens_of([query], self.config.length, network.items.n_items))
        times = torch.from_numpy(times_of([query], self.config.length))
        asked = torch.from_numpy(np.asarray(items, dtype=np.int64))[None]
        with torch.inference_mode():
            scores: FloatArray = network.judged(network.beside(tokens, times, asked, size))[0].numpy()
        return scores


def shortened(batch: SequenceBatch, length: int, alpha: float) -> SequenceBatch:
    """Stochastic length: windows of n > T = length^(alpha/2) events stay whole with probability length^alpha / n².

    Otherwise T events are drawn, newer ones rather than older ones, and each predicts the next that was drawn. One draw
    for the batch, whose windows are of like length.
    """
    tokens, times, targets = batch
    most, n = int(length ** (alpha / 2)), tokens.shape[1]
    if n <= most or torch.rand(()) < length**alpha / n**2:
        return batch
    ends = (targets != IGNORED).long().cumsum(1).argmax(1, keepdim=True) + 1  # the last event, in places of `times`
    places = torch.arange(n + 1)
    age = (ends - places).clamp(min=0).to(torch.float32)
    chance = (1 - age / (age.sum(1, keepdim=True) + 1)).log()
    keys = chance - torch.empty_like(chance).exponential_().log()
    keys = keys.masked_fill(places > ends, -torch.inf).masked_fill(places == ends, torch.inf)
    drawn = keys.topk(most + 1, 1).indices
    drawn = torch.where(drawn > ends, n, drawn).sort(1).values  # padding behind
    kept, padding = drawn[:, :-1], drawn[:, 1:] > ends
    return SequenceBatch(
        tokens.gather(1, kept.clamp(max=n - 1)),
        times.gather(1, drawn),
        targets.gather(1, drawn[:, 1:] - 1).masked_fill(padding, IGNORED),
    )


def _told_apart(network: Network, batch: SequenceBatch, drawn: Tensor) -> Tensor:
    """Cross-entropy of one target of each window against the items `drawn`, judged beside what came before it."""
    chance = torch.rand(batch.targets.shape).masked_fill(batch.targets == IGNORED, -1)
    place = chance.argmax(1, keepdim=True)
    true = batch.targets.gather(1, place)
    after = torch.arange(batch.times.shape[1]) > place
    tokens = batch.tokens.masked_fill(after[:, :-1], network.items.n_items)
    times = torch.where(after, batch.times.gather(1, place + 1), batch.times)
    judged = torch.cat([true, drawn.expand(len(true), -1)], 1)
    scores = network.judged(network.beside(tokens, times, judged, judged.shape[1]))
    again = F.pad(drawn == true, (1, 0))
    return F.cross_entropy(scores.masked_fill(again, HIDDEN), torch.zeros(len(true), dtype=torch.long))
