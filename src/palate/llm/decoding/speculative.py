"""Drafts verified in one forward pass: several requests at once, each with a tree of drafts of its own.

A pass reads, of each request, the token written last and the drafts after it; each token sees its own branch only
(ancestor mask; positions by depth). The longest accepted branch is written, and one token more, which is the model's
own. Source: DARE/LASER (arXiv 2408.05676), SpecInfer (arXiv 2305.09781).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palate.llm.decoding.drafting import Draft, Drafter, worth_reading
from palate.llm.decoding.rows import Beginning, RowCache
from palate.llm.decoding.rules import Rule


@dataclass
class Prompt:
    """What is to be continued, by which rule, and when it ends."""

    tokens: list[int]
    rule: Rule
    most: int  # tokens written
    drafter: Drafter | None = None  # None: plain decoding; one that fails is done without
    ended: Callable[[list[int]], bool] = lambda written: False  # an early end, such as a stop string


@dataclass
class Written:
    """What came of a prompt."""

    tokens: list[int] = field(default_factory=list)
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    unlike: int = 0  # tokens that were not the likeliest
    looked_up: float = 0.0  # seconds spent on drafts
    error: str | None = None


@dataclass
class _Row:
    prompt: Prompt
    written: Written
    last: int  # the token that was decided and not yet read
    draft: Draft = field(default_factory=Draft)


def decode(
    network: Any, prompts: Sequence[Prompt], end_tokens: Sequence[int], beginning: Beginning | None = None
) -> list[Written]:
    """Continue prompts until an end token (which is kept), the most tokens, or an early end.

    Args:
        network: A causal language model of transformers, in evaluation mode.
        prompts: Of requests that are computed together.
        beginning: Of the prompts before, read by the same network; what these begin alike with is not read again.
    """
    import torch

    results = [Written() for _ in prompts]
    longest = getattr(network.config, "max_position_embeddings", None) or 10**9
    rows = [
        _Row(prompt, result, prompt.tokens[-1] if prompt.tokens else 0)
        for prompt, result in zip(prompts, results, strict=True)
    ]
    for row in rows:
        if not row.prompt.tokens:
            row.written.error = "the prompt is empty"
        elif len(row.prompt.tokens) + row.prompt.most > longest:
            row.written.error = (
                f"the prompt is too long: {len(row.prompt.tokens)} and {row.prompt.most} of {longest} tokens"
            )
    live = [row for row in rows if row.written.error is None and row.prompt.most > 0]
    if live:
        with torch.inference_mode():
            _Batch(network, live, frozenset(end_tokens)).run(beginning or Beginning())
    return results


class _Batch:
    def __init__(self, network: Any, rows: list[_Row], ends: frozenset[int]) -> None:
        self.rows, self.ends = rows, ends
        wide = 1 + max(row.prompt.drafter.config.most if row.prompt.drafter else 0 for row in rows)
        capacity = max(len(row.prompt.tokens) + row.prompt.most for row in rows) + wide
        self.cache = RowCache(network, len(rows), capacity)

    def run(self, beginning: Beginning) -> None:
        self._begin(beginning)
        while self.rows:
            self._guess()
            self._step()
            going = [number for number, row in enumerate(self.rows) if not self._over(row)]
            if len(going) < len(self.rows):
                self.rows = [self.rows[number] for number in going]
                self.cache.select(going)

    def _begin(self, beginning: Beginning) -> None:
        """Read the prompts but for their last tokens."""
        prompts = [row.prompt.tokens[:-1] for row in self.rows]
        known = beginning.shared(prompts)
        self.cache.begin(beginning, known)
        lengths = np.array([len(prompt) - known for prompt in prompts])
        wide = int(lengths.max())
        if wide == 0:
            return
        ids = np.zeros((len(self.rows), wide), dtype=np.int64)
        for number, prompt in enumerate(prompts):
            ids[number, : lengths[number]] = prompt[known:]
        places = np.broadcast_to(known + np.arange(wide), ids.shape).copy()
        among = np.broadcast_to(np.tri(wide, dtype=bool), (len(ids), wide, wide))
        self.cache.read(ids, places, among, logits=False)
        self.cache.keep([range(int(n)) for n in lengths])
        beginning.tokens, beginning.layers = prompts[0], self.cache.first(len(prompts[0]))

    def _guess(self) -> None:
        """Draft for every row what is worth its reading."""
        drafts = [self._draft(row) for row in self.rows]
        balance = max((row.prompt.drafter.config.balance for row in self.rows if row.prompt.drafter), default=1.0)
        n = worth_reading(drafts, balance)
        for row, draft in zip(self.rows, drafts, strict=True):
            row.draft = draft.first(n)

    def _draft(self, row: _Row) -> Draft:
        drafter = row.prompt.drafter
        if drafter is None:
            return Draft()
        begun = time.perf_counter()
        room = row.prompt.most - len(row.written.tokens) - 1
        try:
            draft = drafter.draft(row.prompt.tokens, row.written.tokens, room)
        except Exception:  # drafts make things faster, never possible
            draft = Draft()
        row.written.looked_up += time.perf_counter() - begun
        return draft

    def _step(self) -> None:
        wide = 1 + max(len(row.draft) for row in self.rows)
        n = len(self.rows)
        ids, depths = np.zeros((n, wide), dtype=np.int64), np.zeros((n, wide), dtype=np.int64)
        among = np.broadcast_to(np.eye(wide, dtype=bool), (n, wide, wide)).copy()
        for number, row in enumerate(self.rows):
            ids[number, 0] = row.last
            for place, (token, parent) in enumerate(zip(row.draft.tokens, row.draft.parents, strict=True), start=1):
                ids[number, place] = token
                depths[number, place] = depths[number, parent + 1] + 1
                among[number, place] |= among[number, parent + 1]
        logits = self.cache.read(ids, depths + self.cache.lengths[:, None], among)
        kept = [self._write(row, logits[number, : 1 + len(row.draft)]) for number, row in enumerate(self.rows)]
        self.cache.keep(kept)

    def _write(self, row: _Row, logits: Any) -> list[int]:
        """Write what is accepted and one token more; the columns to keep."""
        result, draft = row.written, row.draft
        result.passes += 1
        result.drafted += len(draft)
        if bool(logits.isnan().any()):
            result.error = "the model gave no number"
            return []
        row.prompt.rule.look(logits)
        path, place = [0], -1
        branches = _accepted(draft, row.prompt.rule)
        if row.prompt.drafter is not None:
            row.prompt.drafter.chances.learn(draft, branches)
        for node in max(branches.values(), key=len, default=[]):
            token = draft.tokens[node]
            result.tokens.append(token)
            result.accepted += 1
            result.unlike += token != row.prompt.rule.likeliest(place + 1)
            place = node
            if self._ends(row):
                return path
            path.append(node + 1)
        row.last = row.prompt.rule.own(place + 1)
        result.tokens.append(row.last)
        result.unlike += row.last != row.prompt.rule.likeliest(place + 1)
        return path

    def _ends(self, row: _Row) -> bool:
        tokens = row.written.tokens
        return tokens[-1] in self.ends or len(tokens) >= row.prompt.most or row.prompt.ended(tokens)

    def _over(self, row: _Row) -> bool:
        return row.written.error is not None or (bool(row.written.tokens) and self._ends(row))


def _accepted(draft: Draft, rule: Rule) -> dict[int, list[int]]:
    """The nodes that may stand, each with its branch: the nodes from the root to itself."""
    branches: dict[int, list[int]] = {}
    for node, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True)):
        if (parent < 0 or parent in branches) and rule.accepts(parent + 1, token):
            branches[node] = [*branches.get(parent, []), node]
    return branches
