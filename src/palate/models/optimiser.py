"""One step of learning: gradients bounded, weights moved by AdamW, their moving average moved after them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from palate.models.checkpoint import State
from palate.models.weights import copied, tensors_of

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as torch has them


class LazyRows:
    """Adam and the moving average of one large table, on those rows alone that a step has touched.

    The moments of the others wait, as in `torch.optim.SparseAdam`. The average is exact all the same: while a row does
    not move, its average comes nearer to it by a known factor, which is caught up with when it is next needed.

    Args:
        table: [n, d], with sparse gradients.
        mean: Its moving average, moved in place; None: none is taken.
    """

    def __init__(self, table: Tensor, mean: Tensor | None) -> None:
        self.table, self.mean = table, mean
        self.first, self.second = torch.zeros_like(table.data), torch.zeros_like(table.data)
        self.faded = torch.zeros(len(table), dtype=torch.float64, device=table.device)  # log, up to the row's last move
        self.fading = torch.zeros((), dtype=torch.float64)  # log of the beginning's share that is left in the average

    def values(self) -> Tensor | None:
        """The gradient of the touched rows, each once."""
        if self.table.grad is None:
            return None
        given = self.table.grad
        self.table.grad = given.coalesce() if given.is_sparse else given.to_sparse(1)
        return self.table.grad.values()

    def step(self, steps: int, rate: float, past: float) -> None:
        """The `steps`-th step of all; `past` is the share of the past in the average."""
        if self.table.grad is not None:
            rows, gradient = self.table.grad.indices()[0], self.table.grad.values()
            self._catch_up(rows)
            first = self.first[rows].lerp_(gradient, 1 - BETAS[0])
            second = self.second[rows].lerp_(gradient.square(), 1 - BETAS[1])
            self.first[rows], self.second[rows] = first, second
            spread = second.div_(1 - BETAS[1] ** steps).sqrt_().add_(EPSILON)
            self.table.data.index_add_(0, rows, first / spread, alpha=-rate / (1 - BETAS[0] ** steps))
        self.fading += math.log(past)
        if self.table.grad is not None:
            self._catch_up(rows)

    def kept(self) -> dict[str, Tensor]:
        """What must be kept to go on."""
        return {"first": self.first, "second": self.second, "faded": self.faded, "fading": self.fading}

    def catch_up(self) -> None:
        """Bring the average of all rows up to now."""
        self._catch_up(torch.arange(len(self.table), device=self.table.device))

    def _catch_up(self, rows: Tensor) -> None:
        if self.mean is not None:
            kept = (self.fading - self.faded[rows]).exp().to(self.table.dtype)[:, None]
            now = self.table.data[rows]
            self.mean[rows] = now + kept * (self.mean[rows] - now)
        self.faded[rows] = self.fading.to(self.faded.device)


class Optimiser:
    """AdamW with warm-up over the weights of `network`, and their moving average.

    Args:
        network: Whose weights are learned.
        rate: Of learning, after `warmup` steps.
        warmup: Steps in which it rises from 0.
        decay: Of weights, on matrices that are not lazy.
        clip: Greatest norm of the gradient of a step.
        average: Share of the past in the moving average; 0: none is taken.
        lazy: Rows beyond which an embedding is moved only where a step has touched it; None: none is.
    """

    def __init__(
        self, network: nn.Module, rate: float, warmup: int, decay: float, clip: float, average: float, lazy: int | None
    ) -> None:
        self.network, self.rate, self.warmup, self.clip, self.average = network, rate, warmup, clip, average
        self.steps = 0
        self.mean = copied(network) if average else {}
        self.rows: dict[str, LazyRows] = {}
        for name, module in network.named_modules():
            if isinstance(module, nn.Embedding) and module.weight.requires_grad:
                module.sparse = lazy is not None and module.num_embeddings > lazy
                weight = f"{name}.weight"
                if module.sparse:
                    self.rows[weight] = LazyRows(module.weight, self.mean.get(weight))
        learned = [p for name, p in network.named_parameters() if p.requires_grad and name not in self.rows]
        self.parameters = [*learned, *(rows.table for rows in self.rows.values())]
        groups = [
            {"params": [p for p in learned if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in learned if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True)

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> float:
        """Move by the gradients and return their norm; where it is not finite, nothing moves."""
        norm = self._bound()
        if not math.isfinite(norm):
            return norm
        self.steps += 1
        rate = self.rate * (min(1.0, self.steps / self.warmup) if self.warmup else 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        # at first over fewer steps, so that the random weights of the beginning are soon forgotten
        past = min(self.average, self.steps / (self.steps + 10)) if self.average else 1.0
        for rows in self.rows.values():
            rows.step(self.steps, rate, past)
        if self.mean:
            weights = {name: w for name, w in self.network.state_dict().items() if name not in self.rows}
            torch._foreach_lerp_([self.mean[name] for name in weights], list(weights.values()), 1 - past)
        return norm

    def averaged(self) -> Mapping[str, Tensor]:
        """The moving average of all weights, or the weights themselves where none is taken."""
        for rows in self.rows.values():
            rows.catch_up()
        return self.mean or copied(self.network)

    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """What must be kept to go on, besides the weights, in named groups."""
        slots = {f"adam/{number}": slots for number, slots in self.adam.state_dict()["state"].items()}
        lazy = {f"lazy/{name}": rows.kept() for name, rows in self.rows.items()}
        return {"mean": self.mean, **slots, **lazy}

    def take_up(self, state: State, steps: int) -> None:
        """Go on from the arrays of `parts()`, after the weights were put back."""
        self.steps = steps
        for name, tensor in tensors_of(state, "mean/").items():
            self.mean[name].copy_(tensor)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors_of(state, "adam/").items():
            number, slot = name.split("/")
            slots.setdefault(int(number), {})[slot] = tensor
        self.adam.load_state_dict({"state": slots, "param_groups": self.adam.state_dict()["param_groups"]})
        for name, rows in self.rows.items():
            for slot, tensor in rows.kept().items():
                tensor.copy_(torch.from_numpy(state.arrays[f"lazy/{name}/{slot}"]))

    def _bound(self) -> float:
        sparse = [values for rows in self.rows.values() if (values := rows.values()) is not None]
        dense = [p.grad for p in self.parameters if p.grad is not None and not p.grad.is_sparse]
        if not (gradients := [*dense, *sparse]):
            return 0.0
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if norm > self.clip and math.isfinite(norm):
            torch._foreach_mul_(gradients, self.clip / norm)
        return norm
