"""Who gets what in an experiment: a salted hash of the unit's id, the same on every machine, with nothing to keep.

A layer is a line from 0 to 1 on which every unit has one place, and an experiment of the layer takes the units of a
stretch: experiments on stretches that do not touch exclude each other, those of different layers are independent
since each layer and each experiment hashes with its own salt. Within an experiment a second hash draws the variant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

NOBODY = "default"
"""What is logged of a unit that no experiment took."""
_BETWEEN, _OF, _FORCED = "|", ":", "!"


@dataclass(frozen=True)
class Split:
    """How an experiment takes units and divides them.

    Attributes:
        salt: Draws the variants; another one divides the units anew.
        first, last: The stretch [first, last) of the layer, in 0..1.
        shares: Variant to its share of the experiment's units, 1 in all.
        start, end: When it takes units, with a time zone; None: from ever, for ever.
        overrides: Unit to variant, for tests: wherever the unit stands, and whatever the time.
    """

    experiment: str
    salt: str
    layer: str
    shares: Mapping[str, float]
    first: float = 0.0
    last: float = 1.0
    start: datetime | None = None
    end: datetime | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)

    def runs_at(self, moment: datetime) -> bool:
        return (self.start is None or self.start <= moment) and (self.end is None or moment < self.end)


@dataclass(frozen=True)
class Assigned:
    """A variant, drawn or `forced` by an override."""

    variant: str
    forced: bool = False


def assign(split: Split, unit: str, moment: datetime) -> Assigned | None:
    """The variant of a unit at a moment; None where the experiment does not take it. An empty id is nobody."""
    if unit in split.overrides:
        return Assigned(split.overrides[unit], forced=True)
    if not unit or not split.runs_at(moment):
        return None
    if not split.first <= place("layer", split.layer, unit) < split.last:
        return None
    at, reached = place("variant", split.salt, unit) * math.fsum(split.shares.values()), 0.0
    for variant, share in split.shares.items():
        reached += share
        if at < reached:
            return Assigned(variant)
    return Assigned(list(split.shares)[-1])  # what rounding left over


def place(*names: str) -> float:
    """Where the hash of `names` falls in [0, 1): uniform, and independent for any two that differ."""
    packed = "\x00".join(f"{len(name)}\x00{name}" for name in names)  # no two lists of names are one text
    number = int.from_bytes(hashlib.blake2b(packed.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
    return (number >> 11) / 2**53  # as many bits as a float holds: never rounded up to 1


def label(assigned: Mapping[str, Assigned]) -> str:
    """What is logged as `variant` of an impression: `novelty:more|ranker:control`, `!` behind what was forced."""
    said = [f"{name}{_OF}{each.variant}{_FORCED if each.forced else ''}" for name, each in sorted(assigned.items())]
    return _BETWEEN.join(said) or NOBODY


def read_label(text: str) -> dict[str, Assigned]:
    """The variant in each experiment that a label names; nothing for a label of another kind."""
    found = {}
    for part in text.split(_BETWEEN):
        name, of, variant = part.partition(_OF)
        if of and name and variant.removesuffix(_FORCED):
            found[name] = Assigned(variant.removesuffix(_FORCED), variant.endswith(_FORCED))
    return found


def assign_all(splits: Iterable[Split], unit: str, moment: datetime) -> dict[str, Assigned]:
    """The unit's variant in every experiment that takes it."""
    found = {split.experiment: assign(split, unit, moment) for split in splits}
    return {name: each for name, each in found.items() if each is not None}
