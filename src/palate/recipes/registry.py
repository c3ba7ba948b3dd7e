"""Recipes by name: one function a published system, from a `Study` to a `Report`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points

from palate.errors import InputError
from palate.experiments.study import Report, Study

Recipe = Callable[[Study], Report]

RECIPES: dict[str, str] = {
    "explore": "palate.recipes.explore:explore",
    "annotators": "palate.recipes.annotators:annotators",
    "genre-spectrum": "palate.recipes.genre_spectrum:genre_spectrum",
    "tagllm": "palate.recipes.tagllm:tagllm",
    "kar": "palate.recipes.kar:kar",
    "dare": "palate.recipes.dare:dare",
    "rella": "palate.recipes.rella:rella",
    "proof": "palate.recipes.proof:proof",
}


def names() -> dict[str, str]:
    """Name to `module:function`, ours and those of other packages (entry points `palate.recipes`)."""
    return RECIPES | {point.name: point.value for point in entry_points(group="palate.recipes")}


def load(name: str) -> Recipe:
    """The recipe of that name; its docstring says paper, claim, baseline and controls.

    Raises:
        InputError: No such recipe, or a package that it needs is missing.
    """
    known = names()
    if name not in known:
        raise InputError("There is no such recipe.", got=name, allowed=", ".join(sorted(known)))
    module, function = known[name].split(":")
    try:
        recipe: Recipe = getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        raise InputError(f"The recipe {name} needs a package that is missing.", got=error) from error
    return recipe
