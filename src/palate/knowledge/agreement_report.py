"""Is a source of labels as good as a person: attribute by attribute, with intervals, and what could not be said."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.evaluation.agreement import Level, alternative_annotator_test, krippendorff_interval
from palate.evaluation.ceiling import against_others
from palate.evaluation.prevalence import prediction_powered_mean
from palate.knowledge.agreement_words import attribute_verdict, overall_verdict
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden import MIN_POSITIVES, Agreement, measure, truth_matrix

Array = npt.NDArray[np.float64]
RESAMPLES = 500  # of Krippendorff's alpha, which is counted anew for each


class Terms(BaseModel):
    """Of the alternative-annotator test."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epsilon: float = Field(default=0.2, ge=0, le=1)
    """The lead that a person is granted for being cheaper to trust: 0.2 experts, 0.15 skilled people, 0.1 a crowd."""
    q: float = Field(default=0.05, gt=0, lt=1)
    """False discovery rate over the people who are held out in turn."""
    min_items: int = Field(default=30, ge=2)
    """A person with fewer items that others rated too is not tested."""


@dataclass(frozen=True)
class Golden:
    """People's labels as `read_golden_set` gives them, and which items are a random sample of the catalogue.

    `random_items` None: nobody drew one, so that all judged items are taken for one, and the report says so.
    """

    dev: pl.DataFrame
    held_out: pl.DataFrame
    random_items: frozenset[str] | None = None


def agreement_report(
    golden: Golden,
    scores: Mapping[str, FloatArray],
    attributes: Sequence[Attribute],
    item_ids: Sequence[str],
    terms: Terms | None = None,
    similarities: Collection[str] = (),
) -> dict[str, Any]:
    """All figures and a verdict in words, as plain values for JSON (NaN where undefined).

    Args:
        scores: Source to [n_items, n_attributes], NaN where it said nothing.
        similarities: Sources whose scores only rank, even where they lie in 0..1: no share, no step is read off them.

    Thresholds are chosen on dev; every other figure is taken on the held-out side, but prevalence, which no source
    is chosen by, on all judged items. `rows` are those of `palate.knowledge.golden.measure`.
    """
    terms, names = terms or Terms(), [attribute.name for attribute in attributes]
    dev, held_out = (truth_matrix(rows, item_ids, names) for rows in (golden.dev, golden.held_out))
    rows = measure(dev, held_out, scores, names)
    both = truth_matrix(pl.concat([golden.dev, golden.held_out]), item_ids, names)
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    parts = []
    for column, attribute in enumerate(attributes):
        people = _ratings(golden.held_out, attribute.name, numbers)
        measured = {row.source: row for row in rows if row.attribute == attribute.name}
        said = {source: matrix[:, column].astype(np.float64) for source, matrix in scores.items()}
        ranks = {source for source, score in said.items() if source in similarities or not _on_scale(score)}
        part = _about_people(attribute, people, dev[:, column], held_out[:, column])
        part["sources"] = {
            source: _heard(held_out[:, column], score)
            | _source(attribute, people, score, measured.get(source), terms, source in ranks)
            for source, score in said.items()
        }
        part["prevalence"] = _prevalence(both[:, column], said, ranks, golden.random_items, numbers)
        part["verdict"] = attribute_verdict(part)
        parts.append(part)
    rows_flat = [row.row() for row in rows]
    return {
        "verdict": overall_verdict(parts, rows_flat),
        "attributes": parts,
        "rows": rows_flat,
        "terms": terms.model_dump(),
    }


@dataclass(frozen=True)
class _People:
    """Ratings of the held-out items of one attribute, [n_raters, n_items]; `items` are their item_nums."""

    names: list[str]
    items: npt.NDArray[np.int64]
    ratings: Array
    unsure: int

    @property
    def several(self) -> bool:
        """Some item was rated by two."""
        return bool(((~np.isnan(self.ratings)).sum(axis=0) >= 2).any())


def _ratings(rows: pl.DataFrame, name: str, numbers: Mapping[str, int]) -> _People:
    mine = rows.filter(pl.col("attribute") == name)
    sure = mine.drop_nulls("value")
    raters, items = sorted(sure["rater"].unique()), sorted(sure["item_id"].unique(), key=lambda i: numbers[i])
    table = np.full((len(raters), len(items)), np.nan)
    rater_row, item_column = ({key: k for k, key in enumerate(keys)} for keys in (raters, items))
    for item_id, rater, value in sure.select("item_id", "rater", "value").iter_rows():
        table[rater_row[rater], item_column[item_id]] = value
    nums = np.array([numbers[item_id] for item_id in items], dtype=np.int64)
    return _People(raters, nums, table, mine.height - sure.height)


