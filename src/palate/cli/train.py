"""`palate train`: one model on the training part, judged on validation; or a search for its settings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from palate.cli.options import JsonOption, ProjectOption, say, settings_of
from palate.console.words import plain
from palate.data.folder import read_folder
from palate.data.splits import Split, split_in_time
from palate.data.whole_file import replace_file
from palate.errors import InputError
from palate.experiments.compare import on_validation
from palate.experiments.tune import Trial
from palate.models.registry import make
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.tuning import tune_kept


def add_to(app: typer.Typer) -> None:
    app.command()(train)


def train(
    model: Annotated[str, typer.Argument(help="popularity, markov, item-knn, ease, two-tower, sasrec, ...")],
    project: ProjectOption = Path(),
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A folder of data instead of a project.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, fixed; again for more.")] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Search for the other settings, on validation only.")] = False,
    trials: Annotated[int, typer.Option(min=1, help="The most trials of a search, those before included.")] = 20,
    minutes: Annotated[float, typer.Option(min=0, help="The most minutes of this search.")] = 30.0,
    out: Annotated[Path | None, typer.Option(help="YAML that takes the settings found; as `models:` has them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train one model on the training part and judge it on validation. The test part is not read: see palate compare.

    With --tune its settings are searched for (the defaults are the first trial). Every trial is kept under
    .palate/tuning, so that a search that was stopped goes on.

    Example: `palate train ease --project palate-demo --tune --minutes 5 --out found.yaml`
    """
    bars = Bars(as_json)
    with _material(project, data) as (split, fixed, state), bars.shown():
        params = fixed.get(model, {}) | {name: _value(name, text) for name, text in settings_of(settings).items()}
        if tune:
            answer = _searched(model, split, state, params, trials, minutes, bars)
        else:
            answer = _trained(model, split, params)
    if out is not None:
        _write(out, model, answer["params"])
    say(plain(answer), as_json)


def _value(name: str, text: str) -> Any:
    """As YAML reads it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError("The value of a setting is no YAML.", where=f"--set {name}", got=text) from error


@contextmanager
def _material(folder: Path, data: Path | None) -> Iterator[tuple[Split, dict[str, dict[str, Any]], Path]]:
    """The split, the parameters that palate.yaml fixes, and where trials are kept."""
    if data is not None:
        yield split_in_time(read_folder(data)), {}, Path(".palate") / "tuning" / data.resolve().name
        return
    with closing(Project(folder)) as project:
        yield project.split, project.config.models, project.state / "tuning"


def _trained(model: str, split: Split, params: dict[str, Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    fitted = make(model, params).fit(split.train, None, split.validation)
    seconds = time.perf_counter() - begun
    found = {f"validation {name}": value for name, value in on_validation(fitted, split).items()}
    return {
        "model": model,
        "split": split.name,
        "queries": len(split.validation.queries),
        **found,
        "seconds": seconds,
        "params": params,
    }


def _searched(
    model: str, split: Split, state: Path, params: dict[str, Any], trials: int, minutes: float, bars: Bars
) -> dict[str, Any]:
    bar = bars.bar(model, "trials")

    def tell(trial: Trial, done: int, most: int) -> None:
        bar(done, most)
        figure = trial.failed if trial.figure is None else f"{trial.figure:.4f}"
        bars.console.print(
            f"  {figure}  {json.dumps(trial.params)}  {trial.seconds:.0f} s", soft_wrap=True, markup=False
        )

    found = tune_kept(model, split, state, trials=trials, minutes=minutes, fixed=params, on_trial=tell)
    facts = {"validation NDCG@10": found.figure, "of the defaults": found.default, "trials": len(found.tried)}
    return {"model": model, "split": split.name, **facts, "params": found.params}


def _write(out: Path, model: str, params: dict[str, Any]) -> None:
    try:
        before = yaml.safe_load(out.read_text()) if out.exists() else {}
    except (yaml.YAMLError, UnicodeError) as error:
        raise InputError("The file for the settings is no YAML.", where=str(out), got=error) from error
    if not isinstance(before or {}, dict):
        raise InputError("The file for the settings holds no mapping.", where=str(out), got=type(before).__name__)
    replace_file(out, yaml.safe_dump({**(before or {}), model: params}, sort_keys=False))
