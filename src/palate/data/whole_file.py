"""Files that are there whole: as they were, or as they are to be."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from palate.errors import StorageError

_HINT = "Free some space, or look at who may write there, then run again."


def replace_file(path: Path, content: str | bytes, what: str = "The file", hint: str = _HINT) -> None:
    """Write `path` whole, its folder too if there is none: on the disk, name and all, when this returns.

    A link is followed; a file that is there keeps its mode.

    Args:
        what: The subject of the error.

    Raises:
        StorageError: It could not be written; the old file is left, and nothing beside it.
    """
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):  # where not even the folder is one, there is nothing to take away
            temporary.unlink()
        got = error.strerror or error
        raise StorageError(f"{what} could not be written.", where=str(path), got=got, hint=hint) from error
