"""`sweep`: one function over many runs, by whatever has workers; what was run once is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palate.errors import InputError
from palate.experiments.worlds.lineup import Trial, try_out

MODEL = 1  # of worlds and policies as they stand in this code; what is kept of another is not used
Map = Callable[..., Iterable[Any]]
"""`map`, or one that has workers: `ProcessPoolExecutor().map`, `ray.util.multiprocessing.Pool().imap`."""
Figures = dict[str, float]


def sweep(
    trials: Sequence[Trial],
    over: Map = map,
    kept: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[Trial, Figures]]:
    """Every trial with its figures, in order. Trials are independent of each other: any `over` gives the same.

    Args:
        kept: A file of lines, to which every run is added as it ends: a sweep that was cut off goes on from there.
    """
    known, keys = _read(kept), [_key(trial) for trial in trials]
    asked = {key: trial for key, trial in zip(keys, trials, strict=True) if key not in known}  # alike ones once
    runs = iter(over(try_out, list(asked.values())))
    for done, (key, trial) in enumerate(zip(keys, trials, strict=True), start=1):
        if key not in known:
            known[key] = next(runs)
            if kept is not None:
                _add(kept, key, known[key])
        progress(done, len(trials))
        yield trial, known[key]


@contextmanager
def spread_over(processes: int = 1, ray: bool = False) -> Iterator[Map]:
    """`map`, local processes, or the workers of a Ray cluster: the one that is there, else one of this machine.

    Raises:
        InputError: Ray is asked for and not installed.
    """
    if ray:
        try:
            from ray.util.multiprocessing import Pool
        except ImportError as error:
            raise InputError("Ray is not installed", where="--set ray", hint="pip install 'palate[ray]'") from error
        with Pool(processes if processes > 1 else None) as pool:
            yield pool.imap
    elif processes > 1:
        with ProcessPoolExecutor(processes) as workers:
            yield workers.map
    else:
        yield map


def _key(trial: Trial) -> str:
    """All that a run hangs on; what its world is called is not of it."""
    plain = {name: value for name, value in vars(trial).items() if name not in ("world", "config", "fitted", "table")}
    digests = [None if part is None else part.digest for part in (trial.fitted, trial.table)]
    whole = [MODEL, plain, trial.config.model_dump(mode="json"), digests]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _read(kept: Path | None) -> dict[str, Figures]:
    """Lines that were cut off are left out."""
    if kept is None or not kept.is_file():
        return {}
    lines = kept.read_text(encoding="utf-8").split("\n")[:-1]
    return {row["key"]: row["figures"] for row in map(_parsed, lines) if row is not None}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found


def _add(kept: Path, key: str, figures: Figures) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a+b") as file:
        file.seek(0, 2)
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # cut off by a kill: what follows must not be joined to it
                file.write(b"\n")
        file.write(json.dumps({"key": key, "figures": figures}).encode() + b"\n")
