"""Is a route's promise kept, and what does it cost: many random splits, and coverage against money."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from palate.knowledge.route import PEOPLE, Array, Judge, Numbers, RouteConfig, calibrate, route


def check_promise(
    judges: Sequence[Judge],
    truth: Array,
    names: Sequence[str],
    config: RouteConfig,
    splits: int = 200,
    seed: int = 0,
    drawn: bool = False,
) -> list[dict[str, Any]]:
    """How often the promise was broken, a row for each attribute that people labelled.

    Each time the rules are calibrated on a random half of the judged items and held against the other half. That half
    is a sample too, so its error passes α now and then where the true one does not; with `drawn` the rules are instead
    calibrated on as many items drawn with replacement and held against all, whose error is then the true one.

    Returns:
        attribute, splits, broken (times), share, `limit` (δ and three standard errors of so many splits), kept (whether
        share is at most limit), answered (mean share of items), worst (greatest error met).
    """
    rng, rows = np.random.default_rng(seed), []
    for column, name in enumerate(names):
        items = np.flatnonzero(~np.isnan(truth[:, column]))
        if len(items) < 2:
            continue
        y = truth[items][:, [column]]
        own = [Judge(judge.name, judge.scores[items][:, [column]], judge.cost) for judge in judges]
        errors, answered = [], []
        for _ in range(splits):
            order = rng.permutation(len(items))
            dev, rest = order[: len(items) // 2], order[len(items) // 2 :]
            if drawn:
                dev, rest = rng.integers(0, len(items), len(items) // 2), order
            error, share = _tried(own, y, dev, rest, name, config)
            errors.append(error)
            answered.append(share)
        broken = int((np.array(errors) > config.alpha).sum())
        slack = 3 * math.sqrt(config.delta * (1 - config.delta) / splits)
        rows.append(
            {
                "attribute": name,
                "splits": splits,
                "broken": broken,
                "share": broken / splits,
                "limit": config.delta + slack,
                "kept": broken / splits <= config.delta + slack,
                "answered": float(np.mean(answered)),
                "worst": float(np.max(errors)),
            }
        )
    return rows


def _tried(
    judges: Sequence[Judge], y: Array, dev: Numbers, rest: Numbers, name: str, config: RouteConfig
) -> tuple[float, float]:
    """The greater of the two errors that the promise speaks of, and the share answered."""
    rules, _ = calibrate([_only(judge, dev) for judge in judges], y[dev], [name], config)
    routed = route([_only(judge, rest) for judge in judges], rules)
    return worst_error(routed.says, y[rest], config.error), float((~np.isnan(routed.says)).mean())


def _only(judge: Judge, items: Numbers) -> Judge:
    return Judge(judge.name, judge.scores[items], judge.cost)


def worst_error(says: Array, y: Array, kind: str) -> float:
    """The greater error of the two kinds: among true yes and true no (`class`), or among answers yes and no."""
    shares = []
    for value in (0.0, 1.0):
        of = (y == value) if kind == "class" else (says == value)
        wrong = of & ~np.isnan(says) & ~np.isnan(y) & (says != y)
        shares.append(wrong.sum() / of.sum() if of.any() else 0.0)
    return float(max(shares))


def cost_curve(
    judges: Sequence[Judge],
    truth: Array,
    names: Sequence[str],
    config: RouteConfig,
    people: float,
    alphas: Sequence[float] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
) -> list[dict[str, Any]]:
    """Rows of a chart, x `coverage`, y `money`, `series`: share answered by machines against money a million items.

    One point for each promised error, on the judged items, by rules calibrated on them. `machines` is what those that
    were asked cost; with people (`people` a label) also what they left, unasked items among it.
    """
    judged = np.flatnonzero(~np.isnan(truth).all(axis=1))
    own, y = [_only(judge, judged) for judge in judges], truth[judged]
    rows = []
    for alpha in alphas:
        rules, _ = calibrate(own, y, names, config.model_copy(update={"alpha": alpha}))
        routed = route(own, rules)
        reached, money = np.ones(routed.takes.shape, dtype=bool), 0.0
        for number, judge in enumerate(own):
            silent = np.array([row[number].silent for row in rules])
            money += float((reached & ~silent & ~np.isnan(judge.scores)).sum()) * judge.cost
            reached &= (routed.takes != number) & (routed.waits != number)
        left = int((routed.takes == PEOPLE).sum())
        scale = 1e6 / max(len(y), 1)
        error = worst_error(routed.says, y, config.error)
        point = {"alpha": alpha, "coverage": float((~np.isnan(routed.says)).mean()), "error": error}
        rows.append(point | {"series": "machines", "money": money * scale})
        rows.append(point | {"series": "machines and people", "money": (money + left * people) * scale})
    return rows
