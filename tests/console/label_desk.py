"""A small catalogue to label, some of its texts nasty."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hostile_snapshot import HOSTILE

from palate.console.label_desk import Desk
from palate.data.dataset import EVENT_SCHEMA, Dataset
from palate.knowledge.attributes import Attribute, Example

FUNNY = Attribute(
    name="funny",
    question="Does this make people laugh?",
    guidance="Count what is meant to be funny, not what fails to be serious.",
    edge_cases=("Black comedies count.",),
    examples=(Example(item="Two clowns and a goose", answer="Yes"),),
)
MOOD = Attribute(name="mood", question="How dark is the mood?", options=("dark", "mixed", "light"))
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000000030001a9f15f270000000049454e44ae426082"
)


def make_desk(folder: Path, n: int = 20, titles: tuple[str, ...] = ()) -> Desk:
    """`n` items `i0`...; `i1` has a picture."""
    (folder / "a.png").write_bytes(PNG)
    names = [titles[k] if k < len(titles) else f"Film {k}" for k in range(n)]
    items = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "title": names,
            "text": [None if k == 2 else f"A story about {name}." * 3 for k, name in enumerate(names)],
            "categories": [["Drama", HOSTILE[0]]] * n,
            "media": [
                ["../../etc/passwd", "a.png", "http://elsewhere/x.png", "a\0", "http://[", "desk.py"]
                if k == 1
                else None
                for k in range(n)
            ],
        }
    )
    dataset = Dataset.from_tables(items, pl.DataFrame(schema=EVENT_SCHEMA))
    return Desk(dataset, [FUNNY, MOOD], dataset.item_ids, folder / "golden", folder)
