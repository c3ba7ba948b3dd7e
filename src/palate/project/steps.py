"""Steps: a hash of inputs and parameters names an artefact; what stands is not made again.

An artefact is a folder `<step>-<key>`. It is made in a temporary folder and renamed when whole, so that a run
killed at any moment leaves either the old state or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate import __version__
from palate.errors import StorageError

Detail = dict[str, Any]
_DONE = "step.json"


@dataclass(frozen=True)
class Artefact:
    """What a step made: its folder, its key, and what it reported (`seconds`, `state`, `detail`)."""

    name: str
    key: str
    folder: Path
    seconds: float
    state: str  # "made" or "kept"
    detail: Detail


class Steps:
    """The artefacts under `folder`.

    Args:
        on_start: Called with a step's name and whether it must run, before it does.
    """

    def __init__(self, folder: Path, on_start: Callable[[str, bool], None] | None = None) -> None:
        self.folder = folder
        self.made: list[Artefact] = []
        self._on_start = on_start

    def run(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], Detail]) -> Artefact:
        """The artefact of `name` for these inputs; `make` fills an empty folder and reports, if there is none yet.

        `inputs` must hold everything that decides the result: parameters, and the keys of artefacts read.

        Raises:
            StorageError: if the artefact cannot be written.
        """
        key = digest({"palate": __version__, **inputs})
        folder = self.folder / f"{name}-{key}"
        kept = (folder / _DONE).is_file()
        if self._on_start is not None:
            self._on_start(name, not kept)
        if not kept:
            self._make(name, folder, make)
        artefact = _opened(folder, "kept" if kept else "made")
        self.made.append(artefact)
        return artefact

    def latest(self, name: str) -> Artefact | None:
        """The newest result of `name` that stands, whatever it was made from; nothing is made."""
        named = (folder for folder in self.folder.glob(f"{name}-*") if folder.name.rpartition("-")[0] == name)
        whole = [folder for folder in named if (folder / _DONE).is_file()]
        newest = max(whole, key=lambda folder: (folder / _DONE).stat().st_mtime_ns, default=None)
        return None if newest is None else _opened(newest, "kept")

    def sweep(self) -> None:
        """Remove what killed runs left half-made and what older settings made."""
        current = {artefact.folder for artefact in self.made}
        for folder in self.folder.glob("*"):
            if folder.is_dir() and folder not in current:
                shutil.rmtree(folder, ignore_errors=True)

    def _make(self, name: str, folder: Path, make: Callable[[Path], Detail]) -> None:
        temporary = self.folder / f".{folder.name}.{os.getpid()}.tmp"
        started = time.perf_counter()
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            detail = make(temporary)
            report = {"name": name, "seconds": time.perf_counter() - started, "detail": detail}
            (temporary / _DONE).write_text(json.dumps(report))
            sync(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        except OSError as error:
            raise StorageError(
                f"The step {name} could not write its result.",
                where=str(folder),
                got=error,
                hint="Free some space and run again: finished steps and the LLM's answers are kept.",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _opened(folder: Path, state: str) -> Artefact:
    report = json.loads((folder / _DONE).read_text())
    name, _, key = folder.name.rpartition("-")
    return Artefact(name, key, folder, report["seconds"], state, report["detail"])


def digest(inputs: Mapping[str, Any]) -> str:
    """12 hex digits of the inputs' canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(*paths: Path) -> str:
    """12 hex digits of the contents of files, folders read whole and in order."""
    found = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:12]


def sync(folder: Path) -> None:
    """Flush every file of `folder` to the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
