"""`Query`: what is asked of a recommender."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from palate.data.dataset import IntArray
from palate.data.expression import Expression, Term, both, mentions


def _no_items() -> IntArray:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Restrict:
    """Which items may be answered: in any of `nodes` (interest tree), with all of `attributes`, and as `where` says.

    Empty fields do not restrict.
    """

    nodes: tuple[int, ...] = ()
    attributes: tuple[str, ...] = ()
    where: Expression | None = None

    @cached_property
    def expression(self) -> Expression:
        """All that is asked, as one."""
        nodes = Term("node", "in", tuple(map(float, self.nodes)), -1) if self.nodes else None
        return both(nodes, *(Term("attr", "in", (name,), -1) for name in self.attributes), self.where)

    def is_about(self, *fields: str) -> bool:
        """Whether it says anything of the fields ("node", "attr", "seen", …)."""
        return mentions(self.expression, *fields)


@dataclass(frozen=True)
class Query:
    """A user or nobody, a history, an as-of time and a restrict.

    `history` holds `item_num`s, oldest first. `as_of` is in microseconds since the epoch, UTC: nothing
    learned later may be used. Seen items (`history`) are left out of answers where `exclude_seen`. `times` are those
    of the history's events, where they are known; a model that reads them takes unknown ones to be `as_of`.
    """

    user_id: str | None = None
    history: IntArray = field(default_factory=_no_items)
    as_of: int | None = None
    restrict: Restrict | None = None
    exclude_seen: bool = True
    times: npt.NDArray[np.int64] | None = None
