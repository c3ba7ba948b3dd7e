"""What is wrong with a user's files: one `Finding` per kind of defect, gathered in a `CheckReport`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from palate.errors import InputError, printable

ERROR = "error"
WARNING = "warning"
_ON_ONE_SCREEN = 8


@dataclass(frozen=True)
class Finding:
    """A kind of defect in one column or file: where it is first met, how often, and how to mend it.

    `row` counts data rows from 1, the header not among them; `line` is the line of a text file, where it is known.
    An error stops reading; a warning does not.
    """

    level: str
    what: str
    file: str
    row: int | None = None
    column: str | None = None
    count: int = 1
    remedy: str = ""
    line: int | None = None

    @property
    def where(self) -> str:
        parts = [printable(self.file)]
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.line is not None:
            parts.append(f"line {self.line}")
        if self.column is not None:
            parts.append(f"column {printable(self.column)}")
        return ", ".join(parts)

    def __str__(self) -> str:
        what, remedy = printable(self.what), printable(self.remedy)
        return f"{self.level}: {self.where}: {what} (count: {self.count})\n  mend it: {remedy}"


@dataclass(frozen=True)
class CheckReport:
    """All findings, errors first."""

    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.level == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        return [f for f in self.findings if f.level == WARNING]

    @property
    def ok(self) -> bool:
        return not self.errors

    def as_dicts(self) -> list[dict[str, object]]:
        """For JSON."""
        return [asdict(f) for f in self.findings]

    def raise_errors(self) -> None:
        """Raise an `InputError` that fits one screen where there is any error."""
        errors = self.errors
        if not errors:
            return
        first = errors[0]
        if len(errors) == 1:
            got = f"{first.count} such rows" if first.count > 1 else None
            raise InputError(printable(first.what), where=first.where, got=got, hint=first.remedy)
        lines = [
            f"  {i}. {f.where}: {printable(f.what, 160)} ({f.count})" for i, f in enumerate(errors[:_ON_ONE_SCREEN], 1)
        ]
        if len(errors) > _ON_ONE_SCREEN:
            lines.append(f"  … and {len(errors) - _ON_ONE_SCREEN} more")
        what = "\n".join([f"The data has {len(errors)} errors, so nothing was read:", *lines])
        raise InputError(what, where=first.where, hint=f"first: {first.remedy}")


def report_of(findings: Sequence[Finding]) -> CheckReport:
    """A report with the errors first, otherwise in the order of finding."""
    return CheckReport(sorted(findings, key=lambda f: f.level != ERROR))
