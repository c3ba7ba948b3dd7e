"""The queue of items that people are asked to label, beside their labels, and why each is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.errors import InputError
from palate.knowledge.rater_labels import replace_file

QUEUE = "queue.jsonl"  # no .csv: those are labels


@dataclass(frozen=True)
class Pick:
    """One item worth labelling.

    `probability`: with which it was drawn, of the items that could have been (None: it was chosen, not drawn).
    `score`: what chose it (distance to 0.5, spread of the sources). A row with `ask` false was drawn at random but is
    labelled already: it is kept because the random part must be a sample of the whole catalogue.
    """

    item_id: str
    why: str
    probability: float | None = None
    attribute: str | None = None
    score: float | None = None
    stratum: str | None = None
    ask: bool = True


def read_queue(folder: Path) -> list[Pick]:
    """The queue of a golden folder, in the order of asking; empty where none was drawn.

    Raises:
        InputError: naming the line that cannot be read.
    """
    path = folder / QUEUE
    if not path.exists():
        return []
    picks = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            picks.append(Pick(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError("A line of the queue is damaged.", where=f"{path}, line {number}", got=error) from error
    return picks


def extend_queue(folder: Path, picks: Sequence[Pick]) -> Path:
    """Put `picks` behind the queue."""
    lines = [json.dumps(asdict(pick)) for pick in (*read_queue(folder), *picks)]
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / QUEUE, "".join(f"{line}\n" for line in lines).encode())
    return folder / QUEUE


def random_part(folder: Path) -> frozenset[str] | None:
    """The items that were drawn from the whole catalogue; None where nothing was drawn."""
    queue = read_queue(folder)
    return frozenset(pick.item_id for pick in queue if pick.why == "random") if queue else None
