"""The way out to a provider's batch service: what the ledger lacks, as files that the service takes.

A request's `custom_id` is its key in the ledger: results are known by what was asked, in whatever order they come back
(`palate.llm.provider_results`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from palate.errors import InputError, StorageError
from palate.llm.chat import chat_body, first_token_body
from palate.llm.ledger import Ledger
from palate.llm.request import Request
from palate.llm.seen import Seen

MAX_LINES = 50_000  # of one file, as OpenAI's service has it
MAX_BYTES = 200_000_000
_READ = 512


@dataclass
class Exported:
    """`requests` were read; `spared` of them stood in the ledger or were there twice; `lines` were written."""

    requests: int = 0
    spared: int = 0
    lines: int = 0
    files: list[Path] = field(default_factory=list)


def export_requests(requests: Iterable[Request], folder: Path, ledger: Ledger | None, model: str = "") -> Exported:
    """Write what the ledger lacks, one model a file, at most 50,000 lines and 200 MB each.

    Args:
        folder: New or empty: two exports into one folder would have the same requests answered, and paid, twice.
        ledger: None: nothing has been asked before.
        model: Of requests that are no raw bodies; a raw body names its own.

    Raises:
        InputError: The folder is not empty.
        StorageError: It cannot be written; what was begun is removed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "Import the results of what is there, or name another folder."
        raise InputError("The folder for the export is not empty.", where=str(folder), hint=hint)
    done = Exported()
    files = _Files(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for key, request, asked in _lacking(requests, ledger, model, done):
            line = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions"}
            body = chat_body(request, asked) if request.options is None else first_token_body(request, asked)
            files.write(asked, json.dumps(line | {"body": body}, ensure_ascii=False))
            done.lines += 1
        done.files = files.finish()
    except OSError as error:
        raise StorageError("The export could not be written.", where=str(folder), got=error) from error
    finally:
        files.close()
    done.spared = done.requests - done.lines
    return done


def _lacking(
    requests: Iterable[Request], ledger: Ledger | None, model: str, done: Exported
) -> Iterator[tuple[str, Request, str]]:
    """Key, request and model of what is to be asked, each once."""
    seen = Seen()
    waiting = iter(requests)
    while part := list(islice(waiting, _READ)):
        done.requests += len(part)
        models = [model if request.body is None else str(request.body.get("model") or model) for request in part]
        keys = [request.key(asked) for request, asked in zip(part, models, strict=True)]
        known = ledger.get(keys) if ledger is not None else {}
        for key, request, asked in zip(keys, part, models, strict=True):
            if key not in known and seen.add(int(key[:16], 16)):
                yield key, request, asked


class _Files:
    """Files of one model each, under other names until all are whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []
        self._open: dict[str, tuple[BinaryIO, int, int]] = {}  # by model: file, lines and bytes in it

    def write(self, model: str, line: str) -> None:
        raw = line.encode() + b"\n"
        file, lines, size = self._open.get(model, (None, 0, 0))
        if file is None or lines == MAX_LINES or size + len(raw) > MAX_BYTES:
            if file is not None:
                file.close()
            file, lines, size = self._next(model), 0, 0
        file.write(raw)
        self._open[model] = (file, lines + 1, size + len(raw))

    def finish(self) -> list[Path]:
        self._shut()
        for path in self._paths:
            _partial(path).replace(path)
        return self._paths

    def close(self) -> None:
        """Remove what is not finished."""
        self._shut()
        for path in self._paths:
            _partial(path).unlink(missing_ok=True)

    def _next(self, model: str) -> BinaryIO:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")[:80] or "model"
        path = self._folder / f"{stem}-{len(self._paths) + 1:04d}.jsonl"
        self._paths.append(path)
        return _partial(path).open("wb")

    def _shut(self) -> None:
        for file, _, _ in self._open.values():
            file.close()


def _partial(path: Path) -> Path:
    return path.with_name(f".partial-{path.name}")
