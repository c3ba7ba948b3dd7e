"""Parts of models by name: our own, loaded when they are asked for, and those of other packages (entry points)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from palate.errors import InputError


def named(name: str, known: Mapping[str, str], group: str, what: str) -> Any:
    """What `known` (name to "module:attribute") or an entry point of `group` has under that name.

    Raises:
        InputError: There is none; `what` says of which kind.
    """
    if name in known:
        module, attribute = known[name].split(":")
        return getattr(import_module(module), attribute)
    others = {point.name: point for point in entry_points(group=group)}
    if name in others:
        return others[name].load()
    raise InputError(f"There is no such {what}", got=name, allowed=", ".join((*known, *others)))


def configured(kind: Any, params: Mapping[str, Any]) -> Any:
    """`kind.Config` of these parameters. Raises `InputError` where they do not fit."""
    try:
        return kind.Config(**params)
    except ValueError as error:  # pydantic's, which is one
        name = getattr(kind, "__name__", "part")
        raise InputError("The parameters of a part of a model do not fit", where=name, got=error) from error
