"""Tag knowledge distillation: a teacher's tags as examples for a small model (TagLLM, arXiv 2603.21481)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from palate.data.dataset import Dataset
from palate.knowledge.tag_prompts import plain_request
from palate.knowledge.tags import tag_text
from palate.llm.request import Request


@dataclass(frozen=True)
class Taught:
    """An item's tags by its teacher, as the request that should bring them about and its answer."""

    item_num: int
    request: Request
    answer: str


def taught(dataset: Dataset, tags: pl.DataFrame, items: Sequence[int], n: int = 5) -> list[Taught]:
    """What a teacher's tag rows say of `items`: item text to tags, no reasoning, the prompt of the plain route.

    Items without text or without tags are left out.
    """
    own: dict[str, list[str]] = dict(tags.group_by("entity", maintain_order=True).agg("text").iter_rows())
    found = []
    for num in items:
        text, said = tag_text(dataset, num), own.get(dataset.item_ids[num], [])[:n]
        if text.strip() and said:
            found.append(Taught(num, plain_request(text, dataset.item_ids[num], n), "; ".join(said)))
    return found
