"""`Knowledge`: typed tables of answers about entities, each row with its provenance."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

KINDS = ("label", "tag", "profile", "fact", "vector", "edge", "transition", "name")

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "entity": pl.String,  # item_id, user_id, "node" or "node|node"
    "name": pl.String,  # the attribute, relation or slot
    "value": pl.Float32,  # label: probability that it fits, 0..1; else null
    "text": pl.String,  # tag, profile, fact, transition, name: what was said
    "vector": pl.List(pl.Float32),
    "confidence": pl.Float32,  # 0..1 or null
    "model": pl.String,  # who said it
    "source": pl.String,  # "llm", "student", "recorded", "human", "encoder"
    "content_hash": pl.String,  # of what the model was shown of the entity
    "prompt_hash": pl.String,  # the ledger's key, or the recorded prompt's hash
    "as_of": pl.Datetime("us", "UTC"),  # nothing later was known to the answer
    "version": pl.String,  # label: the attribute's wording (`Attribute.version`)
    "evidence": pl.String,  # label, tag: words of the item that the answer rests on
    "tokens": pl.Int64,
    "cost": pl.Float64,
}


@dataclass(frozen=True)
class Knowledge:
    """One table for each kind of answer, all in `SCHEMA`. Never overwritten: newer rows are added behind."""

    tables: dict[str, pl.DataFrame] = field(default_factory=dict)

    def table(self, kind: str) -> pl.DataFrame:
        return self.tables.get(kind, pl.DataFrame(schema=SCHEMA))
