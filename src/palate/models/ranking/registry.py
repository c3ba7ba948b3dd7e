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
    "dcn": "palate.models.ranking.dcn:Dcn",
    "dcnv2": "palate.models.ranking.dcnv2:DcnV2",
    "xdeepfm": "palate.models.ranking.xdeepfm:XDeepFM",
    "autoint": "palate.models.ranking.autoint:AutoInt",
    "fibinet": "palate.models.ranking.fibinet:FiBiNet",
    "fignn": "palate.models.ranking.fignn:FiGnn",
    "din": "palate.models.ranking.din:Din",
    "dien": "palate.models.ranking.dien:Dien",
    "mmoe": "palate.models.ranking.multi_task:Mmoe",
    "stem": "palate.models.ranking.multi_task:Stem",
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
