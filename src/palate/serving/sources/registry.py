"""Sources by name. Other packages add theirs as entry points of the group `palate.sources`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, cast

from palate.models.parts import named

if TYPE_CHECKING:
    from palate.serving.candidates import Source

GROUP = "palate.sources"
# name -> "module:function"
SOURCES = {
    "sequence": "palate.serving.sources.sequence:sequence",
    "exploration": "palate.serving.sources.exploration:exploration",
    "attribute": "palate.serving.sources.attribute:attribute",
    "similar": "palate.serving.sources.similar:similar",
    "fresh": "palate.serving.sources.fresh:fresh",
    "popular": "palate.serving.sources.popular:popular",
}


@cache
def source(name: str) -> Source:
    """The function of that name. Raises `InputError` where there is none."""
    return cast("Source", named(name, SOURCES, GROUP, "source of candidates"))
