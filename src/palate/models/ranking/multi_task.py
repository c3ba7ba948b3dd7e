"""Several labels at once over any backbone: MMoE and STEM. Both are backbones themselves, whose outputs are the tasks.

MMoE (Ma et al., KDD 2018): f^k = Σ_i softmax_i(W_k x) E_i(x),  y_k = tower_k(f^k)   (equations 6 and 7).
STEM (Su et al., AAAI 2024, 2308.13537): each task has embeddings and experts of its own, and there are shared ones. A
task's gate mixes the experts of all, but those of other tasks get no gradient from it (all forward, task-specific
backward), so that a task's embeddings are moved by its own labels alone.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from palate.models.parts import configured
from palate.models.ranking.blocks import BackboneConfig, Mlp, auxiliary_of, squeezed
from palate.models.ranking.registry import backbone


class MultiTaskConfig(BackboneConfig):
    """Experts, gates and towers. `outputs` is the number of tasks."""

    inner: str = Field(default="dcnv2", description="the backbone that each expert is")
    inner_params: dict[str, Any] = Field(default_factory=dict, description="of that backbone")
    experts: int = Field(default=2, ge=1, description="of MMoE in all; of STEM for each task and shared")
    size: int = Field(default=64, ge=1, description="numbers an expert comes to")
    gate: tuple[int, ...] = Field(default=(), description="hidden layers of a gate (STEM's code: 128, 64)")
    tower: tuple[int, ...] = Field(default=(64,), description="hidden layers of a task's tower (STEM's code: 128, 64)")


def experts_of(n_fields: int, width: int, config: MultiTaskConfig) -> nn.ModuleList:
    kind = backbone(config.inner)
    params = configured(kind, {**config.inner_params, "outputs": config.size})
    return nn.ModuleList(kind(n_fields, width, params) for _ in range(config.experts))


class Task(nn.Module):
    """A gate over experts [b, e, size], and a tower: the task's logit [b, 1]."""

    def __init__(self, n: int, n_experts: int, config: MultiTaskConfig) -> None:
        super().__init__()
        self.gate = Mlp(n, config.gate, config.dropout, n_experts)
        self.tower = Mlp(config.size, config.tower, config.dropout, 1)

    def forward(self, x: Tensor, experts: Tensor) -> Tensor:
        mixed = torch.bmm(torch.softmax(self.gate(x), 1)[:, None, :], experts)[:, 0]
        return self.tower(mixed)  # type: ignore[no-any-return]


class Mmoe(nn.Module):
    Config = MultiTaskConfig

    def __init__(self, n_fields: int, width: int, config: MultiTaskConfig) -> None:
        super().__init__()
        self.experts = experts_of(n_fields, width, config)
        self.tasks = nn.ModuleList(Task(n_fields * width, config.experts, config) for _ in range(config.outputs))

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        outputs = _together(self.experts, fields, history, mask, target)
        return squeezed(torch.cat([task(fields.flatten(1), outputs) for task in self.tasks], 1))

    def auxiliary(self) -> Tensor | float:
        return auxiliary_of(self.experts)


class Stem(nn.Module):
    Config = MultiTaskConfig

    def __init__(self, n_fields: int, width: int, config: MultiTaskConfig) -> None:
        super().__init__()
        self.parts = config.outputs + 1  # of each embedding: one for each task, the last one shared
        own = width // self.parts
        self.experts = nn.ModuleList(experts_of(n_fields, own, config) for _ in range(self.parts))
        n_experts = self.parts * config.experts
        self.tasks = nn.ModuleList(Task(n_fields * own, n_experts, config) for _ in range(config.outputs))

    @staticmethod
    def widened(width: int, config: MultiTaskConfig) -> int:
        """The width of embeddings that hold a part of `width` for each task and a shared one."""
        return width * (config.outputs + 1)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        split = [x.chunk(self.parts, -1) for x in (fields, history, target)]
        outputs = [
            _together(experts, f, h, mask, t) for experts, f, h, t in zip(self.experts, *split, strict=True)
        ]  # of each part, [b, e, size]
        logits = []
        for k, task in enumerate(self.tasks):
            seen = [o if j in (k, self.parts - 1) else o.detach() for j, o in enumerate(outputs)]
            logits.append(task((split[0][k] + split[0][-1]).flatten(1), torch.cat(seen, 1)))
        return squeezed(torch.cat(logits, 1))

    def auxiliary(self) -> Tensor | float:
        return auxiliary_of(expert for experts in self.experts for expert in experts.children())


def _together(experts: nn.Module, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """[b, e, size]"""
    outputs = [expert(fields, history, mask, target).view(len(fields), -1) for expert in experts.children()]
    return torch.relu(torch.stack(outputs, 1))
