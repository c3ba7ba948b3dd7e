"""Knowledge that keeps up: what must be asked again, whether student and LLM still agree, whose rates have jumped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import TIMESTAMP, Dataset, IntArray
from palate.errors import InputError
from palate.evaluation.alarms import Chart, control_chart, jumps
from palate.evaluation.selective import upper_bound
from palate.knowledge.annotate import annotate, content_hash, item_text
from palate.knowledge.attributes import Attribute
from palate.llm.request import LLM

Schema = dict[str, pl.DataType | type[pl.DataType]]
CATALOGUE: Schema = {"item_id": pl.String, "content_hash": pl.String, "since": TIMESTAMP}
"""What the catalogue held at the last visit; since: when an item with this content was first seen."""
DUE: Schema = {"item_id": pl.String, "name": pl.String, "why": pl.String}
TRICKLE: Schema = {"item_id": pl.String, "name": pl.String, "llm": pl.Float64, "student": pl.Float64}
_SURE = 0.95  # of the bound on the usual rate of disagreement


@dataclass(frozen=True)
class Drift:
    """One attribute: `usual` is the upper 95% bound of the disagreement before, `chart` the watch over the trickle."""

    name: str
    before: tuple[int, int]  # disagreements, items
    trickled: tuple[int, int]
    usual: float
    chart: Chart


@dataclass(frozen=True)
class Jump:
    """A group whose share of hits is higher now than before: hits and items, then and now."""

    group: str
    name: str
    before: tuple[int, int]
    now: tuple[int, int]
    p_value: float


def visit(dataset: Dataset, catalogue: pl.DataFrame | None, now: datetime) -> pl.DataFrame:
    """The catalogue as it is `now`, in `CATALOGUE`: items whose content is as it was keep their `since`."""
    hashes = [content_hash(item_text(dataset, num)) for num in range(dataset.n_items)]
    seen = pl.DataFrame({"item_id": dataset.item_ids, "content_hash": hashes})
    before = pl.DataFrame(schema=CATALOGUE) if catalogue is None else catalogue
    return seen.join(before, on=["item_id", "content_hash"], how="left", maintain_order="left").with_columns(
        pl.col("since").fill_null(now).cast(TIMESTAMP)
    )


def due(
    dataset: Dataset, attributes: Sequence[Attribute], labels: pl.DataFrame, catalogue: pl.DataFrame | None
) -> pl.DataFrame:
    """Which item must be asked about which attribute, in `DUE`, and why.

    "new": the item was not in the catalogue and nobody was asked about it. "changed": the model was shown other text
    than the item has now. "reworded": the question was another. "new attribute": the item was asked about others, not
    about this one. An item that was in the catalogue and never asked about is the student's, and not due.

    Args:
        labels: Label rows of one LLM; for each item and attribute the last one counts.
        catalogue: As the last visit left it; None: this is the first, and no item is new.
    """
    newest = labels.unique(["entity", "name"], keep="last", maintain_order=True)
    asked = {(e, n): (h, v) for e, n, h, v in newest.select("entity", "name", "content_hash", "version").iter_rows()}
    touched = {entity for entity, _ in asked}
    known = None if catalogue is None else {*catalogue["item_id"]}
    found = []
    for num, item_id in enumerate(dataset.item_ids):
        if item_id not in touched:
            if known is not None and item_id not in known:
                found += [(item_id, attribute.name, "new") for attribute in attributes]
            continue
        hashed = content_hash(item_text(dataset, num))
        for attribute in attributes:
            why = _why(asked.get((item_id, attribute.name)), hashed, attribute.version)
            if why is not None:
                found.append((item_id, attribute.name, why))
    return pl.DataFrame(found, schema=DUE, orient="row")


def ask_due(
    what: pl.DataFrame, dataset: Dataset, attributes: Sequence[Attribute], llm: LLM, **manner: Any
) -> pl.DataFrame:
    """Label rows for what is `due`: each item is asked about its own due attributes and no others.

    `manner` goes to `annotate`.
    """
    by_name = {attribute.name: attribute for attribute in attributes}
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for item_id, names in what.group_by("item_id", maintain_order=True).agg("name").iter_rows():
        groups[tuple(names)].append(dataset.item_nums[item_id])
    parts = [
        annotate(dataset, np.array(nums, dtype=np.int32), [by_name[name] for name in names], llm, **manner)
        for names, nums in groups.items()
    ]
    filled = [part for part in parts if not part.is_empty()]
    return pl.concat(filled, how="diagonal") if filled else pl.DataFrame()


def sample_trickle(dataset: Dataset, student: pl.DataFrame, n: int, seed: int) -> IntArray:
    """`n` item_nums at random among those that the student labelled; another `seed`, another draw."""
    known = sorted(dataset.item_nums[e] for e in student["entity"].unique() if e in dataset.item_nums)
    drawn = np.random.default_rng(seed).choice(len(known), min(n, len(known)), replace=False)
    return np.asarray(known, dtype=np.int32)[drawn]


def compared(answers: pl.DataFrame, student: pl.DataFrame) -> pl.DataFrame:
    """What the LLM and the student say of the same items and attributes, in `TRICKLE`."""
    if answers.is_empty():
        return pl.DataFrame(schema=TRICKLE)
    newest = [rows.unique(["entity", "name"], keep="last", maintain_order=True) for rows in (answers, student)]
    pairs = newest[0].join(newest[1], on=["entity", "name"], maintain_order="left")
    return pairs.select(item_id="entity", name="name", llm="value", student="value_right").cast(TRICKLE)  # type: ignore[arg-type]


def drift(history: pl.DataFrame, trickle: pl.DataFrame, run_length: float = 2000) -> list[Drift]:
    """Whether LLM and student disagree more on the `trickle` (rows in `TRICKLE`, in order) than they did before.

    Each says yes of as many items as the mean of its values in `history` says. Attribute by attribute a control chart
    (`palate.evaluation.alarms`) watches for a rate of disagreement above the upper 95% bound of the one in `history`.
    As long as the true rate is below that bound, all charts together raise a false alarm once in `run_length` items
    of the trickle at most, on average.

    Raises:
        InputError: An attribute of the trickle that `history` has no item of.
    """
    found = []
    names = trickle["name"].unique(maintain_order=True).to_list()
    for name in names:
        then, now = (rows.filter(pl.col("name") == name) for rows in (history, trickle))
        if then.is_empty():
            raise InputError(
                "Nothing is known of how student and LLM agreed.",
                where=name,
                hint="Run palate annotate and palate distill first.",
            )
        cuts = {who: share_threshold(then[who].to_numpy()) for who in ("llm", "student")}
        apart = [_apart(rows, cuts) for rows in (then, now)]
        wrong, n = int(apart[0].sum()), then.height
        usual = min(float(upper_bound(wrong, n, 1 - _SURE)), 1 - 1e-6)
        chart = control_chart(apart[1], usual, run_length * len(names))
        found.append(Drift(name, (wrong, n), (int(apart[1].sum()), now.height), usual, chart))
    return found


def disagreed(history: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (in `TRICKLE`) as item_id, name, hit: whether LLM and student disagree, by the thresholds of `drift`."""
    parts = []
    for name in rows["name"].unique(maintain_order=True):
        then, now = (table.filter(pl.col("name") == name) for table in (history, rows))
        cuts = {who: share_threshold(then[who].to_numpy()) for who in ("llm", "student")}
        parts.append(now.select("item_id", "name", hit=pl.Series(_apart(now, cuts))))
    return pl.concat(parts) if parts else pl.DataFrame(schema={"item_id": pl.String, "name": pl.String, "hit": bool})


