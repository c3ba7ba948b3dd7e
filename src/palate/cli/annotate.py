"""`palate annotate`: what a language model says about items."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.llm_options import OnOption, WorkersOption
from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import InputError, printable
from palate.knowledge.attack import AttackConfig, AttackReport, arms_of, attack
from palate.knowledge.golden import truth_matrix
from palate.knowledge.injections import INJECTIONS
from palate.knowledge.lint import definition, lint
from palate.llm.asking import LedgeredLLM
from palate.project.progress import Bars
from palate.project.project import Project

group = typer.Typer(invoke_without_command=True)


def add_to(app: typer.Typer) -> None:
    from palate.cli import fresh, refine  # noqa: F401  (their commands join the group)

    app.add_typer(group, name="annotate")


@group.callback()
def annotate(
    context: typer.Context,
    project: ProjectOption = Path(),
    on: OnOption = None,
    workers: WorkersOption = 4,
    as_json: JsonOption = False,
) -> None:
    """Ask the LLM about a budgeted sample of items (annotate.items in palate.yaml).

    Answers are kept in the ledger as they come: a run that was stopped goes on where it was.

    Example: `PALATE__ANNOTATE__ITEMS=200 palate annotate`
    """
    if context.invoked_subcommand is not None:
        return
    with open_run(project, as_json) as run:
        run.project.workers = workers if on == "ray" else None
        made = run.annotate
    say({"labels": str(made.folder / "label.parquet"), **made.detail}, as_json)


@group.command("lint")
def lint_attributes(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Find vague, double, negated, unexplained or overlapping definitions in attributes/*.yaml, by rule.

    Exit code 1 if there are any. Example: `palate annotate lint --project palate-demo`
    """
    opened = Project(project)
    attributes = opened.attributes
    remarks = lint(attributes, opened.encoder.encode([definition(attribute) for attribute in attributes]))
    if as_json:
        typer.echo(json.dumps([asdict(remark) for remark in remarks]))
    else:
        table = Table("attribute", "rule", "what", "hint", box=None)
        for remark in remarks:
            table.add_row(*(printable(cell) for cell in astuple(remark)))
        Console().print(table if remarks else f"{len(attributes)} definitions, nothing to mend.")
    if remarks:
        raise typer.Exit(1)


@group.command("attack")
def attack_annotator(
    project: ProjectOption = Path(),
    items: Annotated[int, typer.Option(min=4, help="Dev items that are attacked.")] = 12,
    only: Annotated[list[str] | None, typer.Option(help="An injection; again for more. None: all of them.")] = None,
    each: Annotated[bool, typer.Option("--each", help="Also each defence alone: what does it contribute?")] = False,
    seed: int = 0,
    as_json: JsonOption = False,
) -> None:
    """Append injections to dev items and count the answers they turn, with and without the defences.

    Beside each stands equally long text of other items, and what the defences cost in F1 and AUC on untouched items.
    Exit code 1 if more than a third of the flips are left, benign ones taken off. Answers are kept in the ledger.

    Example: `palate annotate attack --items 12 --only command --only JSON`
    """
    unknown = sorted(set(only or ()) - set(INJECTIONS))
    if unknown:
        raise InputError("There is no such injection.", where="--only", got=unknown[0], allowed=", ".join(INJECTIONS))
    bars = Bars(as_json)
    with closing(Project(project)) as opened, bars.shown():
        attributes, ids = opened.attributes, opened.dataset.item_ids
        dev = truth_matrix(opened.golden.dev, ids, [attribute.name for attribute in attributes])
        llm = LedgeredLLM(opened.engine, opened.ledger, opened.budget, bars.bar("attack", "questions"))
        config = AttackConfig(items=items, injections=tuple(only or INJECTIONS), seed=seed)
        arms = arms_of(opened.config.annotate, each)
        report = attack(opened.dataset, attributes, dev, llm, arms, config=config, salt=opened.salt)
        model = llm.model
    if as_json:
        typer.echo(json.dumps({"model": model, **asdict(report), "holds": report.holds}))
    else:
        _show(report, model)
    if not report.holds:
        raise typer.Exit(1)


def _show(report: AttackReport, model: str) -> None:
    table = Table("defences", "injection", "n", "flipped", "benign", "net", box=None)
    for rate in report.rates:
        figures = [f"{x.mean:.2f} [{x.low:.2f}, {x.high:.2f}]" for x in (rate.flipped, rate.benign, rate.net)]
        table.add_row(printable(rate.arm), rate.injection, str(rate.n), *figures)
    prices = Table("defences", "clean n", "F1", "AUC", "tokens a question", box=None)
    for price in report.prices:
        figures = [f"{x.mean:.2f} [{x.low:.2f}, {x.high:.2f}]" for x in (price.f1, price.auc)]
        prices.add_row(printable(price.arm), str(price.n), *figures, f"{price.tokens:.0f}")
    console = Console()
    console.print(report.verdict(model), soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    console.print(prices)
