"""The exploration table by a provider's batch service: every pair asked in files, the answers read from the ledger.

asked = NextRequests(names, model="gpt-x", ordered=True)
export_requests(asked.requests(), folder, ledger, asked.model)      # palate.llm.provider_files
import_results(result_files, asked, ledger)                         # palate.llm.provider_results
table, read = table_of(asked, ledger)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palate.data.dataset import IntArray
from palate.errors import InputError, printable
from palate.interests.next_llm import Numbers, all_pairs, check_names, next_request
from palate.interests.table import InterestTable, make_table, names_digest
from palate.llm.ledger import Ledger
from palate.llm.provider_results import Asked
from palate.llm.request import Request

_TOGETHER = 10_000  # answers held at a time
_SAMPLES = 20


class NextRequests(Mapping[str, Asked]):
    """A request for every tuple of interests, by its key in the ledger; requests are made when they are looked at.

    Args:
        names: Of the interests.
        model: Who is asked.
        tuples: [n, K] what is asked about; None: all pairs.
        ordered: All ordered pairs, an interest with itself included.
        candidates: Interests wanted of each answer.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: str,
        tuples: Numbers | None = None,
        *,
        ordered: bool = False,
        candidates: int = 5,
    ) -> None:
        check_names(names)
        self.names, self.model, self.ordered, self.candidates = tuple(names), model, ordered, candidates
        self.tuples = all_pairs(len(names), ordered=ordered) if tuples is None else np.asarray(tuples)
        self.asked_keys = [request.key(model) for request in self.requests()]
        self._row_of: dict[str, int] | None = None

    def requests(self) -> Iterator[Request]:
        """All of them, in the order of `tuples`."""
        return (next_request(row, self.names, self.candidates) for row in self.tuples.tolist())

    def __getitem__(self, key: str) -> Asked:
        if self._row_of is None:
            self._row_of = {key: row for row, key in enumerate(self.asked_keys)}
        row = self._row_of[key]
        return next_request(self.tuples[row].tolist(), self.names, self.candidates), self.model

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self.asked_keys))

    def __len__(self) -> int:
        return len(set(self.asked_keys))


@dataclass
class Read:
    """`answered` of `asked` tuples stand in the ledger; of their `lines`, `matched` are names of interests."""

    asked: int = 0
    answered: int = 0
    lines: int = 0
    matched: int = 0
    strange: list[str] = field(default_factory=list)  # some lines that are no name

    @property
    def match_rate(self) -> float:
        return self.matched / self.lines if self.lines else float("nan")


def table_of(asked: NextRequests, ledger: Ledger) -> tuple[InterestTable, Read]:
    """The table of what the ledger has; tuples without an answer, or none of whose lines is a name, are left out.

    Raises:
        InputError: The ledger has no answer to any of them, or none that names an interest.
    """
    number = {name: place for place, name in enumerate(asked.names)}
    read = Read(asked=len(asked.asked_keys))
    found = np.full((len(asked.asked_keys), asked.candidates), -1, dtype=np.int32)
    models = [asked.model] * len(asked.asked_keys)
    for start in range(0, len(asked.asked_keys), _TOGETHER):
        keys = asked.asked_keys[start : start + _TOGETHER]
        answers = ledger.get(keys)
        for row, key in enumerate(keys, start):
            if key in answers:
                models[row] = answers[key].model or asked.model
                known = asked.tuples[row].tolist()
                found[row] = _numbers(answers[key].text, number, known, asked.candidates, read)
    if not read.answered:
        hint = "Import the results of the batch service first."
        raise InputError("None of these pairs was answered.", where=str(ledger.path), got=asked.model, hint=hint)
    rows = np.flatnonzero(found[:, 0] >= 0)
    if not len(rows):
        hint = "Tune the model to these names, or ask for one of them (`palate interests transitions`)."
        raise InputError("No answer names a new interest.", got="; ".join(read.strange[:3]), hint=hint)
    none = np.full((len(rows), asked.candidates), np.nan, dtype=np.float32)
    who, keys = [models[row] for row in rows], [asked.asked_keys[row] for row in rows]
    settings: dict[str, Any] = {"ordered": asked.ordered, "about": names_digest(asked.names)}
    table = make_table(len(asked.names), asked.tuples[rows], found[rows], none, who, keys, **settings)
    return table, read


def _numbers(text: str, number: Mapping[str, int], known: list[int], n: int, read: Read) -> IntArray:
    """The interests an answer names, each once, without those of the person, padded with -1."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][:n]
    read.answered += 1
    read.lines += len(lines)
    named = []
    for line in lines:
        place = number.get(line)
        if place is not None:
            read.matched += 1
            named.append(place)
        elif len(read.strange) < _SAMPLES:
            read.strange.append(printable(line, 100))
    fresh = [place for place in dict.fromkeys(named) if place not in known]
    return np.array(fresh + [-1] * (n - len(fresh)), dtype=np.int32)
