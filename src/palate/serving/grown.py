"""What a snapshot and the items beside it are called, without copying what the snapshot says: a new item is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar, overload

T = TypeVar("T")


class Chained(Sequence[T]):
    """Two sequences as one."""

    def __init__(self, first: Sequence[T], more: Sequence[T]) -> None:
        self.first, self.more = first, more

    def __len__(self) -> int:
        return len(self.first) + len(self.more)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        return self.first[place] if place < len(self.first) else self.more[place - len(self.first)]

    def __iter__(self) -> Iterator[T]:
        return chain(self.first, self.more)


class ItemNums(Mapping[str, int]):
    """item_nums by item_id, of a snapshot and of the items beside it; what is gone has none."""

    def __init__(self, built: Mapping[str, int], new: Mapping[str, int], gone: frozenset[int]) -> None:
        self.built, self.new, self.gone = built, new, gone

    def __getitem__(self, item_id: str) -> int:
        num = self.new.get(item_id)
        if num is None:
            num = self.built[item_id]
        if num in self.gone:
            raise KeyError(item_id)
        return num

    def __iter__(self) -> Iterator[str]:
        yield from (item_id for item_id, num in self.built.items() if num not in self.gone)
        yield from self.new

    def __len__(self) -> int:
        return len(self.built) - len(self.gone) + len(self.new)
