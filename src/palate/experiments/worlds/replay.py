"""Logged slates as off-policy estimates want them: of a world, or of any table of the house's events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.errors import InputError
from palate.evaluation.off_policy import Replay

Chances = Callable[[pl.DataFrame], npt.ArrayLike]
NEEDED = ("user_id", "item_id", "event_type", "request_id", "position", "propensity")


def replay_of(events: pl.DataFrame, chance: Chances, reward: str = "click", clip: float | None = None) -> Replay:
    """Every logged slate with its rewards by position; people are drawn whole.

    Args:
        events: Impressions with `request_id`, `position` (once in a slate) and `propensity`, and what became of them.
        chance: The target's probability of each of the impressions (rows of `events`, in order of request and
            position) at its place.
        reward: The event that counts 1.

    Raises:
        InputError: A column is missing, there is no impression, a place holds two items, or as `Replay`.
    """
    missing = [name for name in NEEDED if name not in events.columns]
    if missing:
        raise InputError("The log has no such column", got=missing[0], allowed=", ".join(NEEDED))
    shown = events.filter(pl.col("event_type") == "impression").sort("request_id", "position", maintain_order=True)
    if not shown.height:
        raise InputError("The log has no impressions", where="event_type", allowed="impression")
    if shown.select("request_id", "position").is_duplicated().any():
        raise InputError("A place of a slate holds two items", where="request_id and position")
    keys = ["request_id", "position", "item_id"]
    hits = events.filter(pl.col("event_type") == reward).select(keys).unique().with_columns(hit=pl.lit(1.0))
    earned = shown.join(hits, on=keys, how="left", maintain_order="left")["hit"].fill_null(0.0).to_numpy()
    slate = shown["request_id"].rle_id().to_numpy()
    place = shown["position"].rank("dense").to_numpy().astype(np.int64) - 1
    # a place that a slate does not have earns nothing under any policy
    columns = (earned, 0.0), (np.asarray(chance(shown), dtype=np.float64), 1.0), (_numbers(shown), 1.0)
    size = (int(slate.max()) + 1, int(place.max()) + 1)
    rewards, target, logging = (_wide(size, slate, place, values, empty) for values, empty in columns)
    people = shown["user_id"].to_numpy()[np.unique(slate, return_index=True)[1]]
    return Replay(rewards, target, logging, groups=people, clip=clip)


def _numbers(shown: pl.DataFrame) -> npt.NDArray[np.float64]:
    return shown["propensity"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _wide(
    size: tuple[int, int],
    slate: npt.NDArray[np.integer],
    place: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    empty: float,
) -> npt.NDArray[np.float64]:
    found = np.full(size, empty)
    found[slate, place] = values
    return found
