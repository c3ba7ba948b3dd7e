"""Logged slates as off-policy estimates want them, and what another policy would have earned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.files import UnreadableError, read_raw
from palate.data.findings import report_of
from palate.errors import InputError
from palate.evaluation.off_policy import OffPolicy, Replay, doubly_robust, ips, snips

Chances = Callable[[pl.DataFrame], npt.ArrayLike]
Array = npt.NDArray[np.float64]
SHOWN = ("user_id", "item_id", "request_id", "position", "propensity")
DONE = ("item_id", "event_type", "request_id")
PLACE = ["request_id", "position"]
NUMBERS = ("probability", "expected", "expected_target")


def slates_of(impressions: pl.DataFrame, events: pl.DataFrame, reward: str) -> pl.DataFrame:
    """The impressions with propensities beside what they `earned`, 0 or 1, in order of request and position.

    Args:
        impressions: Columns `SHOWN`; a position once in a slate.
        events: Columns `DONE`, of the slates' requests; also `position` where an item may stand twice in a slate.
        reward: The event that counts 1.

    Raises:
        InputError: A column is missing, there is no impression or no such event, or a place holds two items.
    """
    for frame, names, what in ((impressions, SHOWN, "impressions"), (events, DONE, "events")):
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise InputError("The log has no such column", where=what, got=missing[0], allowed=", ".join(names))
    if not impressions.height:
        raise InputError("The log has no impressions", where="impressions")
    shown = impressions.sort(PLACE, maintain_order=True)
    if shown.select(PLACE).is_duplicated().any():
        raise InputError("A place of a slate holds two items", where="request_id and position")
    if not (events["event_type"] == reward).any():
        there = ", ".join(sorted(events["event_type"].drop_nulls().unique().to_list())) or "none"
        raise InputError("The log has no such event", where="the reward", got=reward, allowed=there)
    keys = ["request_id", "item_id", *(["position"] if "position" in events.columns else [])]
    hits = events.filter(pl.col("event_type") == reward).select(keys).unique().with_columns(earned=pl.lit(1.0))
    return shown.join(hits, on=keys, how="left", maintain_order="left").with_columns(pl.col("earned").fill_null(0.0))


def replay_of(slates: pl.DataFrame, chance: Chances, clip: float | None = None) -> Replay:
    """Every slate of `slates_of` by position; people are drawn whole.

    Args:
        chance: The target's probability of each row of `slates` at its place.

    Raises:
        InputError: as `Replay`.
    """
    # a place that a slate does not have earns nothing under any policy
    columns = ("earned", 0.0), (np.asarray(chance(slates), dtype=np.float64), 1.0), ("propensity", 1.0)
    rewards, target, logging = (_wide(slates, values, empty) for values, empty in columns)
    people = slates["user_id"].to_numpy()[np.unique(slates["request_id"].rle_id().to_numpy(), return_index=True)[1]]
    return Replay(rewards, target, logging, groups=people, clip=clip)


def read_chances(path: Path) -> pl.DataFrame:
    """A target's chances, and what a model expects, from a file: see `estimates`.

    Raises:
        InputError: It cannot be read, or something in it is no number; with file, row and column.
    """
    try:
        found = read_raw(path).frame
    except UnreadableError as broken:
        report_of(broken.findings).raise_errors()
        raise
    kinds = {"request_id": pl.String, "position": pl.Int32, **dict.fromkeys(NUMBERS, pl.Float64)}
    for name in set(kinds) & set(found.columns):
        read = found[name].cast(kinds[name], strict=False)
        if (wrong := read.is_null()).any():
            row = int(wrong.arg_max() or 0)
            where = f"{path}, row {row + 1}, column {name}"
            raise InputError("A value cannot be read", where=where, got=found[name][row], allowed=str(kinds[name]))
        found = found.with_columns(read)
    return found


def estimates(slates: pl.DataFrame, chances: pl.DataFrame, clip: float | None = None) -> dict[str, OffPolicy]:
    """What slates earn: as logged, and under a target by every estimator that its table allows.

    Args:
        slates: Of `slates_of`.
        chances: request_id, position and `probability`, the target's, of the item that was logged there. With
            `expected` and `expected_target` also doubly robust: what a model that has not learned from these slates
            expects of the logged item, and of the target, at that place.

    Raises:
        InputError: A column is missing, a row is there twice or not at all, or as `Replay`.
    """
    _check(chances)
    beside = slates.join(chances, on=PLACE, how="left", maintain_order="left")
    if beside["probability"].is_null().any():
        lost = beside.filter(pl.col("probability").is_null())
        got = f"{lost.height} places without a probability"
        hint = "give a row for each place that was logged, 0 where the target would not show that item there"
        raise InputError("The target says nothing of what was shown", where=_first(lost), got=got, hint=hint)
    replay = replay_of(beside, lambda rows: rows["probability"], clip)
    found = {"as logged": ips(replay_of(slates, lambda rows: rows["propensity"]))}
    found |= {"IPS": ips(replay), "SNIPS": snips(replay)}
    if {"expected", "expected_target"} <= set(chances.columns):
        expected, under_target = (_wide(beside, name, 0.0) for name in ("expected", "expected_target"))
        found["doubly robust"] = doubly_robust(replay, expected, under_target)
    return found


def _check(chances: pl.DataFrame) -> None:
    needed = (*PLACE, "probability")
    missing = [name for name in needed if name not in chances.columns]
    if missing:
        where, got = f"column {missing[0]}", ", ".join(chances.columns)
        raise InputError("The target's chances lack a column", where=where, got=got, allowed=", ".join(needed))
    twice = chances.filter(chances.select(PLACE).is_duplicated())
    if twice.height:
        raise InputError("The target's chances name a place twice", where=_first(twice))


def _first(rows: pl.DataFrame) -> str:
    request, position = rows.select(PLACE).row(0)
    return f"request {request}, position {position}"


def _wide(slates: pl.DataFrame, values: str | Array, empty: float) -> Array:
    """[slates, places], `empty` where a slate has no such place."""
    slate = slates["request_id"].rle_id().to_numpy()
    place = slates["position"].rank("dense").to_numpy().astype(np.int64) - 1
    found = np.full((int(slate.max()) + 1, int(place.max()) + 1), empty)
    found[slate, place] = values if isinstance(values, np.ndarray) else _numbers(slates[values])
    return found


def _numbers(column: pl.Series) -> Array:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
