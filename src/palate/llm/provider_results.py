"""The way back from a provider's batch service: result files into the ledger, each answer with its request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from palate.errors import InputError, printable
from palate.llm.chat import (
    RefusedError,
    UnreadableError,
    first_token_shares,
    first_tokens,
    read_choice,
    read_text,
    read_usage,
)
from palate.llm.ledger import Entry, Ledger
from palate.llm.prices import Prices
from palate.llm.request import Answer, Request
from palate.llm.structured import checked, strict_json

_READ = 512
Asked = tuple[Request, str]  # a request and the model that is asked


@dataclass
class Imported:
    """What a set of result files came to. Each request is one of `kept`, `known`, `failed` and `missing`."""

    kept: int = 0
    known: int = 0  # answered in the ledger before
    failed: int = 0
    missing: int = 0
    repeated: int = 0  # further lines of one request
    unknown: int = 0  # lines of requests that were not made
    bad: list[str] = field(default_factory=list)  # lines that are no results: file, line, cause


def import_results(
    files: Iterable[Path], wanted: Mapping[str, Asked], ledger: Ledger, prices: Prices | None = None
) -> Imported:
    """Validate results and keep them, failures with their cause. What came before is passed over.

    Args:
        files: Result and error files in any order.
        wanted: What had been asked, by `custom_id`: an `ExportedFolder`, or `by_key(requests, model)`.
        prices: The batch service's, for the books.
    """
    reading = _Reading(wanted, ledger, prices or Prices())
    for path in files:
        try:
            with path.open("rb") as lines:
                numbered = enumerate(lines, 1)
                while part := list(islice(numbered, _READ)):
                    reading.take(path, part)
        except OSError as error:
            raise InputError("The results cannot be read.", where=str(path), got=error) from error
    return reading.finish()


def by_key(requests: Iterable[Request], model: str) -> dict[str, Asked]:
    """Requests by their `custom_id` in an export."""
    return {request.key(model): (request, model) for request in requests}


class ExportedFolder(Mapping[str, Asked]):
    """What stands in an exported folder, by `custom_id`. Only places are held in memory.

    Raises:
        InputError: No such folder or no export in it; a request that was changed since, or that is no raw body (results
            of those are imported by the step that exported them).
    """

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.jsonl"))
        if not self._files:
            raise InputError(
                "There is no export in this folder.", where=str(folder), hint="palate llm export makes one."
            )
        self._places: dict[int, tuple[int, int]] = {}
        for number, path in enumerate(self._files):
            place = 0
            with path.open("rb") as file:
                for line in file:
                    self._places[_mark(self._read(line, number)["custom_id"])] = (number, place)
                    place += len(line)
        self._open = [path.open("rb") for path in self._files]

    def __getitem__(self, custom_id: str) -> Asked:
        number, place = self._places[_mark(custom_id)]
        self._open[number].seek(place)
        line = self._read(self._open[number].readline(), number)
        if line["custom_id"] != custom_id:
            raise KeyError(custom_id)
        request, model = Request(body=line["body"], purpose="batch"), str(line["body"]["model"])
        if request.key(model) != custom_id:
            hint = "Import results of other requests by the step that exported them."
            raise InputError("A request does not hash to its custom_id.", where=self._where(number), hint=hint)
        return request, model

    def __iter__(self) -> Iterator[str]:
        for number, path in enumerate(self._files):
            with path.open("rb") as file:
                for line in file:
                    yield str(self._read(line, number)["custom_id"])

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        for file in self._open:
            file.close()

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = strict_json(line)
            if _is_key(entry["custom_id"]) and isinstance(entry["body"]["model"], str):
                return dict(entry)
        except (ValueError, KeyError, TypeError):
            pass
        raise InputError("This is not a file of an export.", where=self._where(number))

    def _where(self, number: int) -> str:
        return str(self._files[number])


class _Reading:
    """What has come so far; of each `custom_id` 64 bits are remembered."""

    def __init__(self, wanted: Mapping[str, Asked], ledger: Ledger, prices: Prices) -> None:
        self._wanted, self._ledger, self._prices = wanted, ledger, prices
        self._done = Imported()
        self._answered: set[int] = set()
        self._failed: set[int] = set()

    def take(self, path: Path, lines: list[tuple[int, bytes]]) -> None:
        """Validate a few lines of a file and keep them in one transaction."""
        results = []
        for number, raw in lines:
            try:
                entry = strict_json(raw)
                if not isinstance(entry, dict) or not isinstance(entry.get("custom_id"), str):
                    raise ValueError("an object with a custom_id is wanted")
                results.append((entry["custom_id"], entry))
            except (ValueError, RecursionError) as error:
                if raw.strip():
                    self._done.bad.append(f"{path}, line {number}: {printable(error, 100)}")
        known = self._ledger.get({name for name, _ in results if _is_key(name)})
        entries = (self._entry(name, result, name in known) for name, result in results)
        self._ledger.keep([entry for entry in entries if entry is not None])

    def finish(self) -> Imported:
        done, came = self._done, self._answered | self._failed
        names = (name for name in self._wanted if _mark(name) not in came)
        while part := list(islice(names, _READ)):
            done.missing += len(part) - len(self._ledger.get(part))
        done.failed = len(self._failed)
        done.known = len(self._wanted) - done.kept - done.failed - done.missing
        return done

    def _entry(self, custom_id: str, result: dict[str, Any], known: bool) -> Entry | None:
        asked = self._wanted.get(custom_id) if _is_key(custom_id) else None
        if asked is None:
            self._done.unknown += 1
            return None
        mark, (request, model) = _mark(custom_id), asked
        if mark in self._answered:
            self._done.repeated += 1
            return None
        if known:
            self._answered.add(mark)
            self._failed.discard(mark)
            return None
        answer = checked(request, _answer(request, model, result, self._prices))
        if answer.error is None:
            self._done.kept += 1
            self._answered.add(mark)
            self._failed.discard(mark)
        elif mark in self._failed:
            self._done.repeated += 1
            return None
        else:
            self._failed.add(mark)
        return Entry.of(request, answer, model)


def _answer(request: Request, model: str, result: dict[str, Any], prices: Prices) -> Answer:
    """The answer in one line of a result or error file."""
    said: dict[str, Any] = {"model": model, "engine": "batch"}
    response, error = result.get("response"), result.get("error")
    if not isinstance(response, dict):
        return Answer(error=_cause(error) or "neither response nor error", **said)
    if response.get("status_code") != 200:
        body = response.get("body")
        cause = _cause(body.get("error") if isinstance(body, dict) else None) or _cause(error)
        return Answer(error=f"HTTP {response.get('status_code')}: {cause}", **said)
    try:
        return _read(request, response.get("body"), prices, said)
    except (UnreadableError, RefusedError) as problem:
        return Answer(error=str(problem), **said)


def _read(request: Request, reply: Any, prices: Prices, said: dict[str, Any]) -> Answer:
    """As the HTTP engine reads a reply."""
    choice, counts = read_choice(reply), read_usage(reply)
    found = read_text(request, choice)
    if request.body is not None:
        found["value"] = reply
    if request.options is not None:
        shares = first_token_shares(request.options, first_tokens(choice) or [])
        if shares is None:
            raise UnreadableError("no option among the likeliest first tokens")
        best = max(range(len(shares)), key=shares.__getitem__)
        found |= {"text": request.options[best], "probabilities": shares, "method": "first token"}
    cost = prices.cost(counts["tokens_in"], counts["tokens_cached"], counts["tokens_out"])
    return Answer(**found | counts | said, cost=cost)


def _cause(error: Any) -> str:
    """Code and message of an error object."""
    if not isinstance(error, dict):
        return "" if error is None else printable(error)
    return printable(": ".join(str(error[name]) for name in ("code", "message") if error.get(name)))


def _is_key(custom_id: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", custom_id) is not None


def _mark(key: str) -> int:
    return int(key[:16], 16)
