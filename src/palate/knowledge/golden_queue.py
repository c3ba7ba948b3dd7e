"""The queue of items that people are asked to label, beside their labels, and why each is in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.data.whole_file import replace_file
from palate.errors import InputError

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
            where = f"{path}, line {number}"
            raise InputError("A line of the queue is damaged.", where=where, got=error, hint="Remove it.") from error
    return picks


def extend_queue(folder: Path, picks: Sequence[Pick]) -> int:
    """Put `picks` behind the queue, but for those whose item and attribute stand there. Returns how many were put.

    Raises:
        InputError: The queue is damaged; it is left as it is.
        StorageError: It cannot be written; the old one is left.
    """
    queue = read_queue(folder)
    there = {(pick.item_id, pick.attribute) for pick in queue}
    new = [pick for pick in picks if (pick.item_id, pick.attribute) not in there]
    lines = "".join(f"{json.dumps(asdict(pick))}\n" for pick in (*queue, *new))
    replace_file(folder / QUEUE, lines, "The queue of items to label")
    return len(new)


def random_part(folder: Path) -> frozenset[str] | None:
    """The items that were drawn from the whole catalogue; None where nothing was drawn."""
    queue = read_queue(folder)
    return frozenset(pick.item_id for pick in queue if pick.why == "random") if queue else None
