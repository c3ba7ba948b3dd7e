"""A set of 64-bit marks in some 16 bytes each; Python's own takes six times as much."""

from __future__ import annotations

from array import array


class Seen:
    """Marks of what has been seen. Two different things are taken for one with a chance of n² / 2⁶⁵."""

    def __init__(self) -> None:
        self._table, self._count = array("Q", bytes(8 << 10)), 0
        self._zero = False  # in the table 0 is a free place

    def add(self, mark: int) -> bool:
        """Is `mark` (0 to 2⁶⁴ - 1) new?"""
        if 5 * self._count >= 3 * len(self._table):
            self._grow()
        new = self._put(mark) if mark else not self._zero
        self._zero |= mark == 0
        self._count += new
        return new

    def _put(self, mark: int) -> bool:
        table, mask = self._table, len(self._table) - 1
        place = mark & mask
        while table[place]:
            if table[place] == mark:
                return False
            place = (place + 1) & mask
        table[place] = mark
        return True

    def _grow(self) -> None:
        old, self._table = self._table, array("Q", bytes(16 * len(self._table)))
        for mark in old:
            if mark:
                self._put(mark)
