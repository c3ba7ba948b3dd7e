"""Which of a folder's snapshots is served: chosen in one step, and taken back in one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from palate.data.whole_file import replace_file
from palate.errors import InputError

MANIFEST = "manifest.json"
CURRENT = "current"
_GONE = ".gone-"
_REMEMBERED = 20  # earlier choices


def list_snapshots(folder: Path) -> list[str]:
    """Names of the snapshots below `folder`, oldest first."""
    found = [path.parent for path in folder.glob(f"[!.]*/{MANIFEST}")]
    return [path.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]


def use(folder: Path, name: str, check: Callable[[Path], object] | None = None) -> None:
    """Make a snapshot the current one, in one step: a reader sees the old name or the new.

    `check` sees its path first; where it raises, the old one stays.

    Raises:
        InputError: if there is no such snapshot.
        StorageError: if the choice cannot be written.
    """
    known = list_snapshots(folder)
    if name not in known:
        raise InputError("There is no such snapshot", where=str(folder), got=name, allowed=", ".join(known) or "none")
    if check is not None:
        check(folder / name)
    chosen = _chosen(folder)
    if chosen[:1] != [name]:
        _write(folder, [name, *chosen])


def rollback(folder: Path, check: Callable[[Path], object] | None = None) -> str:
    """Go back to the snapshot that was current before, and return its name; again goes one further back.

    `check` sees its path first; where it raises, the current one stays.

    Raises:
        InputError: if no earlier one is there any more.
        StorageError: if the choice cannot be written.
    """
    known = list_snapshots(folder)
    earlier = [name for name in _chosen(folder)[1:] if name in known]
    if not earlier:
        raise InputError(
            "There is no earlier snapshot to go back to",
            where=str(folder),
            allowed=", ".join(known) or "none",
            hint="palate snapshot use NAME",
        )
    if check is not None:
        check(folder / earlier[0])
    _write(folder, earlier)
    return earlier[0]


def prune(folder: Path, keep: int) -> list[str]:
    """Remove old snapshots and return their names. The `keep` newest stay, the current one, and that before it.

    A server that still answers from a removed one goes on: its files are mapped.
    """
    chosen, known = _chosen(folder), list_snapshots(folder)
    staying = {*known[max(0, len(known) - keep) :], *[name for name in chosen if name in known][:2]}
    removed = [name for name in known if name not in staying]
    for name in removed:
        with suppress(OSError):  # removed by another process
            (folder / name).rename(folder / f"{_GONE}{name}")  # in one step: nobody sees half of it
    for left in folder.glob(f"{_GONE}*"):
        shutil.rmtree(left, ignore_errors=True)
    return removed


def current(folder: Path) -> Path:
    """The current snapshot below `folder`, or `folder` itself if it is a snapshot.

    Raises:
        InputError: if none is chosen.
    """
    if (folder / MANIFEST).is_file():
        return folder
    name = next(iter(_chosen(folder)), "")
    if name not in list_snapshots(folder):
        raise InputError(
            "No snapshot is in use", where=str(folder), got=name or None, hint="palate snapshot build, then use"
        )
    return folder / name


def current_name(folder: Path) -> str | None:
    """Of the current snapshot, if one is chosen and there."""
    name = next(iter(_chosen(folder)), None)
    return name if name in list_snapshots(folder) else None


def _chosen(folder: Path) -> list[str]:
    """Names, the current one first, then those before it."""
    try:
        return (folder / CURRENT).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return []


def _write(folder: Path, names: list[str]) -> None:
    replace_file(folder / CURRENT, "\n".join(names[: 1 + _REMEMBERED]) + "\n", "The choice of snapshot")
