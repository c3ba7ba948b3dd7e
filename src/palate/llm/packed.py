"""Linear layers of a model on a CPU, their weights laid out once in the order in which oneDNN's kernels read them.

torch otherwise lays the weights out anew at each product of more than one row: reading a few tokens at a time, as with
drafts, then takes up to twice as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer that answers; to train or save it, `unpack`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return found


def pack(network: Any) -> bool:
    """Replace the linear layers of `network` but those that cannot be; false if none can."""
    packed = False
    for parent, name, child in _layers(network, nn.Linear):
        try:
            layer = PackedLinear(child)
            layer(child.weight.new_zeros(1, child.in_features))
        except (AttributeError, RuntimeError):  # no oneDNN, none for these numbers, or another torch: it goes without
            continue
        setattr(parent, name, layer)
        packed = True
    return packed


def unpack(network: Any) -> None:
    """What `pack` did, undone: the same weights, tied again."""
    for parent, name, child in _layers(network, PackedLinear):
        weight = child.weight.to_dense()
        linear = nn.Linear(weight.shape[1], weight.shape[0], child.bias is not None, device="meta")
        linear.weight = nn.Parameter(weight)
        if child.bias is not None:
            linear.bias = nn.Parameter(child.bias)
        setattr(parent, name, linear)
    network.tie_weights()


def _layers(network: Any, kind: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    return [(part, name, own) for part in network.modules() for name, own in part.named_children() if type(own) is kind]
