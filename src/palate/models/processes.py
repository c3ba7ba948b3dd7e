"""More than one process training one network: what torchrun starts, summed by plain all-reduce."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """The processes that train together; alone where torchrun did not start this one.

    Joins the group that torchrun's environment names, once for the life of the process.
    """

    def __init__(self, device: str = "cpu") -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            atexit.register(dist.destroy_process_group)
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    def mean_gradients(self, parameters: Sequence[Tensor], size: int) -> None:
        """Make each gradient the mean over all processes, each weighted by the `size` of its batch (0: it had none)."""
        if self.world == 1:
            return
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(part.flatten() for part in parts), torch.ones_like(parts[0].flatten()[:1])]) * size
        dist.all_reduce(flat)
        flat /= flat[-1].clone()
        for parameter, part in zip(parameters, torch.split(flat[:-1], [p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def first(self, figure: float) -> float:
        """What the first process says."""
        if self.world == 1:
            return figure
        said = torch.tensor([figure], dtype=torch.float64)
        if dist.get_backend() == "nccl":
            said = said.cuda()
        dist.broadcast(said, 0)
        return float(said)

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite `tensors` with those of the first process."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)
