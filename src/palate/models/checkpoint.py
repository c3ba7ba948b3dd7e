"""Training states: arrays and facts in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from palate.errors import StorageError


@dataclass(frozen=True)
class State:
    """All that is needed to go on: arrays by name, and facts that JSON can say."""

    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Where a training keeps its state between epochs. Models call it; they open no files themselves."""

    def load(self) -> State | None:
        """The state kept last, or None."""
        ...

    def save(self, state: State) -> None:
        """Keep `state` instead of the last one: afterwards either of them can be loaded, never a mixture."""
        ...


class FileCheckpoint:
    """A `Checkpoint` in one safetensors file.

    Raises (in `load`, `save`):
        StorageError: The file cannot be read or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def load(self) -> State | None:
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return None
        try:
            with safe_open(str(self.path), framework="numpy") as file:
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                facts = json.loads((file.metadata() or {})["facts"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise StorageError(
                "The training state cannot be read", where=str(self.path), got=error, hint="delete it and train again"
            ) from error
        return State(arrays, facts)

    def save(self, state: State) -> None:
        from safetensors.numpy import save

        arrays = {name: np.array(array, order="C") for name, array in state.arrays.items()}
        content = save(arrays, {"facts": json.dumps(state.facts)})
        partial = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".partial-", delete=False) as file:
                partial = Path(file.name)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError as error:
            if partial is not None:
                partial.unlink(missing_ok=True)
            raise StorageError(
                "The training state cannot be written",
                where=str(self.path),
                got=error,
                hint="free some space or choose another folder",
            ) from error
