"""Pools of earlier answers by group: similar users, items of a category, or all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from palate.llm.decoding.drafting import DraftConfig, Drafter
from palate.llm.decoding.rules import RuleConfig
from palate.llm.decoding.store import DraftStore
from palate.llm.request import Request

GroupOf = Callable[[Request], str]


class DecodingConfig(RuleConfig):
    """How a local model in torch writes."""

    pool: Literal["none", "global", "grouped"] = Field(
        default="global", description="earlier answers that drafts come from; none: the request's own text alone"
    )
    most_tokens: int = Field(
        default=50_000_000, ge=1000, description="held by all pools together, at 16 to 20 bytes each"
    )
    drafts: DraftConfig = DraftConfig()


class Pools:
    """A drafter with a pool of its own for each purpose and group, filled while answers are written.

    Args:
        tokenizer: See `DraftStore`.
        group_of: The group of a request, for `pool: grouped`: a cluster of users, a category of items. None: one.
    """

    def __init__(self, config: DecodingConfig, tokenizer: str = "", group_of: GroupOf | None = None) -> None:
        self.config, self.tokenizer, self.group_of = config, tokenizer, group_of
        self._drafters: dict[str, Drafter] = {}
        self._own = Drafter(None, config.drafts)

    @property
    def nbytes(self) -> int:
        return sum(drafter.store.nbytes for drafter in self._drafters.values() if drafter.store is not None)

    def __len__(self) -> int:
        """Tokens held."""
        return sum(len(drafter.store) for drafter in self._drafters.values() if drafter.store is not None)

    def of(self, request: Request) -> Drafter:
        """The drafter of a request's purpose and group."""
        if self.config.pool == "none":
            return self._own
        group = self.group_of(request) if self.config.pool == "grouped" and self.group_of is not None else ""
        name = f"{request.purpose}/{group}"
        if name not in self._drafters:
            store = DraftStore(self.tokenizer, self.config.most_tokens)
            self._drafters[name] = Drafter(store, self.config.drafts)
        return self._drafters[name]

    def add(self, requests: Sequence[Request], answers: Sequence[Sequence[int]]) -> None:
        """Learn from answers; where all pools hold more than is allowed, the largest gives."""
        by_drafter: dict[int, tuple[Drafter, list[Sequence[int]]]] = {}
        for request, answer in zip(requests, answers, strict=True):
            drafter = self.of(request)
            by_drafter.setdefault(id(drafter), (drafter, []))[1].append(answer)
        for drafter, new in by_drafter.values():
            if drafter.store is not None:
                drafter.store.add(new)
        while len(self) > self.config.most_tokens:
            largest = max((d.store for d in self._drafters.values() if d.store is not None), key=len)
            largest.shrink(max(len(largest) * 3 // 4, 1))

    def save(self, folder: Path) -> None:
        """One file a pool. Raises `StorageError`."""
        for name, drafter in self._drafters.items():
            if drafter.store is not None:
                drafter.store.save(folder / f"{_file_name(name)}.drafts")

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote. Raises `StorageError` or `InputError` as `DraftStore.load` does."""
        for path in sorted(folder.glob("*.drafts")):
            store = DraftStore.load(path, self.tokenizer, self.config.most_tokens)
            self._drafters[bytes.fromhex(path.stem).decode()] = Drafter(store, self.config.drafts)


def _file_name(name: str) -> str:
    return name.encode().hex()
