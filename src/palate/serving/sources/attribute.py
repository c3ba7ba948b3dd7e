"""Of each attribute that the person is drawn to, the nearest items that have it (`serving.affinity`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from palate.data.query import Restrict
from palate.serving import affinity, reasons
from palate.serving.candidates import Asked, Candidates, retrieved


def attribute(asked: Asked) -> list[Candidates]:
    """Nothing under a restrict of attributes."""
    snapshot, query, config = asked.snapshot, asked.query, asked.config.attribute
    if asked.is_about("attr"):
        return []
    result = []
    for name, found in affinity.triggered(snapshot.columns, query.history, config).items():
        narrowed = replace(query, restrict=replace(query.restrict or Restrict(), attributes=(name,)))
        why = partial(reasons.for_attribute, snapshot, attribute=name, share=found.share, base=found.base)
        result.append(retrieved(asked, "attribute", narrowed, asked.pool("attribute"), why))
    return result
