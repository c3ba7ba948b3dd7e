"""How likely is each of many texts as the answer? The model walks a trie of them, branch by branch, in batches.

What is computed is the distribution of constrained decoding: at each place where the texts part, the model's
probabilities of the tokens that may follow, made to sum to 1. A stretch that all remaining texts share costs nothing.
The prompts of a batch are read once up to where they part, and a prompt's states serve all its branches
(tree attention: Cai et al. 2024, arXiv 2401.10774, section 3.1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import Request

if TYPE_CHECKING:
    from torch import Tensor

Tokens = list[int]
Seen = npt.NDArray[np.bool_]
_TOGETHER = 8  # branches of one prompt read in one go where only the best texts are wanted


@dataclass(frozen=True)
class _Branch:
    """A place where texts part: `edge` leads to it; `ways` are the next tokens, each to a branch or to ~text."""

    edge: Tokens
    ways: tuple[tuple[int, int], ...]
    texts: tuple[int, ...]  # all below


class TokenTrie:
    """The texts as an engine writes them.

    Raises:
        InputError: No text, or two that are the same tokens.
    """

    def __init__(self, engine: TorchEngine, texts: Sequence[str]) -> None:
        self.written = [engine.answer_tokens(text) for text in texts]
        if not texts or len({tuple(tokens) for tokens in self.written}) < len(texts):
            raise InputError("The texts to choose from must differ, and there must be one.", got=f"{len(texts)} texts")
        self.branches: list[_Branch] = []
        self._grow(list(range(len(texts))), 0)
        self.vocabulary = sorted({token for branch in self.branches for token, _ in branch.ways})
        self.place_of = {token: place for place, token in enumerate(self.vocabulary)}

    def _grow(self, members: list[int], start: int) -> int:
        """The branch below `start` tokens that `members` share; its number."""
        first = self.written[members[0]]
        end = start
        while len(members) > 1 and len({self.written[member][end] for member in members}) == 1:
            end += 1
        number = len(self.branches)
        self.branches.append(_Branch(first[start:end], (), tuple(members)))
        groups: dict[int, list[int]] = {}
        for member in members:
            groups.setdefault(self.written[member][end], []).append(member)
        ways = tuple(
            (token, ~group[0] if len(group) == 1 else self._grow(group, end)) for token, group in groups.items()
        )
        self.branches[number] = _Branch(first[start:end], ways, tuple(members))
        return number


def trie_shares(
    engine: TorchEngine, requests: Sequence[Request], texts: Sequence[str], best: int | None = None, batch: int = 16
) -> FloatArray:
    """The probability of each of `texts` as the constrained answer to each request, [n, n_texts]; rows sum to 1.

    Args:
        best: Only so many likeliest texts of a request must be exact (they are: a branch less likely than all of
            them holds none of them). The texts of a branch that was left share its probability evenly.
        batch: Requests computed together; the more alike neighbours begin, the less is read.
    """
    trie = TokenTrie(engine, texts)
    prompts = [engine.prompt_tokens(request) + trie.branches[0].edge for request in requests]
    result = np.zeros((len(requests), len(texts)), dtype=np.float32)
    order = sorted(range(len(requests)), key=lambda i: prompts[i])
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        result[rows] = _Walk(engine, [prompts[i] for i in rows], trie, best).run()
    return result


@dataclass
class _Open:
    """A branch whose own probability is known: `seen` are the columns that lead to it, `at` how many tokens."""

    log: float
    branch: int
    seen: Seen
    at: int


@dataclass
class _Row:
    logs: npt.NDArray[np.float64]
    waiting: list[_Open] = field(default_factory=list)

    def worth_reading(self, best: int | None) -> list[_Open]:
        """Take the branches that may still hold one of the best, the likeliest first."""
        self.waiting.sort(key=lambda one: -one.log)
        n = len(self.waiting)
        if best is not None:
            floor = -np.inf if best > len(self.logs) else np.partition(self.logs, -best)[-best]
            n = min(_TOGETHER, sum(one.log > floor for one in self.waiting))
        taken, self.waiting = self.waiting[:n], self.waiting[n:]
        return taken


class _Walk:
    """Prompts read together, and what was read of their branches, in one cache."""

    def __init__(self, engine: TorchEngine, prompts: Sequence[Tokens], trie: TokenTrie, best: int | None) -> None:
        from transformers import DynamicCache

        self.network: Any = engine.network
        self.trie, self.best, self.prompts = trie, best, prompts
        self.weights = self.network.get_output_embeddings().weight[trie.vocabulary].float()
        self.cache: Any = DynamicCache(config=self.network.config)

    def run(self) -> FloatArray:
        """Probabilities [n_prompts, n_texts]."""
        import torch

        n, n_texts = len(self.prompts), len(self.trie.written)
        rows = [_Row(np.full(n_texts, -np.inf)) for _ in range(n)]
        with torch.inference_mode():
            reading = self._begin()
            while any(reading):
                self._read(rows, reading)
                reading = [[(self._edge(one), one) for one in row.worth_reading(self.best)] for row in rows]
        return np.stack([self._shares(row) for row in rows])

    def _begin(self) -> list[list[tuple[Tokens, _Open]]]:
        """Read what all prompts share; what is left of each is the way to its first branch."""
        shortest = min(len(prompt) for prompt in self.prompts) - 1
        alike = (len({prompt[place] for prompt in self.prompts}) == 1 for place in range(shortest))
        common = sum(takewhile(bool, alike))
        if common:
            self._forward(
                np.array([self.prompts[0][:common]]), np.arange(common)[None], np.tri(common, dtype=bool)[None]
            )
            self.cache.batch_repeat_interleave(len(self.prompts))
        return [[(prompt[common:], _Open(0.0, 0, np.ones(common, dtype=bool), common))] for prompt in self.prompts]

    def _edge(self, one: _Open) -> Tokens:
        return self.trie.branches[one.branch].edge

    def _read(self, rows: list[_Row], reading: list[list[tuple[Tokens, _Open]]]) -> None:
        """Read the edges to some branches of each row, and share out the probability of each."""
        before = self.cache.get_seq_length()
        wide = max(sum(len(edge) for edge, _ in row) for row in reading)
        ids = np.zeros((len(rows), wide), dtype=np.int64)
        places = np.zeros_like(ids)
        mask = np.zeros((len(rows), wide, before + wide), dtype=bool)
        mask[:, np.arange(wide), before + np.arange(wide)] = True
        ends: list[tuple[int, int, _Open]] = []
        for number, row in enumerate(reading):
            column = 0
            for edge, one in row:
                stop = column + len(edge)
                ids[number, column:stop] = edge
                places[number, column:stop] = one.at + np.arange(len(edge))
                mask[number, column:stop, : len(one.seen)] = one.seen
                mask[number, column:stop, before + column : before + stop] |= np.tri(len(edge), dtype=bool)
                ends.append((number, stop - 1, one))
                column = stop
        states = self._forward(ids, places, mask)
        last = states[[row for row, _, _ in ends], [column for _, column, _ in ends]]
        logits = (last.float() @ self.weights.T).float().cpu().numpy().astype(np.float64)
        for (number, column, one), scores in zip(ends, logits, strict=True):
            after = _Open(one.log, one.branch, mask[number, column], int(places[number, column]) + 1)
            self._share_out(rows[number], after, scores)

    def _share_out(self, row: _Row, one: _Open, scores: npt.NDArray[np.float64]) -> None:
        ways = self.trie.branches[one.branch].ways
        own = scores[[self.trie.place_of[token] for token, _ in ways]]
        logs = one.log + own - own.max() - np.log(np.exp(own - own.max()).sum())
        for log, (_, target) in zip(logs.tolist(), ways, strict=True):
            if target < 0:
                row.logs[~target] = log
            else:
                row.waiting.append(_Open(log, target, one.seen, one.at))

    def _shares(self, row: _Row) -> FloatArray:
        shares = np.exp(row.logs)
        for one in row.waiting:
            texts = self.trie.branches[one.branch].texts
            shares[list(texts)] = np.exp(one.log) / len(texts)
        return np.asarray(shares / shares.sum(), dtype=np.float32)

    def _forward(self, ids: npt.NDArray[np.int64], places: npt.NDArray[np.int64], mask: Seen) -> Tensor:
        """Last states [n, wide, d] of tokens at `places` that see what `mask` [n, wide, columns] says."""
        import torch

        network = self.network
        states: Tensor = network.base_model(
            input_ids=torch.from_numpy(ids).to(network.device),
            position_ids=torch.from_numpy(places).to(network.device),
            attention_mask=torch.from_numpy(mask)[:, None].to(network.device),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return states
