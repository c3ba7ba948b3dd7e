"""The few exceptions Palate raises: each says what is wrong, where, and what to do next."""

from __future__ import annotations


class PalateError(Exception):
    """An error a person can act on.

    Args:
        what: What is wrong, one sentence.
        where: File, row, column, field or address.
        got: The value found.
        allowed: The values that would have been accepted.
        hint: What to do next.
        retryable: Whether the same call may succeed later.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: object = None,
        allowed: object = None,
        hint: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.allowed = allowed
        self.hint = hint
        self.retryable = retryable

    def __str__(self) -> str:
        lines = [self.what]
        for label, value in (
            ("where", self.where),
            ("got", self.got),
            ("allowed", self.allowed),
            ("hint", self.hint),
        ):
            if value is not None:
                lines.append(f"  {label + ':':<9}{printable(value)}")
        return "\n".join(lines)


class InputError(PalateError):
    """A file, row, option or request that does not fit."""

    exit_code = 2


class EngineError(PalateError):
    """A language model that could not be reached or answered nonsense."""


class BudgetError(PalateError):
    """The run would spend more than it was given."""


class StorageError(PalateError):
    """A file that could not be written or whose checksum is wrong."""

    exit_code = 2


def printable(value: object, limit: int = 300) -> str:
    """`value` on one line without control characters, so that data cannot forge a log line or move a cursor."""
    text = str(value)
    clean = "".join(ch if ch.isprintable() else f"\\x{ord(ch):02x}" for ch in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
