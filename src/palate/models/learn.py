"""LEARN: frozen vectors of what items are, a causal transformer over them (Jia et al., AAAI 2025, arXiv 2405.03988).

User and item tower share all weights: a user is the state at the end of a history, an item the state of a sequence
that is that item alone. Nothing is learned of an item's id, so that an item nobody has met is encoded like others.

The loss is the paper's dense all-action loss (PinnerFormer, Pancha et al., KDD 2022). Each window is cut at a drawn
place into a history H and targets T, up to `sampled` places are drawn of each, and with s the scaled cosine

    L = - mean over i, j in H_i, k in T_i of log(e^s(u_ij, v_ik) / (e^s(u_ij, v_ik) + others_ij))
    others_ij = sum over z != i, k in T_z of e^s(u_ij, v_zk)

where items of another user z that are in T_i too are left out of the sum.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from palate.models.dropout import Dropout
from palate.models.sequence_retriever import Counts, Loss, SequenceConfig, SequenceNetwork, SequenceRetriever
from palate.models.windows import IGNORED

NEVER = -1e9  # a score that counts for nothing, even where all are so


class LearnConfig(SequenceConfig):
    """Sizes of the towers and the loss; the rest stands in `SequenceConfig`."""

    sides: Literal["vector"] = Field(default="vector", description="an item goes by its frozen vector alone")
    blocks: int = Field(default=2, ge=1, description="of attention and feed-forward (published code: 4)")
    heads: int = Field(default=2, ge=1, description="of each attention")
    temperature: float = Field(default=0.05, gt=0, description="of the cosine (published code: 1 / 20)")
    sampled: int = Field(default=10, ge=1, description="places of each history and of each targets (paper: 10)")
    batch_targets: int = Field(default=4096, ge=1, description="events of one step: the negatives of each other")
    objective: Literal["dense", "catalogue"] = Field(
        default="dense", description="dense all-action, or softmax over the catalogue (published fine-tuning)"
    )


class Network(SequenceNetwork):
    """Both towers."""

    def __init__(self, items: nn.Module, config: LearnConfig) -> None:
        super().__init__(items)
        d = config.dimensions
        self.places = nn.Parameter(0.02 * torch.randn(config.length, d))
        layer = nn.TransformerEncoderLayer(
            d, config.heads, 4 * d, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.blocks, nn.LayerNorm(d), enable_nested_tensor=False)
        self.dropout, self.out = Dropout(config.dropout), nn.Linear(d, d)

    def hidden(self, tokens: Tensor, times: Tensor) -> Tensor:
        return self.read(self.items(tokens))

    def targets(self, vectors: Tensor) -> Tensor:
        """Each item as a sequence of its own."""
        return super().targets(self.read(vectors.reshape(-1, 1, vectors.shape[-1])).reshape(vectors.shape))

    def read(self, vectors: Tensor) -> Tensor:
        """Sequences of item vectors [b, t, d] to their states, each of what is no later."""
        t = vectors.shape[1]
        later = torch.ones(t, t, dtype=torch.bool, device=vectors.device).triu(1)
        x = self.dropout(vectors + self.places[:t])
        return self.out(self.blocks(x, mask=later, is_causal=True))  # type: ignore[no-any-return]


class Learn(SequenceRetriever[LearnConfig]):
    """A `Retriever`. `fit` needs `Knowledge` of kind `vector`."""

    name = "learn"
    config_kind = LearnConfig

    def network(self, items: nn.Module) -> SequenceNetwork:
        return Network(items, self.config)

    def loss(self, network: Any, counts: Counts) -> Loss:
        if self.config.objective == "catalogue":
            return super().loss(network, counts)
        config = self.config

        def dense(tokens: Tensor, times: Tensor, targets: Tensor) -> Tensor:
            history, later, first = _drawn(targets != IGNORED, config.sampled)
            users = network.pointing(network.hidden(tokens, times)[history]) / config.temperature
            wanted = _from(targets.clamp(min=0), first)
            items = network.pointing(network.read(network.items(wanted))[_from(later, first)])
            of_user, of_item = (torch.where(chosen)[0] for chosen in (history, later))
            return dense_all_action(users, items, of_user, of_item, wanted[_from(later, first)])

        return dense


def dense_all_action(users: Tensor, items: Tensor, of_user: Tensor, of_item: Tensor, ids: Tensor) -> Tensor:
    """The loss over scaled states: `users` [n, d] of windows `of_user` [n], `items` [m, d] of windows `of_item` [m].

    `ids` [m] are the item numbers of `items`.
    """
    scores = users @ items.T
    own = of_user[:, None] == of_item[None, :]
    met = torch.zeros(len(own), int(ids.max()) + 1, dtype=torch.bool, device=ids.device)
    met[of_item, ids] = True  # [window, item]
    others = scores.masked_fill(met[of_user][:, ids], NEVER).logsumexp(1, keepdim=True)
    return F.softplus(others - scores)[own].mean()


def _drawn(events: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Places of histories and of targets, at most `most` a window [b, t] each, and where the targets begin [b].

    The state at place i has read what comes before target i: up to and with place `first` are histories, from it on
    are targets.
    """
    sizes = events.long().cumsum(1).argmax(1) + 1  # up to the last event
    first = (torch.rand(len(events)) * sizes).long()
    order = torch.arange(events.shape[1])
    chosen = [_some(events & (order <= first[:, None]), most), _some(events & (order >= first[:, None]), most)]
    return chosen[0], chosen[1], first


def _some(allowed: Tensor, most: int) -> Tensor:
    """At most `most` of each row's allowed places, evenly drawn."""
    keys = torch.rand(allowed.shape).masked_fill(~allowed, -1)
    drawn = torch.zeros_like(allowed).scatter(1, keys.topk(min(most, keys.shape[1]), 1).indices, True)
    return drawn & allowed


def _from(rows: Tensor, first: Tensor) -> Tensor:
    """Each row from its own place `first` on, [b, t]; False or 0 behind its end."""
    places = torch.arange(rows.shape[1]) + first[:, None]
    return rows.gather(1, places.clamp(max=rows.shape[1] - 1)).masked_fill(places >= rows.shape[1], 0)
