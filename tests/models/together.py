"""Run by test_trainer.py: `together.py OUT CHECKPOINT [DIE_AT]` trains a small network, as torchrun or alone starts it.

Alone, two batches at a time make one, as two processes have them.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import torch
from torch import nn

from palate.models.checkpoint import FileCheckpoint, State
from palate.models.trainer import Trainer, TrainerConfig

CONFIG = TrainerConfig(epochs=3, warmup=3, threads=1, checkpoint_minutes=0)
SIZES = [5, 3, 7, 2, 6, 4, 1]  # seven batches: in the last step one of two processes has none


class Rows(list[tuple[torch.Tensor, torch.Tensor]]):
    pass


def batches(joined: bool):
    def epoch(rng: np.random.Generator) -> Rows:
        made = Rows()
        for size in SIZES:
            x = torch.from_numpy(rng.normal(size=(size, 4)).astype(np.float32))
            made.append((x, x.sum(1, keepdim=True).sin()))
        if joined:
            made = Rows(tuple(map(torch.cat, zip(*made[i : i + 2], strict=True))) for i in range(0, len(made), 2))
        return made

    return epoch


def main(out: str, checkpoint: str, die_at: int | None = None) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0 if die_at is None else 0.2), nn.GELU(), nn.Linear(8, 1))

    def progress(name: str, done: int, total: int, figures: dict[str, float]) -> None:
        if done == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(network(x), y)

    kept = FileCheckpoint(checkpoint)
    trainer = Trainer(
        "small", network, batches(os.environ.get("WORLD_SIZE") is None), loss, None, CONFIG, "", kept, progress
    )
    trainer.run()
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    FileCheckpoint(f"{out}-{os.environ.get('RANK', 'alone')}").save(State(weights))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
