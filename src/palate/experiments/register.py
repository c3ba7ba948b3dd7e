"""What was declared when an experiment started, kept: what decides who gets what must not change while it runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from palate.data.whole_file import replace_file
from palate.errors import InputError, StorageError
from palate.experiments.declare import Experiment

_SPLIT = ("unit", "layer", "slots", "salt", "start", "variants")
_PLAN = (
    "end",
    "control",
    "primary",
    "guardrails",
    "metrics",
    "define",
    "minimum_effect",
    "correction",
    "level",
    "slices",
    "pre_days",
    "people",
)


@dataclass(frozen=True)
class Changes:
    """In words: of what decides who gets what, and of what it is judged by."""

    split: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()


NOTHING = Changes()


class Register:
    """The folder `.palate/experiments` of a project: for each experiment its declaration at the start.

    Reports lie beside it, in a folder of the experiment's name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def report_folder(self, experiment: Experiment) -> Path:
        return self.folder / experiment.name

    def keep(self, experiment: Experiment, now: datetime) -> None:
        """Keep the declaration: of one that is planned always, of one that runs unless there is one.

        Raises:
            StorageError: It cannot be written, or what was kept cannot be read.
        """
        status = experiment.status(now)
        if status == "planned" or (status == "running" and self._kept(experiment) is None):
            declared = experiment.model_dump(mode="json")
            said = {**declared, "fingerprint": experiment.fingerprint(), "kept": now.isoformat()}
            replace_file(self._path(experiment), json.dumps(said, indent=1) + "\n", "The declaration")

    def start(self, experiment: Experiment, now: datetime) -> None:
        """Keep the declaration, and hold that of one that runs against what was kept.

        Raises:
            InputError: The split or a variant's settings changed while it runs.
            StorageError: It cannot be written, or what was kept cannot be read.
        """
        self.keep(experiment, now)
        if experiment.status(now) == "running" and self.changes(experiment).split:
            raise InputError(
                "The split of an experiment changed while it runs.",
                where=f"experiment {experiment.name}",
                got="; ".join(self.changes(experiment).split),
                hint="People would change variants, and nothing could be read. Put it back as it was, or end this one "
                "and start another under a new name.",
            )

    def changes(self, experiment: Experiment) -> Changes:
        """What differs from the declaration that was kept at the start."""
        kept = self._kept(experiment)
        if kept is None:
            return NOTHING
        split = _differing(kept, experiment, _SPLIT)
        if not split and kept["fingerprint"] != experiment.fingerprint():
            split = ("variants stand in another order",)
        return Changes(split, _differing(kept, experiment, _PLAN))

    def _path(self, experiment: Experiment) -> Path:
        return self.folder / experiment.name / "declared.json"

    def _kept(self, experiment: Experiment) -> dict[str, Any] | None:
        path = self._path(experiment)
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            hint = "Remove it if the experiment is over; while it runs it says who gets what."
            raise StorageError(
                "What was declared at the start cannot be read.", where=str(path), got=error, hint=hint
            ) from error
        return kept


def _differing(kept: dict[str, Any], experiment: Experiment, names: tuple[str, ...]) -> tuple[str, ...]:
    now = experiment.model_dump(mode="json")
    changed = [name for name in names if _plain(kept.get(name)) != _plain(now.get(name))]
    return tuple(f"{name} was {_said(kept.get(name))}, is {_said(now.get(name))}" for name in changed)


def _plain(value: Any) -> Any:
    """Times as moments: the same one may be written in two zones."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            return value
    return value


def _said(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:120]
