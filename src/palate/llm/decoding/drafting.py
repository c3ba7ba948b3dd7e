"""A tree of tokens that probably come next, as wide as its chances pay for."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from palate.llm.decoding.store import NOTHING, DraftStore, Found

_OTHER = 0.25  # weight of a place for each token less that agrees before it
_MATCHES, _SHARES = 10, 12  # rows and columns of what is learned


class DraftConfig(BaseModel):
    """How much is guessed at a time: a token is drafted where its chance of being accepted is worth its reading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int = Field(default=32, ge=0, description="tokens drafted for one request at a time")
    depth: int = Field(default=24, ge=1, description="tokens of a branch (DARE: 12)")
    balance: float = Field(
        default=20.0,
        gt=0,
        description="tokens that are computed in the time in which the model's weights are read once: about 20 on a "
        "CPU, hundreds on a GPU; the more, the longer the shots that pay",
    )
    branching: bool = Field(default=True, description="a tree of drafts; false: the likeliest branch alone")
    samples: int = Field(default=48, ge=1, description="earlier places looked at")


@dataclass(frozen=True)
class Draft:
    """Tokens with their parents, each before its children; -1 stands for what was written last.

    `chances`: of being accepted with all before it, falling. `evidence`: the cells of `Chances` that these come from.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    evidence: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def first(self, n: int) -> Draft:
        """Its `n` likeliest tokens."""
        return Draft(self.tokens[:n], self.parents[:n], self.chances[:n], self.evidence[:n])


def worth_reading(drafts: Sequence[Draft], balance: float) -> int:
    """How many tokens of each of `drafts`, which are read in one pass, give most tokens by time.

    A pass takes as long as `balance` tokens and those that are read: one of each draft, and as many more as are read of
    the longest, since shorter ones are padded.
    """
    expected = np.zeros(1 + max(map(len, drafts)))
    expected[0] = len(drafts)
    for draft in drafts:
        expected[1 : 1 + len(draft)] += draft.chances
    read = len(drafts) * np.arange(1, 1 + len(expected))
    return int((expected.cumsum() / (balance + read)).argmax())


class Chances:
    """How often a drafted token was accepted once its parent was: learned while decoding.

    By how many tokens agreed before it, and by the share of the earlier places that went its way.
    """

    def __init__(self) -> None:
        self._tried = np.full((_MATCHES, _SHARES), 4.0)
        shares = (np.arange(_SHARES) + 0.5) / _SHARES
        self._right = self._tried * np.linspace(0.4, 0.9, _MATCHES)[:, None] * shares

    def of(self, matched: int, share: float) -> tuple[float, tuple[int, int]]:
        """The chance, and the cell that it stands in."""
        cell = min(matched, _MATCHES - 1), min(int(share * _SHARES), _SHARES - 1)
        return float(self._right[cell] / self._tried[cell]), cell

    def learn(self, draft: Draft, accepted: Collection[int]) -> None:
        """`accepted`: the nodes that may stand, each with its parent."""
        for node, (parent, cell) in enumerate(zip(draft.parents, draft.evidence, strict=True)):
            if parent < 0 or parent in accepted:
                self._tried[cell] += 1
                self._right[cell] += node in accepted


class Drafter:
    """Drafts for one request after another from a pool and from the request's own text.

    Args:
        store: The pool; None: only the prompt and what was written so far is looked at (prompt lookup).
    """

    def __init__(self, store: DraftStore | None = None, config: DraftConfig | None = None) -> None:
        self.store, self.config = store, config or DraftConfig()
        self.chances = Chances()

    def draft(self, prompt: Sequence[int], written: Sequence[int], room: int) -> Draft:
        """What may follow `written`, at most `room` deep, as far as it could be worth reading in any company."""
        config = self.config
        depth = min(config.depth, room)
        if depth < 1 or config.most < 1:
            return Draft()
        pool = NOTHING if self.store is None else self.store.after(written, depth, config.samples)
        own = own_text([*prompt, *written], depth)
        return self._tree([found for found in (pool, own) if len(found)], 1 / (config.balance + 1))

    def _tree(self, sources: Sequence[Found], least: float) -> Draft:
        """The earlier places' ways as a tree with the weight of each, and of it the nodes with the best chances."""
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
        return self._best(weights, totals, longest, least)

    def _best(
        self, weights: list[dict[int, list[float | int]]], totals: list[float], matched: int, least: float
    ) -> Draft:
        config, draft = self.config, Draft()
        waiting: list[tuple[float, int, int, int, int, int, tuple[int, int]]] = []

        def open_(node: int, chance: float, place: int, depth: int) -> None:
            ways = [(share / totals[node], token, int(child)) for token, (share, child) in weights[node].items()]
            if not config.branching:
                ways = [max(ways)] if ways else []
            for share, token, child in ways:
                rate, cell = self.chances.of(matched + depth, share)
                if chance * rate >= least:
                    heapq.heappush(waiting, (-chance * rate, len(draft), token, child, place, depth, cell))

        open_(0, 1.0, -1, 0)
        while waiting and len(draft) < config.most:
            chance, _, token, child, parent, depth, cell = heapq.heappop(waiting)
            draft.tokens.append(token)
            draft.parents.append(parent)
            draft.chances.append(-chance)
            draft.evidence.append(cell)
            open_(child, -chance, len(draft) - 1, depth + 1)
        return draft


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
