"""Models by name, for YAML and the command line. Python code imports the class."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import BaseModel

from palate.errors import InputError
from palate.models.recommender import Recommender

# name -> "module:Class"; the configuration class is "<Class>Config" beside it.
MODELS = {
    "popularity": "palate.models.popularity:Popularity",
    "markov": "palate.models.markov:Markov",
    "item-knn": "palate.models.item_knn:ItemKnn",
    "ease": "palate.models.ease:Ease",
    "two-tower": "palate.models.two_tower:TwoTower",
    "gru4rec": "palate.models.gru4rec:Gru4Rec",
    "hstu": "palate.models.hstu:Hstu",
    "learn": "palate.models.learn:Learn",
    "sasrec": "palate.models.sasrec:SasRec",
}


def make(name: str, params: dict[str, Any] | None = None, **parts: Any) -> Recommender:
    """The model of that name with `params` for its configuration; `parts` (checkpoint, ...) go to the class.

    Raises:
        InputError: No such model, parameters that do not fit, or a package it needs is missing.
    """
    made_by, configured_by = _classes(name)
    try:
        config = configured_by(**(params or {}))
    except ValueError as error:  # pydantic's, which is one
        raise InputError(f"The parameters of the model {name} do not fit", got=error) from error
    model: Recommender = made_by(config, **parts)
    return model


def config_class(name: str) -> type[BaseModel]:
    """The configuration class of the model of that name. Raises as `make` does."""
    return _classes(name)[1]


def _classes(name: str) -> tuple[Any, type[BaseModel]]:
    if name not in MODELS:
        raise InputError("There is no such model", got=name, allowed=", ".join(MODELS))
    module, kind = MODELS[name].split(":")
    try:
        loaded = import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The model {name} needs a package that is missing", got=error, hint="pip install 'palate[train]'"
        ) from error
    configured_by: type[BaseModel] = getattr(loaded, f"{kind}Config")
    return getattr(loaded, kind), configured_by
