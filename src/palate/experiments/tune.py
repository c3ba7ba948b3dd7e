"""Settings of a model found on the validation part alone, within a budget of trials and minutes (Optuna's TPE).

Tree-structured Parzen estimator: Bergstra et al., NeurIPS 2011. The defaults are the first trial, so that what is found
is never worse on validation than they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from palate.data.splits import Split
from palate.errors import InputError, PalateError
from palate.experiments.compare import on_validation
from palate.knowledge.tables import Knowledge
from palate.models.registry import config_class, make
from palate.models.search_space import Between, SearchSpace


@dataclass(frozen=True)
class Trial:
    """One set of parameters and its NDCG on validation; `failed` says why there is none."""

    params: dict[str, Any]
    figure: float | None
    seconds: float
    failed: str = ""


@dataclass(frozen=True)
class Tuned:
    """The best parameters, their figure, and all that was tried, in order."""

    name: str
    params: dict[str, Any]
    figure: float
    default: float
    tried: list[Trial] = field(default_factory=list)


def tune(
    name: str,
    split: Split,
    *,
    trials: int = 20,
    minutes: float = 30.0,
    fixed: dict[str, Any] | None = None,
    before: Sequence[Trial] = (),
    knowledge: Knowledge | None = None,
    n: int = 10,
    seed: int = 0,
    on_trial: Callable[[Trial, int, int], None] = lambda trial, done, most: None,
) -> Tuned:
    """Search the `search` of the model's configuration; NDCG@n over `split.validation` decides, the test is not read.

    Args:
        trials, minutes: The budget, whichever ends first; a trial that has begun is finished.
        fixed: Parameters that stay as they are.
        before: Trials of an earlier run, which count and are learned from.
        on_trial: Called after each trial, the place to keep it.

    Raises:
        InputError: No such model, nothing to search, a fixed parameter that does not fit, or Optuna is missing.
        PalateError: Every trial failed.
    """
    space = _space(name, fixed or {})
    study, begun = _study(space, before, seed), time.perf_counter()
    tried = list(before)
    while len(tried) < trials and (not tried or time.perf_counter() - begun < 60 * minutes):
        asked = study.ask()
        params = {} if not tried else {key: _suggest(asked, key, where) for key, where in space.items()}
        trial = _run(name, {**params, **(fixed or {})}, split, knowledge, n)
        if tried:
            study.tell(asked, trial.figure, state=None if trial.figure is not None else _failed())
        else:
            study.tell(asked, state=_failed())  # the defaults are not a point of the space
        tried.append(trial)
        on_trial(trial, len(tried), trials)
    good = [trial for trial in tried if trial.figure is not None]
    if not good:
        raise PalateError("Every trial failed", where=name, got=tried[-1].failed)
    best = max(good, key=lambda trial: trial.figure or 0.0)
    default = tried[0].figure
    return Tuned(name, best.params, float(best.figure or 0.0), np.nan if default is None else default, tried)


def _space(name: str, fixed: dict[str, Any]) -> SearchSpace:
    kind = config_class(name)
    make(name, fixed)  # says what does not fit
    space = {key: where for key, where in getattr(kind, "search", {}).items() if key not in fixed}
    if not space:
        raise InputError("This model has no setting to search for", got=name, hint="fix fewer settings")
    return space


def _study(space: SearchSpace, before: Sequence[Trial], seed: int) -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise InputError(
            "Tuning needs a package that is missing", got=error, hint="pip install 'palate[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=5))
    ranges = {key: _distribution(optuna.distributions, where) for key, where in space.items()}
    for trial in before:
        if trial.figure is not None and set(space) <= set(trial.params):
            kept = {key: trial.params[key] for key in space}
            study.add_trial(optuna.trial.create_trial(params=kept, distributions=ranges, value=trial.figure))
    return study


def _distribution(kinds: Any, where: Between | Sequence[Any]) -> Any:
    if not isinstance(where, Between):
        return kinds.CategoricalDistribution(list(where))
    if _whole(where):
        return kinds.IntDistribution(int(where.low), int(where.high), log=where.log)
    return kinds.FloatDistribution(where.low, where.high, log=where.log)


def _suggest(trial: Any, key: str, where: Between | Sequence[Any]) -> Any:
    if not isinstance(where, Between):
        return trial.suggest_categorical(key, list(where))
    suggest = trial.suggest_int if _whole(where) else trial.suggest_float
    return suggest(key, where.low, where.high, log=where.log)


def _whole(where: Between) -> bool:
    return isinstance(where.low, int) and isinstance(where.high, int)


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _run(name: str, params: dict[str, Any], split: Split, knowledge: Knowledge | None, n: int) -> Trial:
    begun = time.perf_counter()
    try:
        model = make(name, params).fit(split.train, knowledge, split.validation)
        figure = on_validation(model, split, n)[f"NDCG@{n}"]
    except (PalateError, ArithmeticError, np.linalg.LinAlgError) as error:  # settings that diverge are a finding
        return Trial(params, None, time.perf_counter() - begun, str(error).split("\n")[0])
    return Trial(params, figure, time.perf_counter() - begun)
