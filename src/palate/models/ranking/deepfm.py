"""DeepFM: a factorisation machine and a deep network over the same embeddings (Guo et al., IJCAI 2017, 1703.04247).

y = <w, x> + Σ_{i<j} <v_i, v_j> + MLP([v_1 .. v_f])   (equations 1, 2 and 4)

The first-order weights are a linear map of each field's embedding here, which can say the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from palate.models.ranking.blocks import BackboneConfig, Mlp, squeezed


def second_order(fields: Tensor) -> Tensor:
    """Σ_{i<j} <v_i, v_j> = ½ (|Σ v|² − Σ |v|²): Rendle 2010, in linear time. [b, f, d] to [b]."""
    if torch.onnx.is_in_onnx_export():  # where a sum over an axis inside takes as long as a layer
        _, f, d = fields.shape
        flat, added = fields.flatten(1), torch.from_numpy(np.tile(np.eye(d, dtype=np.float32), (f, 1)))
        return ((flat @ added).square().sum(1) - flat.square().sum(1)) / 2
    return (fields.sum(1).square() - fields.square().sum(1)).sum(1) / 2


class DeepFM(nn.Module):
    Config = BackboneConfig

    def __init__(self, n_fields: int, width: int, config: BackboneConfig) -> None:
        super().__init__()
        self.first = nn.Linear(n_fields * width, config.outputs)
        self.deep = Mlp(n_fields * width, config.hidden, config.dropout, config.outputs)

    def forward(self, fields: Tensor, history: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        flat = fields.flatten(1)
        return squeezed(self.first(flat) + second_order(fields)[:, None] + self.deep(flat))
