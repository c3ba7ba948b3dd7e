"""What was predicted once is kept: a study that was cut off goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.data.dataset import FloatArray
from palate.data.samples import Samples


@dataclass(frozen=True)
class KeptPredictions:
    """Arrays in a folder, by a name that says all they hang on."""

    folder: Path

    def get(self, name: str, make: Callable[[], FloatArray]) -> tuple[FloatArray, float]:
        """What `make` gives, or gave before under this name, and the seconds that it took."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            begun, found = time.perf_counter(), make()
            _save(path, found, time.perf_counter() - begun)
        with np.load(path, allow_pickle=False) as kept:
            return np.asarray(kept["probabilities"], dtype=np.float32), float(kept["seconds"])


def digest_of(samples: Samples) -> bytes:
    """Of everything that samples hold."""
    digest = hashlib.sha256()
    for array in vars(samples).values():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _save(path: Path, found: FloatArray, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, probabilities=found, seconds=np.array(seconds))
    temporary.replace(path)
