"""Tags that need no language model at hand: categories, telling terms, near values, a student of a teacher's tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.errors import InputError
from palate.knowledge.canonical import canonical_rows, canonical_tags, tag_counts
from palate.knowledge.distil import Student, StudentConfig
from palate.knowledge.handbook import Handbook
from palate.knowledge.store import in_schema
from palate.knowledge.tag_prompts import plain_tag
from palate.knowledge.tags import nearest_values, tag_text
from palate.knowledge.terms import item_documents, mine_terms
from palate.llm.encoders import Encoder

CONCEPT = 0.6  # cosine from which a student's labels are one: free tags are too various to be learnt one by one


def category_tags(dataset: Dataset, items: IntArray, n: int = 5) -> pl.DataFrame:
    """The first `n` categories of each item."""
    categories = dataset.items["categories"].to_list()
    return _rows(dataset, {int(num): [plain_tag(c) for c in categories[num] or []][:n] for num in items}, "categories")


def tfidf_tags(dataset: Dataset, items: IntArray, n: int = 5, min_items: int = 10) -> pl.DataFrame:
    """The `n` words and pairs of words of title and text that the fewest items have, but `min_items`."""
    documents = item_documents(dataset, categories=False)
    terms = mine_terms(documents, min_items, max_share=0.5, max_terms=100_000)
    idf = np.log(dataset.n_items / np.maximum(np.asarray(terms.incidence.sum(axis=0)).ravel(), 1))
    found: dict[int, list[str]] = {}
    for num in map(int, items):
        own = terms.incidence[num].indices
        ranked = [terms.names[i] for i in own[np.argsort(-idf[own], kind="stable")]]
        found[num] = _without_parts(ranked, n)
    return _rows(dataset, found, "tf-idf")


def near_tags(dataset: Dataset, items: IntArray, handbook: Handbook, encoder: Encoder, n: int = 5) -> pl.DataFrame:
    """The handbook's values nearest to the item's text by sentence vectors: guidance without a language model."""
    shown = {int(num): text for num in items if (text := tag_text(dataset, int(num)))}
    near = nearest_values(list(shown.values()), handbook.values, encoder, n) if shown and handbook.values else []
    return _rows(dataset, {num: [v for v, _ in found] for num, found in zip(shown, near, strict=False)}, encoder.name)


def student_tags(
    teacher: pl.DataFrame,
    vectors: FloatArray,
    item_ids: Sequence[str],
    encoder: Encoder,
    n: int = 5,
    min_items: int = 5,
    near: float = CONCEPT,
    config: StudentConfig | None = None,
) -> pl.DataFrame:
    """`n` tags for every item, of a multi-label student that one teacher's tag rows taught.

    Its labels are the teacher's canonical tags, merged from a cosine of `near`, that at least `min_items` items have.
    Of an item those with the largest expected information, p · log(1 / share), are given; items that the teacher
    tagged get them out of fold.

    Raises:
        InputError: Several teachers, or no tag that enough items have.
    """
    config = config or StudentConfig()
    teachers = teacher["model"].unique().to_list()
    if len(teachers) != 1:
        raise InputError("A student has one teacher.", got=", ".join(map(str, teachers)) or "no tag")
    rows = canonical_rows(teacher, canonical_tags(tag_counts(teacher["text"]), encoder, near))
    numbers = {item_id: num for num, item_id in enumerate(item_ids)}
    rows = rows.filter(pl.col("entity").is_in(list(numbers)))
    uses = (
        rows.group_by("text").len().filter(pl.col("len") >= min_items).sort(["len", "text"], descending=[True, False])
    )
    names, taught = uses["text"].to_list(), sorted({numbers[entity] for entity in rows["entity"]})
    if not names or len(taught) < 2 * config.folds:
        raise InputError(
            "Too few tags are shared by items to teach a student.",
            got=f"{len(names)} tags that {min_items} items have, {len(taught)} tagged items",
            hint="Tag more items, or merge more tags (a lower cosine).",
        )
    place, columns = {num: i for i, num in enumerate(taught)}, {name: i for i, name in enumerate(names)}
    targets = np.zeros((len(taught), len(names)))
    for entity, tag in rows.select("entity", "text").iter_rows():
        if tag in columns:
            targets[place[numbers[entity]], columns[tag]] = 1.0
    student = Student(config)
    honest = student.fit(vectors[taught], targets)
    shares = student.predict(vectors)
    shares[taught] = honest
    worth = shares * np.log(1 / targets.mean(axis=0))
    best = np.argsort(-worth, axis=1, kind="stable")[:, :n]
    said = [
        {"entity": item_ids[i], "name": "tag", "text": names[k], "confidence": float(shares[i, k])}
        for i, row in enumerate(best.tolist())
        for k in row
    ]
    return in_schema("tag", pl.DataFrame(said).with_columns(model=pl.lit(str(teachers[0])), source=pl.lit("student")))


def _without_parts(ranked: Sequence[str], n: int) -> list[str]:
    """The first `n` that are no part of one before, nor hold one."""
    kept: list[str] = []
    for term in ranked:
        words = set(term.split())
        if not any(words & set(other.split()) for other in kept):
            kept.append(term)
    return kept[:n]


def _rows(dataset: Dataset, tags: dict[int, list[str]], model: str) -> pl.DataFrame:
    rows = [
        {"entity": dataset.item_ids[num], "name": "tag", "text": tag} for num, found in tags.items() for tag in found
    ]
    return in_schema(
        "tag",
        pl.DataFrame(rows, schema={"entity": pl.String, "name": pl.String, "text": pl.String}).with_columns(
            model=pl.lit(model), source=pl.lit("encoder")
        ),
    )
