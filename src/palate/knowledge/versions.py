"""The wordings that an attribute has had: a history that is only added to, beside the YAML that people edit.

`versions/<name>.jsonl` in the folder of the attributes holds a line for each wording that was tried, whoever proposed
it and whatever came of it. The YAML stays the one that holds; `apply` puts another wording into it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from palate.data.whole_file import replace_file
from palate.errors import InputError, StorageError
from palate.knowledge.attributes import Attribute
from palate.knowledge.rewording import reworded

FOLDER = "versions"
EDITED = ("question", "guidance", "edge_cases")  # what a refinement may change; options and examples are people's
Fate = Literal["current", "kept", "better", "not better", "refused", "applied"]


class Version(BaseModel):
    """One wording of an attribute, and what came of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    """`Attribute.version` of this wording."""
    parent: str | None = None
    """The wording it was made from."""
    fate: Fate
    """current: as the YAML had it when it was compared; better, not better: than its parent, on dev; kept: the best of
    the better ones of its round; refused: by lint or as no definition at all; applied: written into the YAML."""
    why: str = ""
    """The proposer's reason, or why it was refused."""
    by: str = ""
    """Who proposed it: a model's name, or a file's."""
    definition: dict[str, Any]
    """question, guidance, edge_cases."""
    figures: dict[str, Any] = {}
    """On dev: items, AUC, difference to the parent, p-values, tokens."""
    at: str = ""
    """ISO time."""


def wording(attribute: Attribute) -> dict[str, Any]:
    """The part of a definition that a refinement may change."""
    return attribute.model_dump(mode="json", include=set(EDITED))


class History:
    """The versions of the attributes in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / FOLDER / f"{name}.jsonl"

    def add(self, name: str, version: Version) -> Version:
        """Add a line and flush it to the disk; what is there already, time and tokens aside, is not added again.

        Raises:
            StorageError: It cannot be written.
        """
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path) as file:
                kept = _lines(path, file.read())
                alike = [old for old in kept if _lasting(old) == _lasting(version)]
                if alike:
                    return alike[-1]
                file.truncate(_whole(path))  # the end of a line that was being written when the machine stopped
                dated = version.model_copy(update={"at": datetime.now(UTC).isoformat(timespec="seconds")})
                file.seek(0, os.SEEK_END)
                file.write(dated.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            hint = "Free some space or see to its rights: answers are kept and cost nothing again."
            raise StorageError("A version could not be kept.", where=str(path), got=error, hint=hint) from error
        return dated

    def of(self, name: str) -> list[Version]:
        """Oldest first; none where nothing was tried.

        Raises:
            InputError: naming file and line of one that does not fit.
        """
        path = self.path(name)
        try:
            return _lines(path, path.read_bytes()) if path.exists() else []
        except OSError as error:
            raise InputError("The versions cannot be read.", where=str(path), got=error) from error

    def find(self, name: str, version: str) -> Version:
        """The newest line about a version.

        Raises:
            InputError: It is unknown, or was refused.
        """
        known = {one.version: one for one in self.of(name) if one.fate != "refused"}
        if version not in known:
            allowed = ", ".join(known) or "none yet"
            raise InputError("There is no such version.", where=name, got=version, allowed=allowed)
        return known[version]

    def apply(self, name: str, version: str) -> Path:
        """Put a known wording into the YAML of its attribute; the rest of that file stays byte for byte.

        Where that cannot be promised (a comment within what is replaced, an alias, a part of a `multi`) the YAML
        stays as it is and the wording is written beside it.

        Returns:
            The file written: the YAML, or `versions/<name>.proposal.yaml` to be copied by hand.

        Raises:
            InputError: An unknown version.
            StorageError: A file cannot be written; then nothing has changed.
        """
        chosen = self.find(name, version)
        found = reworded(self.folder, name, chosen.definition)
        if found is None:
            path, text = self.path(name).with_suffix(".proposal.yaml"), _proposal(name, chosen)
        else:
            path, text = found
        replace_file(path, text)
        if found is not None:
            self.add(name, chosen.model_copy(update={"fate": "applied", "at": ""}))
        return path


def _lasting(version: Version) -> Version:
    """Without what differs when the same thing is found again (the ledger's answers cost no tokens)."""
    figures = {key: value for key, value in version.figures.items() if key != "tokens"}
    return version.model_copy(update={"at": "", "figures": figures})


def _proposal(name: str, version: Version) -> str:
    import yaml

    head = f"# Copy these lines into the entry {name} of its file, by hand: something there would have been lost.\n"
    entry: Mapping[str, Any] = {"name": name, **version.definition}
    return head + yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=100)


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _whole(path: Path) -> int:
    """Bytes up to the last line that was finished."""
    return path.read_bytes().rfind(b"\n") + 1


def _lines(path: Path, data: bytes) -> list[Version]:
    found = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):  # the last is empty, or was never finished
        if not line.strip():
            continue
        try:
            found.append(Version.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                "A line of the versions does not fit.",
                where=f"{path}, line {number}, {'.'.join(map(str, first['loc']))}",
                got=first["msg"],
                hint="Mend or remove that line.",
            ) from error
    return found
