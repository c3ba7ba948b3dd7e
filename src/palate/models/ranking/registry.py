"""Ranking backbones by name. Other packages add theirs as entry points of the group `palate.backbones`."""

from __future__ import annotations

from typing import cast

from palate.models.parts import named
from palate.models.ranking.blocks import Factory

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
    """The class of that name. Raises `InputError` where there is none."""
    return cast(Factory, named(name, BACKBONES, GROUP, "ranking backbone"))
