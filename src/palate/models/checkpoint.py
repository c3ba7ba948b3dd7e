"""Training states: arrays and facts in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from palate.errors import StorageError

_KINDS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


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
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts = json.loads((file.metadata() or {})["facts"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise StorageError(
                "The training state cannot be read", where=str(self.path), got=error, hint="delete it and train again"
            ) from error
        return State(arrays, facts)

    def save(self, state: State) -> None:
        partial = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=".partial-", delete=False) as file:
                partial = Path(file.name)
                _write(file, state)
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


def _write(file: IO[bytes], state: State) -> None:
    """The safetensors format, array by array: the library's own writer needs all of them in memory twice more."""
    arrays = dict(sorted(state.arrays.items(), key=lambda pair: -pair[1].dtype.itemsize))  # keeps each aligned
    header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(state.facts)}}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _KINDS[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    file.write(len(said).to_bytes(8, "little") + said)
    for array in arrays.values():
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