def _about_people(attribute: Attribute, people: _People, dev: Array, held_out: Array) -> dict[str, Any]:
    yes, judged = int(np.nansum(held_out)), int((~np.isnan(held_out)).sum())
    dev_yes, dev_judged = int(np.nansum(dev)), int((~np.isnan(dev)).sum())
    skipped = []
    if not MIN_POSITIVES <= yes <= judged - MIN_POSITIVES:
        skipped.append(f"{yes} yes and {judged - yes} no held out, {MIN_POSITIVES} of each are needed")
    if not dev_yes:
        skipped.append(f"no threshold: {dev_judged} dev items, {dev_yes} of them yes")
    if people.unsure:
        skipped.append(f"{people.unsure} rating(s) unsure")
    if not people.several:
        skipped.append(f"{len(people.names)} rater(s), no held-out item rated twice: people cannot be compared")
    alpha = krippendorff_interval(people.ratings, _level(attribute), RESAMPLES) if people.several else None
    return {
        "attribute": attribute.name,
        "level": _level(attribute),
        "raters": {name: int((~np.isnan(row)).sum()) for name, row in zip(people.names, people.ratings, strict=True)},
        "items": judged,
        "positives": yes,
        "alpha": alpha and asdict(alpha),
        "skipped": skipped,
    }


def _heard(held_out: Array, score: Array) -> dict[str, Any]:
    """Of the judged held-out items, how many a source spoke of, and how many of those are yes."""
    heard = held_out[~np.isnan(held_out) & ~np.isnan(score)]
    return {"heard": len(heard), "heard_yes": int(heard.sum())}


def _source(
    attribute: Attribute, people: _People, score: Array, row: Agreement | None, terms: Terms, ranks: bool
) -> dict[str, Any]:
    """One source in a person's place; `skipped` says what is missing and why."""
    found: dict[str, Any] = {"measured": row and row.row(), "skipped": []}
    own, level = score[people.items], _level(attribute)
    spoke = ~np.isnan(own)
    if not spoke.any():
        found["skipped"].append(f"spoke of 0 of {len(own)} held-out items")
    said = _decided(attribute, own, float("nan") if row is None else row.threshold, ranks)
    if not people.several or not spoke.any():
        return found
    if np.isnan(said).all():
        missing = "gives no step of the scale" if ranks and level == "ordinal" else "no threshold, so no yes or no"
        found["skipped"].append(f"{missing} to compare with people's")
        return found
    ratings = people.ratings[:, spoke]
    found["alpha_people"] = asdict(krippendorff_interval(ratings, level, RESAMPLES))
    found["alpha_with"] = asdict(krippendorff_interval(np.vstack([ratings, said[spoke]]), level, RESAMPLES))
    found["ceiling"] = asdict(against_others(_binary(people.ratings), _binary(said)))
    try:
        test = alternative_annotator_test(
            people.ratings, said, terms.epsilon, people.names, level, terms.q, terms.min_items
        )
    except InputError as error:
        counts = error.got if isinstance(error.got, dict) else {}
        found["skipped"] += _too_few(counts, terms.min_items)
        return found
    found["test"] = asdict(test) | {"passed": test.passed}
    found["skipped"] += _too_few(test.skipped, terms.min_items)
    return found


def _too_few(counts: Mapping[str, int], needed: int) -> list[str]:
    return [f"rater {name}: {n} items rated by others too, {needed} are needed" for name, n in counts.items()]


def _prevalence(
    truth: Array,
    said: Mapping[str, Array],
    ranks: Collection[str],
    random_items: frozenset[str] | None,
    numbers: Mapping[str, int],
) -> dict[str, Any]:
    """How many of all items have it: by people alone, and by each source with people's labels to correct it."""
    drawn = np.ones(len(truth), dtype=bool)
    if random_items is not None:
        drawn[:] = False
        drawn[[numbers[item_id] for item_id in random_items if item_id in numbers]] = True
    judged = drawn & ~np.isnan(truth)
    found: dict[str, Any] = {"n": int(judged.sum()), "drawn_at_random": random_items is not None, "sources": {}}
    if judged.sum() < 2:
        return found | {"skipped": [f"{int(judged.sum())} item(s) of a random sample judged, 2 are needed"]}
    found["people"] = asdict(prediction_powered_mean(truth[judged], np.zeros(int(judged.sum())), []))
    skipped = []
    for source, score in said.items():
        known = ~np.isnan(score)
        if not known.all():
            skipped.append(f"{source}: spoke of {int(known.sum())} of {len(score)} items, not drawn at random")
        elif source in ranks:
            skipped.append(f"{source}: gives no probabilities")
        else:
            corrected = prediction_powered_mean(truth[judged], score[judged], score[~judged])
            found["sources"][source] = {"naive": float((score > 0.5).mean()), "corrected": asdict(corrected)}
    return found | {"skipped": skipped}


def _level(attribute: Attribute) -> Level:
    return "nominal" if len(attribute.options) == 2 else "ordinal"


def _on_scale(score: Array) -> bool:
    known = score[~np.isnan(score)]
    return not len(known) or bool(known.min() >= 0 and known.max() <= 1)


def _decided(attribute: Attribute, score: Array, threshold: float, ranks: bool) -> Array:
    """A rating as people give it: yes or no at the threshold; the nearest step where there are more than two."""
    if _level(attribute) == "ordinal":
        steps = len(attribute.options) - 1
        return np.full(len(score), np.nan) if ranks else np.asarray(np.round(score * steps) / steps)
    if np.isnan(threshold):
        return np.full(len(score), np.nan)
    return np.where(np.isnan(score), np.nan, (score >= threshold).astype(np.float64))


def _binary(values: Array) -> Array:
    """Above the middle of the scale or below; the middle itself says neither."""
    return np.where(np.isnan(values) | (values == 0.5), np.nan, (values > 0.5).astype(np.float64))
