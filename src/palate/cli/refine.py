"""`palate annotate errors | refine | versions`: where LLM and people disagree, and definitions made from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import typer
from rich.console import Console
from rich.table import Table

from palate.cli.annotate import group
from palate.cli.options import JsonOption, ProjectOption, open_run
from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError, printable
from palate.knowledge.annotate import item_text
from palate.knowledge.attributes import Attribute
from palate.knowledge.disagreements import Disagreements, disagreements
from palate.knowledge.proposals import read_proposals
from palate.knowledge.refine import Judge, RefineConfig, Refinement, by_model, confirm, on_side, refine
from palate.knowledge.versions import History, Version
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import CachedEncoder
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.run import Run

AttributeOption = Annotated[str, typer.Option("--attribute", "-a", help="Name of the attribute.")]
Source = Literal["llm", "recorded", "student"]


@group.command()
def errors(
    project: ProjectOption = Path(),
    attribute: Annotated[str | None, typer.Option("--attribute", "-a", help="Only this one.")] = None,
    source: Annotated[Source, typer.Option(help="Whose labels; student: of the strongest teacher.")] = "llm",
    everything: Annotated[bool, typer.Option("--all", help="Also the half of dev that scores refinements.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Errors shown of each attribute.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="Yes from here; else the best F1's on these items.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where labels and people disagree on dev: the most confident errors first, then by category and cluster.

    Half of dev is left out unless --all is given: who rewords a definition after seeing its errors should not see the
    items that the new wording is scored on. Held-out labels are never shown.

    Example: `palate annotate errors --attribute funny --source recorded`
    """
    with open_run(project, as_json) as run:
        opened = run.project
        labels = _labels(run, source)
        golden = opened.golden.dev if everything else on_side(opened.golden.dev, opened.golden.split, proposing=True)
        vectors = _vectors(opened, golden)
        chosen = [_named(opened, attribute).name] if attribute else sorted(golden["attribute"].unique())
        shown, skipped = [], []
        for name in chosen:
            try:
                shown.append(disagreements(golden, labels, opened.dataset, name, vectors, threshold))
            except InputError as error:
                if attribute:
                    raise
                skipped.append({"attribute": name, "why": error.what})
    if as_json:
        typer.echo(json.dumps({"errors": [_as_dict(one, top) for one in shown], "skipped": skipped}))
        return
    for one in shown:
        _show_errors(one, top)
    for row in skipped:
        typer.echo(f"{printable(row['attribute'])} left out: {row['why']}")


