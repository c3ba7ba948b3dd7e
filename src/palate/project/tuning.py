"""A search for settings that outlives a kill: each trial is a line on the disk before the next begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.splits import Split
from palate.errors import StorageError
from palate.experiments.tune import Trial, Tuned, tune
from palate.project.steps import digest


def tune_kept(
    name: str,
    split: Split,
    folder: Path,
    *,
    trials: int,
    minutes: float,
    fixed: dict[str, Any],
    on_trial: Callable[[Trial, int, int], None],
) -> Tuned:
    """`tune`, going on from `folder/NAME-KEY.jsonl`; the key is that of the training events, the split and `fixed`.

    Raises:
        StorageError: The file cannot be written or read.
    """
    seen = split.train.events.hash_rows(seed=0).sum()
    held = [len(split.validation.queries), int(np.concatenate([[0], *split.validation.targets]).sum())]
    path = folder / f"{name}-{digest({'train': seen, 'held': held, 'split': split.name, 'fixed': fixed})}.jsonl"

    def keep(trial: Trial, done: int, most: int) -> None:
        _append(path, asdict(trial))
        on_trial(trial, done, most)

    return tune(name, split, trials=trials, minutes=minutes, fixed=fixed, before=_read(path), on_trial=keep)


def _read(path: Path) -> list[Trial]:
    """Whole lines; one that a kill cut off is not one."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        return [Trial(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        hint = "Delete it to search from the beginning."
        raise StorageError("The trials of a search cannot be read.", where=str(path), got=error, hint=hint) from error


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            whole = file.seek(0, os.SEEK_END)
            if whole:
                file.seek(0)
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        hint = "Free some space; the trials before are kept."
        raise StorageError("A trial could not be kept.", where=str(path), got=error, hint=hint) from error
