"""The weights of a network: copied, checked, put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from palate.errors import InputError
from palate.models.checkpoint import State


def copied(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def tensors_of(state: State, prefix: str = "") -> dict[str, Tensor]:
    """The arrays whose names begin with `prefix`, by the rest of the name."""
    return {n.removeprefix(prefix): torch.from_numpy(a) for n, a in state.arrays.items() if n.startswith(prefix)}


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put `weights` into `network`.

    Raises:
        InputError: A tensor is missing, unknown or of another shape; it is named, and the network left as it was.
    """
    wanted = network.state_dict()
    for name in [*wanted, *(name for name in weights if name not in wanted)]:
        got, allowed = (list(t[name].shape) if name in t else "no such tensor" for t in (weights, wanted))
        if got != allowed:
            raise InputError(
                "The weights do not fit the network",
                where=f"{where}, tensor {name}",
                got=got,
                allowed=allowed,
                hint="use the sizes and data that it was trained with, or train anew",
            )
    network.load_state_dict(weights)