@group.command("refine")
def refine_attribute(
    attribute: AttributeOption,
    project: ProjectOption = Path(),
    rounds: Annotated[int, typer.Option(min=1, help="The most rounds.")] = 3,
    candidates: Annotated[int, typer.Option(min=1, help="Wordings that the LLM writes in a round.")] = 3,
    proposals: Annotated[Path | None, typer.Option(help="YAML of wordings to compare instead.")] = None,
    items: Annotated[int, typer.Option(min=10, help="Judged items that score a wording.")] = 200,
    level: Annotated[float, typer.Option(min=0.001, max=0.5, help="The chance of keeping what is no better.")] = 0.05,
    report: Annotated[bool, typer.Option("--report", help="Then compare on held-out items; the read is kept.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Write the wording that won into the YAML.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Reword a definition from its errors on dev, and keep a wording only if it is significantly better.

    The LLM sees errors of one half of dev; the other half scores every candidate, the current wording beside it (AUC,
    paired permutation test, Holm over the candidates of a round). Nothing changes without --apply; all is kept in
    attributes/versions/.

    Example: `palate annotate refine --attribute funny --rounds 2` or
    `palate annotate refine -a funny --proposals mine.yaml --report`
    """
    config = RefineConfig(rounds=1 if proposals else rounds, candidates=candidates, items=items, level=level)
    with _asking(project, as_json) as (opened, llm):
        one, history = _named(opened, attribute), History(opened.path(opened.config.attributes))
        split, dev = opened.golden.split, opened.golden.dev
        judge = Judge(on_side(dev, split, proposing=False), opened.dataset, one.name, llm, items)
        propose = by_model(on_side(dev, split, proposing=True), opened.dataset, llm, llm, config)
        if proposals is not None:
            propose = partial(_of_file, proposals)
        others = [other for other in opened.attributes if other.name != one.name]
        found = refine(one, judge, propose, history, config, others)
        answer = _answer(found) | {"tokens": llm.spent.tokens_in + llm.spent.tokens_out, "calls": llm.spent.calls}
        if report and found.final != one:
            rows = opened.golden.held_out(f"palate annotate refine --attribute {one.name} --report")
            answer["held_out"] = confirm(one, found.final, Judge(rows, opened.dataset, one.name, llm, items))
        if apply and found.final != one:
            answer["written"] = str(history.apply(one.name, found.final.version))
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        _show_refinement(answer)


@group.command()
def versions(
    attribute: AttributeOption,
    project: ProjectOption = Path(),
    use: Annotated[str | None, typer.Option("--use", help="Write this version into the YAML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every wording that was tried, with its figures; go to another, or back.

    Only the attribute's own entry of the YAML is rewritten, with no comment lost; where that cannot be promised the
    wording is written beside it.

    Example: `palate annotate versions --attribute funny --use 1a2b3c4d`
    """
    opened = Project(project)
    one, history = _named(opened, attribute), History(opened.path(opened.config.attributes))
    written = history.apply(one.name, use) if use else None
    rows = [version.model_dump(mode="json") for version in history.of(one.name)]
    if as_json:
        typer.echo(json.dumps({"current": one.version, "versions": rows, "written": written and str(written)}))
        return
    console = Console(highlight=False)
    console.print(_table(rows) if rows else f"{one.name}: no wording but the current one ({one.version}) was tried.")
    if written:
        console.print(f"written: {printable(written)}", markup=False)


@contextmanager
def _asking(folder: Path, quiet: bool) -> Iterator[tuple[Project, LedgeredLLM]]:
    bars = Bars(quiet)
    with closing(Project(folder)) as project, bars.shown():
        yield project, LedgeredLLM(project.engine, project.ledger, project.budget, bars.bar("refine", "questions"))


def _of_file(path: Path, attribute: Attribute, number: int) -> Any:
    return read_proposals(path, attribute) if number == 0 else []


def _named(project: Project, name: str) -> Attribute:
    for attribute in project.attributes:
        if attribute.name == name:
            return attribute
    known = ", ".join(attribute.name for attribute in project.attributes)
    raise InputError("There is no such attribute.", where="--attribute", got=name, allowed=known)


def _labels(run: Run, source: Source) -> pl.DataFrame:
    if source == "student":
        return pl.read_parquet(run.distil.folder / f"{run.teachers[0].name}.parquet")
    made = run.recorded if source == "recorded" else run.annotate
    if made is None:
        raise InputError("The project has no recorded answers.", where="--source", hint="Name them in palate.yaml.")
    return pl.read_parquet(made.folder / "label.parquet")


def _vectors(project: Project, golden: pl.DataFrame) -> FloatArray:
    """Of the judged items alone; zeros elsewhere."""
    dataset: Dataset = project.dataset
    nums = sorted({dataset.item_nums[item_id] for item_id in golden["item_id"]})
    found = CachedEncoder(project.encoder, project.ledger).encode([item_text(dataset, num) for num in nums])
    vectors = np.zeros((dataset.n_items, found.shape[1]), dtype=np.float32)
    vectors[nums] = found
    return vectors


def _as_dict(one: Disagreements, top: int) -> dict[str, Any]:
    counts = {"judged": one.judged, "silent": one.silent, "threshold": one.threshold, "errors": one.errors.height}
    shown = {"shown": one.errors.head(top).to_dicts(), "groups": one.groups.to_dicts()}
    return {"attribute": one.attribute, **counts, **shown}


def _show_errors(one: Disagreements, top: int) -> None:
    console = Console(highlight=False)
    console.print(
        f"\n{one.attribute}: {one.errors.height} of {one.judged} judged items wrong, yes from {one.threshold:.3f}; "
        f"{one.silent} judged items without a label",
        markup=False,
    )
    table = Table("error", "item", "title", "value", "confidence", "raters", "evidence", "comments", box=None)
    for row in one.errors.head(top).iter_rows(named=True):
        confidence = "" if row["confidence"] is None else f"{row['confidence']:.2f}"
        texts = [_cell(row[name]) for name in ("kind", "item_id", "title")]
        more = [_cell(row["evidence"]), _cell(row["comments"])]
        table.add_row(*texts, f"{row['value']:.3f}", confidence, str(row["raters"]), *more)
    console.print(table)
    table = Table("by", "group", "judged", "false yes", "false no", "wrong", box=None)
    for by in ("kind", "category", "cluster"):
        for row in one.groups.filter(pl.col("by") == by).head(8).iter_rows(named=True):
            wrong = (row["false_yes"] + row["false_no"]) / row["judged"]
            counts = [str(row[name]) for name in ("judged", "false_yes", "false_no")]
            table.add_row(by, _cell(row["group"]), *counts, f"{wrong:.0%}")
    console.print(table)


def _answer(found: Refinement) -> dict[str, Any]:
    return {
        "attribute": found.start.name,
        "start": found.start.version,
        "final": found.final.version,
        "items": found.items,
        "yes": found.positives,
        "auc": found.auc,
        "rounds": [[version.model_dump(mode="json") for version in versions] for versions in found.rounds],
    }


def _show_refinement(answer: dict[str, Any]) -> None:
    console = Console(highlight=False)
    start, final = answer["start"], answer["final"]
    scored = f"{answer['items']} items of dev, {answer['yes']} of them yes"
    console.print(f"{answer['attribute']}, version {start}: AUC {answer['auc']:.3f} on {scored}", markup=False)
    for number, rows in enumerate(answer["rounds"], start=1):
        console.print(f"\nround {number}")
        console.print(_table(rows))
    kept = f"{final} is significantly better." if final != start else "Nothing was significantly better: it stays."
    console.print(f"\n{kept} {answer['calls']} calls, {answer['tokens']:,} tokens.", markup=False)
    if "held_out" in answer:
        console.print("held out: " + ", ".join(f"{k} {_figure(v)}" for k, v in answer["held_out"].items()))
    if "written" in answer:
        console.print(f"written: {printable(answer['written'])}", markup=False)
    elif final != start:
        console.print(f"To use it: palate annotate versions --attribute {answer['attribute']} --use {final}")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("version", "of", "fate", "AUC", "difference", "p (Holm)", "question", "why", box=None)
    for row in rows:
        version = Version.model_validate(row)
        figures = version.figures
        span = ""
        if "low" in figures:
            span = f"{figures['difference']:+.3f} [{figures['low']:+.3f}, {figures['high']:+.3f}]"
        shown = [_figure(figures.get("auc")), span, _figure(figures.get("p_holm"))]
        texts = [_cell(version.definition.get("question")), _cell(version.why)]
        table.add_row(version.version, version.parent or "", version.fate, *shown, *texts)
    return table


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str("" if value is None else value)


def _cell(value: object) -> str:
    from rich.markup import escape

    return escape(printable("" if value is None else value, 100))
