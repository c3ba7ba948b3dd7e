"""Discrete IDs: vectors become the numbers of their clusters, and these ordinary ID fields with learned embeddings.

One level is k-means; more are residual k-means (each level clusters what the levels before left over). KAR's third
follow-up reports +0.3% AUC over the raw vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from palate.data.dataset import FloatArray
from palate.knowledge.clusters import kmeans, nearest
from palate.models.adapters.adapter import AdapterConfig, Sided

Codes = npt.NDArray[np.int64]


class DiscreteConfig(AdapterConfig):
    """Discrete IDs."""

    clusters: int = Field(default=64, ge=2, description="of each level")
    levels: int = Field(default=2, ge=1, description="1: k-means; more: residual k-means")
    seed: int = Field(default=0, description="of the first centres")


class Codebook:
    """Centres of each level, [levels, clusters, n], learnt from rows that are not all zeros."""

    def __init__(self, vectors: FloatArray, config: DiscreteConfig) -> None:
        known = vectors[vectors.any(axis=1)].astype(np.float64)
        rng, centres = np.random.default_rng(config.seed), []
        rest = known
        for _ in range(config.levels):
            level = kmeans(rest, config.clusters, rng)
            rest = rest - level[nearest(rest, level)]
            centres.append(level)
        self.centres = np.stack(centres).astype(np.float32)

    def codes(self, vectors: FloatArray) -> Codes:
        """[n, levels]: 0 where nothing is known, else 1 + the cluster."""
        rest, found = vectors.astype(np.float64), []
        for level in self.centres.astype(np.float64):
            chosen = nearest(rest, level)
            rest = rest - level[chosen]
            found.append(chosen + 1)
        return np.stack(found, axis=1) * vectors.any(axis=1)[:, None]


@dataclass(frozen=True)
class Collisions:
    """How many entities share all their codes with another."""

    entities: int
    codes: int  # different ones
    colliding: int  # entities that are not alone with theirs
    largest: int  # group

    @property
    def share(self) -> float:
        return self.colliding / max(self.entities, 1)


def collisions(codes: Codes) -> Collisions:
    """Of the known rows of `codes` [n, levels]."""
    _, counts = np.unique(codes[codes.any(axis=1)], axis=0, return_counts=True)
    shared = int(counts[counts > 1].sum())
    return Collisions(int(counts.sum()), len(counts), shared, int(counts.max(initial=0)))


class Discrete(Sided):
    """Reads codes, not vectors: `prepared` turns the one into the other. A field for each level of each side."""

    Config = DiscreteConfig

    def __init__(self, du: int, di: int, width: int, config: DiscreteConfig) -> None:
        super().__init__(du, di)
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(1 + n * config.clusters, width, padding_idx=0) for name, n in self.widths.items()}
        )
        self.clusters = config.clusters
        with torch.no_grad():
            for table in self.tables.values():
                nn.init.normal_(table.weight[1:], std=0.01)  # type: ignore[index]

    @staticmethod
    def prepared(vectors: FloatArray, config: DiscreteConfig) -> FloatArray:
        """Codes of `vectors` [n, d] as numbers, [n, levels]."""
        if not vectors.shape[1]:
            return vectors
        return Codebook(vectors, config).codes(vectors).astype(np.float32)

    def side(self, name: str, x: Tensor) -> Tensor:
        slots = x.long()
        offsets = self.clusters * torch.arange(slots.shape[1], device=slots.device)
        return self.tables[name](torch.where(slots > 0, slots + offsets, slots))  # type: ignore[no-any-return]
