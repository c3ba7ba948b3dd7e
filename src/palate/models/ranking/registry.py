"""Ranking backbones by name. Other packages add theirs as entry points of the group `palate.backbones`."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from palate.errors import InputError
from palate.models.ranking.blocks import BackboneConfig, Factory

GROUP = "palate.backbones"
# name -> "module:Class"
BACKBONES = {
    "deepfm": "palate.models.ranking.deepfm:DeepFM",
    "din": "palate.models.ranking.din:Din",
}


def backbone(name: str) -> Factory:
    """The class of that name.

    Raises:
        InputError: There is none.
    """
    if name in BACKBONES:
        module, kind = BACKBONES[name].split(":")
        return cast(Factory, getattr(import_module(module), kind))
    others: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if name in others:
        return cast(Factory, others[name].load())
    raise InputError("There is no such ranking backbone", got=name, allowed=", ".join((*BACKBONES, *others)))


def configured(factory: Factory, params: dict[str, Any]) -> BackboneConfig:
    """Raises `InputError` where `params` do not fit the class's configuration."""
    try:
        return factory.Config(**params)
    except ValueError as error:  # pydantic's, which is one
        raise InputError("The parameters of the ranking backbone do not fit", got=error) from error
