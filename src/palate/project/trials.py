"""A project's experiments: declared in palate.yaml or experiments/*.yaml, logged by servers, judged by their logs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from palate.console.experiments import view
from palate.errors import InputError, StorageError
from palate.experiments.analyse import Analysis, analyse
from palate.experiments.conflicts import check_together
from palate.experiments.declare import Experiment, read_experiments
from palate.experiments.log import Log, open_log
from palate.experiments.plan import Plan, plan
from palate.experiments.register import Register
from palate.experiments.verdict import as_data
from palate.project.project import Project
from palate.project.report import rendered, write_pages
from palate.serving.load import load_snapshot
from palate.serving.opened import Snapshot
from palate.serving.versions import current

FOLDER = "experiments"


class Trials:
    """Reads declarations and logs where they are asked for.

    Raises:
        InputError: A declaration that cannot be, or two that cannot be together.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.register = Register(project.state / FOLDER)

    @cached_property
    def experiments(self) -> dict[str, Experiment]:
        found = read_experiments(self.project.config.experiments, self.project.folder / FOLDER)
        check_together(found)
        return {each.name: each for each in found}

    def named(self, name: str) -> Experiment:
        """Raises `InputError` for a name that is not declared."""
        if name not in self.experiments:
            hint = "Declare it under experiments in palate.yaml, or in experiments/NAME.yaml."
            raise InputError(
                "There is no such experiment.", got=name, allowed=", ".join(self.experiments) or "none", hint=hint
            )
        return self.experiments[name]

    def start(self, now: datetime) -> tuple[Experiment, ...]:
        """Those that run or are planned, their declarations kept.

        Raises:
            InputError: The split of one that runs has changed.
        """
        for each in self.experiments.values():
            self.register.start(each, now)
        return tuple(each for each in self.experiments.values() if each.status(now) != "ended")

    def report(self, name: str, log: Log | None = None) -> tuple[Analysis, dict[str, Any], Path]:
        """Analyse one and write `report.html` and `report.json`; returns the analysis, its data and the folder.

        Raises:
            InputError: It is not declared, or there is no log.
            StorageError: The report cannot be written.
        """
        experiment, now = self.named(name), datetime.now(UTC)
        self.register.keep(experiment, now)
        analysis = analyse(log or self.log(experiment), experiment, now, self.register.changes(experiment))
        data, folder = as_data(analysis, now), self.register.report_folder(experiment)
        write_pages(folder, data, rendered("experiment_page.html", {"report": view(data)}))
        return analysis, data, folder

    def plan(self, name: str, power: float, effect: float | None, log: Log | None = None) -> Plan:
        experiment = self.named(name)
        return plan(log or self.log(experiment), experiment, power, effect)

    def log(self, experiment: Experiment, landing: Path | None = None) -> Log:
        """What servers landed, and before the experiment's start what the project's data say."""
        landed = landing or self.project.state / "landing"
        users = self._table("users")
        log = open_log(landed / "impressions", landed / "events", self._items(), users, experiment.unit)
        history = self._table("events")
        if history is None or experiment.unit != "user_id":
            return log
        before = history.lazy().filter(pl.col("timestamp") < experiment.start)
        wanted = [name for name in log.events.collect_schema().names() if name in history.columns]
        return replace(
            log,
            events=pl.concat([log.events, before.select(wanted).cast({"value": pl.Float64})], how="diagonal_relaxed"),
        )

    def _table(self, name: str) -> pl.DataFrame | None:
        """Of the project's data; None where there are none."""
        try:
            found: pl.DataFrame = getattr(self.project.dataset, name)
        except InputError:
            return None
        return found

    def _items(self) -> pl.DataFrame | None:
        """item_id, cluster, vector and creator as far as the snapshot in use and the items' table know them."""
        try:
            snapshot = load_snapshot(current(self.project.state / "snapshots"))
        except (InputError, StorageError):
            items = self._table("items")
            return None if items is None else items.select("item_id", *_creator(items))
        return items_of(snapshot)


def items_of(snapshot: Snapshot) -> pl.DataFrame:
    """A snapshot's items with the interest of the level that is explored, and their vectors."""
    items = snapshot.items[: snapshot.n_built]
    clusters = snapshot.tree.node_of_items(snapshot.explore_level)
    vectors = snapshot.vectors[snapshot.tree.position]
    return items.select("item_id", *_creator(items)).with_columns(
        cluster=pl.Series(clusters), vector=pl.Series(vectors.tolist(), dtype=pl.List(pl.Float64))
    )


def _creator(items: pl.DataFrame) -> list[str]:
    return ["creator"] if "creator" in items.columns else []
