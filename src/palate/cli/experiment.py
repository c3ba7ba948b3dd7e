"""`palate experiment`: plan, check and judge what is tried on people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from palate.cli.options import JsonOption, ProjectOption
from palate.console.experiments import view
from palate.console.words import plain
from palate.errors import InputError, printable
from palate.evaluation.off_policy import OffPolicy
from palate.experiments.log import Log, open_log
from palate.experiments.plan import as_data
from palate.experiments.replay import estimates, read_chances, slates_of
from palate.project.project import Project
from palate.project.trials import Trials

group = typer.Typer(no_args_is_help=True, help="Experiments on people: planned, checked, judged.")

NameArgument = Annotated[str, typer.Argument(help="The experiment's name.")]
LandingOption = Annotated[
    Path | None,
    typer.Option(help="Folder with impressions/ and events/ in Parquet; default: .palate/landing of the project."),
]
PowerOption = Annotated[float, typer.Option(help="The chance of finding the effect, if it is there.")]
EffectOption = Annotated[
    float | None, typer.Option(help="Relative change of the primary metric; default: the declared minimum_effect.")
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="experiment")


@group.command("plan")
def plan_one(
    name: NameArgument,
    project: ProjectOption = Path(),
    power: PowerOption = 0.8,
    effect: EffectOption = None,
    landing: LandingOption = None,
    as_json: JsonOption = False,
) -> None:
    """How many people an experiment needs and how long that takes, by the primary metric in the log so far.

    Example: `palate experiment plan novelty --effect 0.02 --project my-feed`
    """
    if not 0 < power < 1:
        raise InputError("A chance lies between 0 and 1.", where="--power", got=power)
    if effect == 0:
        raise InputError("An effect of nothing cannot be found.", where="--effect", got=effect)
    with closing(Project(project)) as opened:
        trials = Trials(opened)
        made = trials.plan(name, power, effect, _log(trials, name, landing))
    if as_json:
        typer.echo(json.dumps(plain(as_data(made))))
        return
    console = Console()
    _say(console, made.words())
    rows = [(f"{weeks}", f"{found:+.1%}") for weeks, found in made.detectable.items()]
    _table(console, ("weeks", f"change found with {power:.0%}"), rows)


@group.command()
def check(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Read every declaration: what cannot be, what cannot be together, and what changed while it runs.

    Example: `palate experiment check --project my-feed`
    """
    now = datetime.now(UTC)
    with closing(Project(project)) as opened:
        trials = Trials(opened)
        trials.start(now)
        rows = [
            {
                "name": each.name,
                "status": each.status(now),
                "variants": each.shares,
                "layer": each.split.layer,
                "slots": each.slots,
                "primary": each.primary,
                "fingerprint": each.fingerprint(),
                "changed": trials.register.changes(each).plan,
            }
            for each in trials.experiments.values()
        ]
    if as_json:
        typer.echo(json.dumps(plain({"experiments": rows})))
        return
    names = ("name", "status", "layer", "slots", "primary", "fingerprint")
    _table(Console(), names, [tuple(_slots(row[name]) for name in names) for row in rows])
    _say(Console(), [f"{row['name']}: {said}" for row in rows for said in row["changed"]])


@group.command()
def report(
    name: NameArgument,
    project: ProjectOption = Path(),
    landing: LandingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge an experiment by what was shown and done: checks first, then effects with their intervals.

    Writes report.html and report.json to .palate/experiments/NAME. An experiment that fails a check is not read: exit
    code 1.

    Example: `palate experiment report novelty --project my-feed`
    """
    with closing(Project(project)) as opened:
        trials = Trials(opened)
        analysis, data, folder = trials.report(name, _log(trials, name, landing))
    if as_json:
        typer.echo(json.dumps(plain(data)))
    else:
        _tell(Console(), data, folder)
    if not analysis.readable:
        raise typer.Exit(1)


@group.command()
def replay(
    chances: Annotated[
        Path,
        typer.Argument(
            help="Parquet or CSV: request_id, position, probability (another policy's, of the item shown there); "
            "with expected and expected_target also the doubly robust estimate."
        ),
    ],
    project: ProjectOption = Path(),
    landing: LandingOption = None,
    reward: Annotated[str, typer.Option(help="The event that counts 1.")] = "click",
    clip: Annotated[float | None, typer.Option(help="The largest weight that counts; default: all count.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What another policy would have earned a slate, from what was logged with its propensities.

    Slates count by position. Where the log could not have shown what the other policy shows, nothing is estimated: exit
    code 2.

    Example: `palate experiment replay chances.parquet --reward click --project my-feed`
    """
    if clip is not None and not clip > 0:
        raise InputError("A clip must be positive.", where="--clip", got=clip)
    folder = landing or project / ".palate" / "landing"
    log = open_log(folder / "impressions", folder / "events")
    slates = slates_of(log.impressions.collect(), log.events.collect(), reward)
    found = estimates(slates, read_chances(chances), clip)
    if as_json:
        typer.echo(json.dumps(plain({name: asdict(each) for name, each in found.items()})))
        return
    names = ("estimate", f"{reward}s a slate", "95% interval", "slates", "effective", "largest weight", "clipped")
    _table(Console(), names, [(name, *_estimate(each)) for name, each in found.items()])


def _estimate(each: OffPolicy) -> tuple[str, ...]:
    value = each.value
    interval, effective = f"{value.low:.4f} to {value.high:.4f}", f"{each.effective:,.0f}"
    return f"{value.mean:.4f}", interval, f"{each.n:,}", effective, f"{each.largest:.2f}", f"{each.clipped:.1%}"


def _log(trials: Trials, name: str, landing: Path | None) -> Log | None:
    return None if landing is None else trials.log(trials.named(name), landing)


def _tell(console: Console, data: dict[str, Any], folder: Path) -> None:
    _say(console, data["verdict"])
    shown = view(data)
    checks = [(each["name"], each["said"], each["words"]) for each in shown["checks"] if each["state"] != "good"]
    if checks:
        _table(console, ("check", "state", "finding"), checks)
    names = ("metric", "variant", "values", "change", "p_text", "said")
    rows = [
        tuple(each["missing"] if each["missing"] and name == "change" else each[name] for name in names)
        for each in shown["effects"]
    ]
    if rows:
        _table(console, ("metric", "variant", "control → variant", "change", "p, adjusted", "told apart"), rows)
    console.print(Text(f"report   {folder / 'report.html'}"))


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(Text(printable(line, 2000)), soft_wrap=True)


def _table(console: Console, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(*names)
    for row in rows:
        table.add_row(*[Text(printable(cell, 400)) for cell in row])
    console.print(table)


def _slots(value: Any) -> str:
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, tuple) else str(value)
