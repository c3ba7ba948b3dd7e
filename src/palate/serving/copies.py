"""Codes of the rows of restricts that are asked for often, one row behind the other."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from palate.data.dataset import FloatArray
from palate.serving.scores import Codes
from palate.serving.spans import Allowed

Copy = tuple[Codes, FloatArray]  # codes and scales of the allowed rows
_OFTEN = 3  # looks until a copy is made
_FEW = 512  # rows that are as soon gathered
_MOST_BYTES, _GREATEST = 64 * 2**20, 16 * 2**20  # of all, of one


class Copies:
    """Rows far apart are slow to gather, and where many are wanted all codes are read; a copy is read through.

    The least recently asked for is dropped where all take more than 64 MiB, with their rows; none has more than 16.

    Args:
        codes: [n_items, d].
        scales: [n_items].
    """

    def __init__(self, codes: Codes, scales: FloatArray) -> None:
        self.codes, self.scales = codes, scales
        self._looks: OrderedDict[int, tuple[Allowed, int, Copy | None]] = OrderedDict()
        self.bytes, self._lock = 0, Lock()

    def of(self, allowed: Allowed) -> Copy | None:
        """From the third look on; None before, for what is one person's, and where a copy saves nothing."""
        rows = allowed.rows
        if not allowed.kept or rows is None or len(rows) < _FEW or (self.codes.shape[1] + 4) * len(rows) > _GREATEST:
            return None
        looks, copy = self._looks.get(id(allowed), (allowed, 0, None))[1:]
        if copy is None and looks + 1 >= _OFTEN:
            copy = self._copied(allowed)
        with self._lock:
            former = self._looks.pop(id(allowed), None)
            self._looks[id(allowed)] = allowed, looks + 1, copy  # held: no other object has its number
            self.bytes += _size(allowed, copy) - (0 if former is None else _size(allowed, former[2]))
            while self.bytes > _MOST_BYTES:
                other, _, theirs = self._looks.popitem(last=False)[1]
                self.bytes -= _size(other, theirs)
        return copy

    def _copied(self, allowed: Allowed) -> Copy:
        codes, scales = self.codes[allowed.rows], self.scales[allowed.rows]
        # Of another kind of array the search would be compiled anew.
        codes.flags.writeable, scales.flags.writeable = self.codes.flags.writeable, self.scales.flags.writeable
        return codes, scales


def _size(allowed: Allowed, copy: Copy | None) -> int:
    """Bytes of rows and copy."""
    rows = 0 if allowed.rows is None else allowed.rows.nbytes
    return rows + (0 if copy is None else copy[0].nbytes + copy[1].nbytes)
