"""Few-shot examples: dev items like the one asked about, with what people said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray
from palate.knowledge.attributes import Attribute, Example


class Shots:
    """Picks examples by the cosine of sentence vectors.

    Args:
        dev: Golden rows of the dev side, never of the held-out one.
        vectors: Unit vectors of the items, [n_items, d] in the order of `item_ids`.
        text_of: From an item_num to its text.
    """

    def __init__(
        self, dev: pl.DataFrame, vectors: FloatArray, item_ids: Sequence[str], text_of: Callable[[int], str]
    ) -> None:
        self._vectors, self._text_of = vectors, text_of
        numbers = {item_id: num for num, item_id in enumerate(item_ids)}
        votes = (
            dev.drop_nulls("value").group_by("item_id", "attribute", maintain_order=True).agg(pl.col("value").mean())
        )
        self._judged: dict[str, list[tuple[int, float]]] = {}
        for item_id, attribute, value in votes.iter_rows():
            self._judged.setdefault(attribute, []).append((numbers[item_id], value))

    def of(self, item_num: int, attribute: Attribute, n: int, chars: int, skip: int = 0) -> tuple[Example, ...]:
        """At most `n` examples, never the item itself, in turn from each option; the likest one last.

        Args:
            chars: Of all examples together.
            skip: Leave out so many sets of `n`: jurors see different examples.
        """
        by_option = self._by_option(item_num, attribute)
        picked: list[tuple[float, int, str]] = []
        for place in range(n):
            option = attribute.options[place % len(attribute.options)]
            held = by_option.get(option, [])
            rank = place // len(attribute.options) + skip * -(-n // len(attribute.options))
            picked += [(*held[rank], option)] if rank < len(held) else []
        each = chars // max(n, 1)
        return tuple(Example(item=_begun(self._text_of(num), each), answer=option) for _, num, option in sorted(picked))

    def _by_option(self, item_num: int, attribute: Attribute) -> dict[str, list[tuple[float, int]]]:
        """For each option the judged items, the likest first."""
        judged = [(num, value) for num, value in self._judged.get(attribute.name, []) if num != item_num]
        if not judged:
            return {}
        alike = self._vectors[[num for num, _ in judged]] @ self._vectors[item_num]
        steps = attribute.steps()
        found: dict[str, list[tuple[float, int]]] = {}
        for place in np.argsort(-alike, kind="stable"):
            num, value = judged[place]
            option = min(steps, key=lambda option: abs(steps[option] - value))
            if abs(steps[option] - value) < 0.5 / (len(steps) - 1):  # neither half way nor split
                found.setdefault(option, []).append((float(alike[place]), num))
        return found


def _begun(text: str, chars: int) -> str:
    """The beginning of `text`, to a word's end."""
    if len(text) <= chars:
        return text
    return text[:chars].rsplit(maxsplit=1)[0] + " …"
