"""The nearest items to what the sequence model makes of the history."""

from __future__ import annotations

from palate.serving import reasons
from palate.serving.candidates import Asked, Candidates, retrieved


def sequence(asked: Asked) -> list[Candidates]:
    why = reasons.by_history(asked.snapshot, asked.query.history)
    return [retrieved(asked, "sequence", asked.query, asked.pool("sequence"), why, asked.config.probe)]
