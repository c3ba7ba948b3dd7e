"""Work that only one process may do at a time. A process that died holds nothing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from palate.errors import PalateError, StorageError, printable


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the file `path` locked. The system lets go of it when the process ends, however it ends.

    Raises:
        PalateError: Another process does `what` now; retryable.
        StorageError: The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise StorageError("The lock cannot be made.", where=str(path), got=error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise PalateError(
                f"{what} is running already.",
                where=str(path),
                got=printable(file.read(200)),
                hint="Wait until it has ended; if its process dies, the lock goes with it.",
                retryable=True,
            ) from error
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
        file.flush()
        yield
