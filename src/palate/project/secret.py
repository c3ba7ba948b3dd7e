"""A secret of a project: drawn once, kept in a file that only its owner reads."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from palate.errors import StorageError


def kept_secret(path: Path) -> str:
    """The 32 hex digits in `path`, drawn now if there are none; of two processes that draw at once, one wins.

    Raises:
        StorageError: It can be neither read nor written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its secret holds
                os.link(temporary, path)
            temporary.unlink()
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError("The project's secret could not be kept.", where=str(path), got=error) from error
