"""The `Adapter` protocol, and what adapters are made of. b rows, vectors du and di wide, fields d wide."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from palate.errors import InputError


class AdapterConfig(BaseModel):
    """What can be set of an adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(Protocol):
    """A class of modules that map a user's and an item's vectors to k more fields.

    A width of 0 on one side says that nothing is known there; that side has no fields then. A module may also have
    `beside(user [b, d], item [b, d])`, called with the behaviour of the same rows (the mean of the history and the item
    as its ids have it), `labelled(labels)`, and `auxiliary()`, a term of the loss of the last forward pass.
    The class may have `prepared(vectors, config)` and `counted(items, counts)`: vectors as it wants them.
    """

    Config: ClassVar[type[AdapterConfig]]

    def __call__(self, du: int, di: int, width: int, config: AdapterConfig) -> nn.Module: ...


class Sided(nn.Module):
    """An adapter whose fields belong to the user or to the item: [b, du], [b, di] to the fields of both, [b, k, d].

    Fields of one side hang on its vector alone, so that they can be made beforehand (`precompute`).
    """

    def __init__(self, du: int, di: int) -> None:
        super().__init__()
        if not du and not di:
            raise InputError("An adapter needs vectors of users, of items, or of both", got="widths 0 and 0")
        self.widths = {name: n for name, n in (("user", du), ("item", di)) if n}

    def side(self, name: str, x: Tensor) -> Tensor:
        """The fields of "user" or "item", [b, n] to [b, k, d]."""
        raise NotImplementedError

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        given = {"user": user, "item": item}
        return torch.cat([self.side(name, given[name]) for name in self.widths], 1)


class Mapped(Sided):
    """One MLP for each side."""

    def __init__(self, du: int, di: int, hidden: int, width: int) -> None:
        super().__init__(du, di)
        self.maps = nn.ModuleDict({name: mlp(n, hidden, width) for name, n in self.widths.items()})

    def side(self, name: str, x: Tensor) -> Tensor:
        return self.maps[name](x)[:, None]  # type: ignore[no-any-return]


def mlp(n: int, hidden: int, width: int) -> nn.Sequential:
    """n → hidden → width with ReLU, after the last layer too (as KAR's experts have it)."""
    return nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())


def known(vectors: Tensor) -> Tensor:
    """[b] as 0 or 1: whether anything is known; rows of zeros say that nothing is."""
    return vectors.ne(0).any(1).to(vectors.dtype)


def one_space(name: str, du: int, di: int) -> None:
    """Raises `InputError` where the two sides' vectors cannot be compared."""
    if not du or du != di:
        raise InputError(
            f"The adapter {name} needs vectors of users and items in one space",
            got=f"{du} and {di} wide",
            hint="encode both with the same encoder, or take another adapter (mlp)",
        )