def creator_jumps(rows: pl.DataFrame, q: float = 0.1) -> tuple[list[Jump], dict[str, int]]:
    """Groups (creators, brands) whose share of hits is higher among their recent items than among those before.

    Args:
        rows: An item and attribute a row: group, name, hit (bool), recent (bool). Rows without a group are left out.
        q: Of the jumps returned, at most this share is false on average.

    Returns:
        Jumps, the surest first; and counts: pairs of group and attribute tested, and those left out because they have
        no recent items ("quiet") or no earlier ones ("without history").
    """
    counted = (
        rows.drop_nulls("group")
        .group_by("group", "name", maintain_order=True)
        .agg(
            k0=(pl.col("hit") & ~pl.col("recent")).sum(),
            n0=(~pl.col("recent")).sum(),
            k1=(pl.col("hit") & pl.col("recent")).sum(),
            n1=pl.col("recent").sum(),
        )
    )
    tested = counted.filter((pl.col("n0") > 0) & (pl.col("n1") > 0))
    counts = {
        "tested": tested.height,
        "quiet": counted.filter(pl.col("n1") == 0).height,
        "without history": counted.filter((pl.col("n0") == 0) & (pl.col("n1") > 0)).height,
    }
    k0, n0, k1, n1 = (tested[column].cast(pl.Int64).to_numpy() for column in ("k0", "n0", "k1", "n1"))
    p_values, called = jumps(k0, n0, k1, n1, q)
    who = tested.select("group", "name").rows()
    pairs = [((int(k0[i]), int(n0[i])), (int(k1[i]), int(n1[i]))) for i in range(len(who))]
    found = [Jump(str(who[i][0]), who[i][1], *pairs[i], float(p_values[i])) for i in np.flatnonzero(called)]
    return sorted(found, key=lambda jump: jump.p_value), counts


def share_threshold(values: npt.NDArray[np.float64]) -> float:
    """As many items have an attribute as the mean of their values says: small models' are rarely about 0.5."""
    return float(np.quantile(values, 1 - float(np.mean(values))))


def _apart(rows: pl.DataFrame, cuts: dict[str, float]) -> npt.NDArray[np.bool_]:
    verdicts = [rows[who].to_numpy() >= cut for who, cut in cuts.items()]
    return np.asarray(verdicts[0] != verdicts[1])


def _why(asked: tuple[str | None, str | None] | None, hashed: str, version: str) -> str | None:
    if asked is None:
        return "new attribute"
    if asked[0] != hashed:
        return "changed"
    return "reworded" if asked[1] != version else None
