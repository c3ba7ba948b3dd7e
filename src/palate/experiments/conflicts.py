"""Experiments that cannot run beside each other, found before anybody is shown anything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from palate.errors import InputError
from palate.experiments.declare import Experiment


def check_together(experiments: Sequence[Experiment]) -> None:
    """Refuse experiments that take the same units of a layer, or set the same things, at the same time.

    Raises:
        InputError: naming the two, what they share, and what is free.
    """
    for one, other in itertools.combinations(experiments, 2):
        if not (one.start < other.end and other.start < one.end):
            continue
        where = f"experiments {one.name} and {other.name}"
        same_layer = one.split.layer == other.split.layer
        if same_layer and one.slots[0] < other.slots[1] and other.slots[0] < one.slots[1]:
            raise InputError(
                "Two experiments of a layer take the same units at the same time.",
                where=f"{where}, layer {one.split.layer}",
                got=f"slots {_span(one)} and {_span(other)}",
                allowed=f"stretches that do not touch; free: {_free(one, experiments)}",
                hint="Give one of them other slots, another layer, or another time.",
            )
        both = sorted(_set_by(one) & _set_by(other))
        if not same_layer and both:
            raise InputError(
                "Two experiments that run at the same time set the same thing.",
                where=where,
                got=", ".join(both),
                hint="Put them into one layer with slots that do not touch: a unit is then in one of them alone.",
            )
        if not same_layer and one.split.salt == other.split.salt:
            hint = "Give each a salt of its own, or leave it to the name."
            raise InputError(
                "Two experiments draw by the same salt, so that one's variants are the other's.",
                where=where,
                got=one.split.salt,
                hint=hint,
            )


def _set_by(experiment: Experiment) -> set[str]:
    """What any variant changes, sections whole: which of two would lie over the other is nobody's to guess."""
    return {name for variant in experiment.variants.values() for name in variant.settings}


def _span(experiment: Experiment) -> str:
    return f"{experiment.slots[0]:g} to {experiment.slots[1]:g}"


def _free(one: Experiment, experiments: Sequence[Experiment]) -> str:
    """What is left of the layer while an experiment runs."""
    beside = [
        each
        for each in experiments
        if each.split.layer == one.split.layer and each.start < one.end and one.start < each.end
    ]
    reached, free = 0.0, []
    for first, last in sorted(each.slots for each in beside):
        if first > reached:
            free.append(f"{reached:g} to {first:g}")
        reached = max(reached, last)
    if reached < 1:
        free.append(f"{reached:g} to 1")
    return ", ".join(free) or "nothing"
