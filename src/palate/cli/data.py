"""`palate check`: what is wrong with data and config, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption
from palate.data.check import check_files
from palate.errors import InputError
from palate.project.project import Project


def add_to(app: typer.Typer) -> None:
    app.command()(check)


def check(
    project: ProjectOption = Path(),
    items: Annotated[Path | None, typer.Option(help="Check these files instead of a project's.")] = None,
    events: Annotated[Path | None, typer.Option(help="The log that goes with --items.")] = None,
    users: Annotated[Path | None, typer.Option(help="The users that go with them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what does not fit, row by row, and how to mend it. Exit code 2 if anything must be mended.

    Example: `palate check --items items.csv --events events.csv`
    """
    if (items is None) != (events is None):
        raise InputError("Items and events are checked together.", hint="Give both --items and --events.")
    if items is not None and events is not None:
        findings = check_files(items, events, users)
        lines, good, found = [str(one) for one in findings.findings], findings.ok, findings.as_dicts()
    else:
        lines, good, found = _check_project(Project(project))
    if as_json:
        typer.echo(json.dumps({"ok": good, "findings": found}, default=str))
    else:
        for line in lines:
            typer.echo(line)
        typer.echo("Nothing to mend." if good else "Mend what is marked as an error, then check again.")
    raise typer.Exit(0 if good else 2)


def _check_project(project: Project) -> tuple[list[str], bool, list[dict[str, object]]]:
    data = project.config.data
    lines: list[str] = []
    good, found = True, []
    if data.movielens is None:
        items, events, *users = project.data_files
        report = check_files(items, events, users[0] if users else None)
        lines, good, found = [str(one) for one in report.findings], report.ok, report.as_dicts()
    if good:
        dataset = project.dataset
        lines.append(f"data: {dataset.n_items} items, {dataset.n_users} users, {dataset.events.height} events")
        landed = ", ".join(f"{name} {count}" for name, count in project.joined.facts().items() if count)
        lines += [f"landed by servers: {landed}"] if landed else []
    lines.append(f"attributes: {', '.join(attribute.name for attribute in project.attributes)}")
    if good and project.has_golden:
        golden = project.golden
        lines.append(f"golden: {golden.dev.height} labels on the dev side, {golden.n_locked} held out")
        lines += [f"golden: {skip}" for skip in golden.skipped]
    lines.append(f"llm: {project.engine.model} ({project.engine.name})")
    return lines, good, found
