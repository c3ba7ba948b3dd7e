"""Dropout whose random numbers are cheap on a processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """`nn.Dropout`, with one random byte an element: there torch's own costs a sixth of a training step, this a 40th.

    The chance is rounded to a 256th; what is kept is scaled by just that, so that the mean stays.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.kept = p, max(1, round((1 - p) * 256))

    def forward(self, x: Tensor) -> Tensor:
        """`x` of any shape, unchanged in evaluation."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), dtype=torch.int64)
        mask = words.view(torch.uint8)[: x.numel()].view(x.shape) < self.kept
        return x * mask.to(x.dtype).mul_(256 / self.kept)

    def extra_repr(self) -> str:
        return f"p={self.p}"
