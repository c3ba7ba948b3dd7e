"""An OpenAI-batch file in, its answers out: each `custom_id` once, as `response.body` or as `error`.

Written line by line to a partial file beside the output, which takes its name when it is whole. What it says depends on
the input and the ledger alone, so a run that was killed is simply started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from palate.errors import InputError, StorageError
from palate.llm.batch_lines import BadLine, Line, count_lines, lines_of_one_model
from palate.llm.request import Answer, Request
from palate.llm.runner import Outcome

_BUFFER = 1 << 20
_HELD = 16 * 2**20  # bytes of lines that may be read ahead of the oldest one without an answer


def request_of(line: Line) -> Request:
    return Request(body=line.body, purpose="batch", entity=line.custom_id)


class BatchFile:
    """The good lines of `source` as requests, and their outcomes, with the bad lines, as lines of `out`.

    Args:
        model: The one that is asked. A line that names another is bad, or with `override` asks this one.
        ordered: Lines of the output stand in the order of the input; otherwise as answers come.

    Raises:
        InputError: No such input, an output that is the input, that cannot be written or that another run is writing.
    """

    def __init__(self, source: Path, out: Path, model: str, *, override: bool = False, ordered: bool = False) -> None:
        if not source.is_file():
            raise InputError("The file of requests does not exist.", where=str(source))
        if out.exists() and out.samefile(source):
            raise InputError("Input and output are the same file.", where=str(out), hint="Name another file with -o.")
        self.model, self.ordered, self._source, self._override = model, ordered, source, override
        self.lines = count_lines(source)
        self.answered = self.dead = self.bad = 0
        self._open: dict[int, tuple[int, str]] = {}  # by number of the request: number of the line and custom_id
        self._held: deque[BadLine] = deque()  # bad lines that wait for their turn
        self._exhausted = False
        self._output = _Output(out)

    @property
    def window(self) -> int:
        """How many requests to read ahead at most, such that those of many bytes do not fill the memory."""
        mean = self._source.stat().st_size // max(self.lines, 1)
        return max(256, min(4_000, _HELD // max(mean, 1)))

    @property
    def complete(self) -> bool:
        """Has every line been read and written?"""
        return self._exhausted and not self._open and not self._held

    @property
    def partial(self) -> Path:
        """Where the output grows until it is whole."""
        return self._output.partial

    @property
    def errors(self) -> Path:
        """Where lines without an answer are listed with their cause, once the output is whole."""
        return self._output.errors

    def requests(self) -> Iterator[Request]:
        """To be taken through a runner, once; its outcomes go to `write`."""
        number = 0
        for line in lines_of_one_model(self._source, self.model, self._override):
            if isinstance(line, BadLine):
                self._held.append(line)
                self._release()
                continue
            self._open[number] = (line.number, line.custom_id)
            number += 1
            yield request_of(line)
        self._exhausted = True
        self._release()

    def write(self, outcome: Outcome) -> None:
        """One line of the output; a dead letter's also to the file of errors."""
        line, custom_id = self._open.pop(outcome.number)
        self._release(before=line)
        if outcome.answer.error is None:
            self.answered += 1
            self._output.answer(custom_id, outcome.answer)
        else:
            self.dead += 1
            self._output.error(line, custom_id, "no_answer", outcome.answer.error)
        self._release()

    def finish(self) -> None:
        """All lines are there: give output and errors their names. A file of errors of an earlier run goes."""
        self._output.finish(errors=bool(self.dead or self.bad))

    def close(self) -> None:
        """Leave what is not whole as a partial file."""
        self._output.close()

    def _release(self, before: float | None = None) -> None:
        """Write the bad lines whose turn it is."""
        if before is None:
            oldest = next(iter(self._open.values()), None) if self.ordered else None
            before = float("inf") if oldest is None else oldest[0]
        while self._held and self._held[0].number < before:
            bad = self._held.popleft()
            self.bad += 1
            self._output.error(bad.number, bad.custom_id, "bad_line", f"{bad.field}: {bad.cause}")


class _Output:
    """Two files that grow beside their places: answers, and what has none."""

    def __init__(self, path: Path) -> None:
        self._path, self.partial = path, path.with_name(f".partial-{path.name}")
        self.errors = path.with_name(f"{path.stem}.errors.jsonl")
        self._errors_partial = path.with_name(f".partial-{self.errors.name}")
        try:
            if path.is_dir():
                raise IsADirectoryError("a folder")
            self._lock = self.partial.open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._answers = self.partial.open("w", encoding="utf-8", buffering=_BUFFER)
            self._errors = self._errors_partial.open("w", encoding="utf-8")
        except BlockingIOError as error:
            self._lock.close()
            raise InputError("Another run is writing this output.", where=str(path)) from error
        except OSError as error:
            raise InputError("The output cannot be written.", where=str(path), got=error) from error

    def answer(self, custom_id: str, answer: Answer) -> None:
        reply = answer.value if isinstance(answer.value, dict) else {}
        response = {"status_code": 200, "request_id": str(reply.get("id", "")), "body": answer.value}
        self._write(custom_id, response, None)

    def error(self, line: int, custom_id: str | None, code: str, cause: str) -> None:
        """A line without a `custom_id` of its own has its place among the errors only."""
        if custom_id is not None:
            self._write(custom_id, None, {"code": code, "message": cause})
        self._dump(self._errors, {"line": line, "custom_id": custom_id, "code": code, "cause": cause})

    def finish(self, errors: bool) -> None:
        try:
            for file in (self._answers, self._errors):
                file.flush()
                os.fsync(file.fileno())
            if errors:
                self._errors_partial.replace(self.errors)
            else:
                self._errors_partial.unlink()
                self.errors.unlink(missing_ok=True)
            self.partial.replace(self._path)
        except OSError as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """What is not whole stays as it is, unless it is empty."""
        for file, path in ((self._errors, self._errors_partial), (self._answers, self.partial)):
            empty = file.tell() == 0
            file.close()
            if empty:
                path.unlink(missing_ok=True)
        self._lock.close()

    def _write(self, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> None:
        name = "batch_req_" + hashlib.blake2b(custom_id.encode(), digest_size=12).hexdigest()
        self._dump(self._answers, {"id": name, "custom_id": custom_id, "response": response, "error": error})

    def _dump(self, file: Any, line: dict[str, Any]) -> None:
        try:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> StorageError:
        return StorageError("The output could not be written.", where=str(self._path), got=error)
