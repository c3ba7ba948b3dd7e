"""A snapshot in which every text of data and models is nasty."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))  # tiny_snapshot lives with serving's tests

from tiny_snapshot import tiny_parts

from palate.interests.tree import InterestTree
from palate.knowledge.tables import Knowledge
from palate.serving.snapshot import SnapshotParts

SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(2)</script>",
    "</title></textarea><svg onload=alert(3)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eright to left\u202c שלום",
    "long" * 200,
    "../..",
    "a&b=c#d?e/f+g %41",
    "<!-- ' onclick='alert(4)",
)


def hostile(number: int) -> str:
    return f"{HOSTILE[number % len(HOSTILE)]}{number}"


def hostile_parts() -> SnapshotParts:
    """The tiny snapshot with every text of data and models replaced by something nasty."""
    parts = tiny_parts(80, 12)
    n_items, n_users = parts.items.height, len(parts.user_ids)
    items = parts.items.with_columns(
        item_id=pl.Series([hostile(i) for i in range(n_items)]),
        title=pl.Series([hostile(i) if i % 7 else "" for i in range(n_items)]),
        categories=pl.Series([[hostile(i + 1), hostile(i + 2)] for i in range(n_items)]),
    )
    names = {f"i{i}": hostile(i) for i in range(n_items)} | {f"u{u}": hostile(u) for u in range(n_users)}
    tables = {
        kind: table.with_columns(
            pl.col("entity").replace_strict(names),
            model=pl.lit(HOSTILE[0]),
            prompt_hash=pl.lit(HOSTILE[1]),
            text=pl.when(pl.col("text").is_not_null()).then(pl.lit(HOSTILE[2])),
        )
        for kind, table in parts.knowledge.tables.items()
    }
    nodes = tuple(replace(n, title=hostile(n.node), keywords=HOSTILE[:4]) for n in parts.tree.nodes)
    assert parts.transitions is not None
    attributes = {hostile(k): values for k, values in enumerate(parts.attributes.values())}
    return replace(
        parts,
        items=items,
        user_ids=[hostile(u) for u in range(n_users)],
        tree=InterestTree(nodes, parts.tree.order),
        knowledge=Knowledge(tables),
        transitions=parts.transitions.with_columns(model=pl.lit(HOSTILE[0]), prompt_hash=pl.lit(HOSTILE[1])),
        attributes=attributes,
        attribute_models=dict.fromkeys(attributes, HOSTILE[3]),
        models={HOSTILE[0]: HOSTILE[1]},
        run={"steps": [{"name": text, "seconds": 1.0, "state": text, "detail": {text: text}} for text in HOSTILE]},
    )
