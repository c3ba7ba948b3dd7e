"""A tree of tokens that probably come next, as wide as its chances pay for."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.llm.decoding.store import NOTHING, DraftStore, Found

_OTHER = 0.25  # weight of a place for each token less that agrees before it


class DraftConfig(BaseModel):
    """How much is guessed at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int = Field(default=16, ge=0, description="tokens drafted for one request at a time")
    depth: int = Field(default=12, ge=1, description="tokens of a branch (DARE: 12)")
    least: float = Field(default=0.15, ge=0, le=1, description="chance of being accepted below which none is drafted")
    branching: bool = Field(default=True, description="a tree of drafts; false: the likeliest branch alone")
    samples: int = Field(default=48, ge=1, description="earlier places looked at")


@dataclass(frozen=True)
class Draft:
    """Tokens with their parents, each before its children; -1 stands for what was written last.

    `matched`: how many tokens agreed at the places that the tree is made of.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    matched: int = 0

    def __len__(self) -> int:
        return len(self.tokens)


class Chances:
    """How often the first token of a draft was accepted, by how many tokens agreed: learned while decoding."""

    def __init__(self) -> None:
        self.tried, self.right = np.full(10, 4.0), np.linspace(1.5, 3.6, 10)

    def of(self, matched: int) -> float:
        place = min(matched, 9)
        return float(self.right[place] / self.tried[place])

    def learn(self, matched: int, accepted: bool) -> None:
        place = min(matched, 9)
        self.tried[place] += 1
        self.right[place] += accepted


class Drafter:
    """Drafts for one request after another from a pool and from the request's own text.

    Args:
        store: The pool; None: only the prompt and what was written so far is looked at (prompt lookup).
    """

    def __init__(self, store: DraftStore | None = None, config: DraftConfig | None = None) -> None:
        self.store, self.config = store, config or DraftConfig()
        self.chances = Chances()

    def draft(self, prompt: Sequence[int], written: Sequence[int], room: int) -> Draft:
        """What may follow `written`, at most `room` deep."""
        config = self.config
        depth = min(config.depth, room)
        if depth < 1 or config.most < 1:
            return Draft()
        pool = NOTHING if self.store is None else self.store.after(written, depth, config.samples)
        own = own_text([*prompt, *written], depth)
        return self._tree([found for found in (pool, own) if len(found)])

    def _tree(self, sources: Sequence[Found]) -> Draft:
        """The nodes with the best chance: the share of the places that go that way times what was learned."""
        if not sources:
            return Draft()
        longest = max(int(found.matched.max()) for found in sources)
        weights: list[dict[int, list[float | int]]] = [{}]  # of each node: token -> [weight, node]
        totals = [0.0]
        for found in sources:
            for row, matched in zip(found.following.tolist(), found.matched.tolist(), strict=True):
                weight, node = _OTHER ** (longest - matched), 0
                totals[0] += weight
                for token in row:
                    if token < 0:
                        break
                    way = weights[node].get(token)
                    if way is None:
                        way = weights[node][token] = [0.0, len(weights)]
                        weights.append({})
                        totals.append(0.0)
                    way[0] += weight
                    node = int(way[1])
                    totals[node] += weight
        return self._best(weights, totals, longest)

    def _best(self, weights: list[dict[int, list[float | int]]], totals: list[float], matched: int) -> Draft:
        config, rate = self.config, self.chances.of(matched)
        tokens: list[int] = []
        parents: list[int] = []
        waiting: list[tuple[float, int, int, int, int]] = []

        def open_(node: int, chance: float, place: int) -> None:
            ways = [(share / totals[node], token, int(child)) for token, (share, child) in weights[node].items()]
            if not config.branching:
                ways = [max(ways)] if ways else []
            for share, token, child in ways:
                if (own := chance * share * rate) >= config.least:
                    heapq.heappush(waiting, (-own, len(parents), token, child, place))

        open_(0, 1.0, -1)
        while waiting and len(tokens) < config.most:
            chance, _, token, child, parent = heapq.heappop(waiting)
            tokens.append(token)
            parents.append(parent)
            open_(child, -chance, len(tokens) - 1)
        return Draft(tokens, parents, matched)


def own_text(tokens: Sequence[int], length: int, least: int = 2, most: int = 8) -> Found:
    """What followed the last tokens where they stood earlier in the same text (prompt lookup: Saxena 2023)."""
    n = len(tokens)
    if n <= least:
        return NOTHING
    text = np.asarray(tokens, dtype=np.int32)
    ends = np.flatnonzero((text[1 : n - 1] == text[-1]) & (text[: n - 2] == text[-2])) + 2
    if not len(ends):
        return NOTHING
    ends = ends[-8:]
    matched = np.array([_agree(text, int(end), most) for end in ends])
    ahead = ends[:, None] + np.arange(length)
    following = np.where(ahead < n, text[np.minimum(ahead, n - 1)], -1)
    keep = following[:, 0] >= 0
    return Found(following[keep].astype(np.int32), matched[keep])


def _agree(text: npt.NDArray[np.int32], end: int, most: int) -> int:
    """How many tokens before `end` are those at the end of the text."""
    n = min(end, most)
    same = text[end - n : end][::-1] == text[-n:][::-1]
    return int(n if same.all() else same.argmin())
