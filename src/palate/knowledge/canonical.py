"""Canonical tags: one spelling for tags that say the same, found by rules for strings, then by vectors."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from palate.data.dataset import FloatArray
from palate.knowledge.tag_prompts import plain_tag
from palate.llm.encoders import Encoder

NEAR = 0.9  # cosine above which two tags are one
_WORDS = re.compile(r"\w+")
_SMALL = frozenset({"a", "an", "the", "of", "in", "and", "with", "for", "to"})
_NOT = frozenset({"no", "not", "non", "without", "never", "anti", "un"})


def canonical_tags(counts: Mapping[str, int], encoder: Encoder, near: float = NEAR) -> dict[str, str]:
    """Each tag of `counts` (how often it was used) to its canonical spelling.

    Tags of the same words are one, whatever their order, case, hyphens, plurals and small words. Then, the most used
    first, a tag joins the nearest canonical tag at a cosine of at least `near`, or becomes one itself; tags that differ
    in a number or in a "not" never join. The most used spelling wins, the shorter among equals, then the alphabet.

    The result does not depend on the order of `counts`; canonical tags are their own canonical tags, together or apart.
    A tag without any letter or digit is left out.
    """
    groups: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    spelt = {tag: plain_tag(tag) for tag in counts}
    for tag, plain in spelt.items():
        if key := _key(plain):
            groups[key][plain] += counts[tag]
    best = {key: min(found, key=lambda tag: (-found[tag], len(tag), tag)) for key, found in groups.items()}
    used = {best[key]: sum(found.values()) for key, found in groups.items()}
    order = sorted(used, key=lambda tag: (-used[tag], len(tag), tag))
    joined = _join(order, _encoded(order, encoder), near)
    return {tag: joined[best[_key(plain)]] for tag, plain in spelt.items() if _key(plain)}


def canonical_rows(rows: pl.DataFrame, mapping: Mapping[str, str]) -> pl.DataFrame:
    """Tag rows with canonical texts, one row for each entity and tag (the first); tags without one are dropped."""
    known = rows.filter(pl.col("text").is_in(list(mapping)))
    renamed = known.with_columns(text=pl.col("text").replace_strict(dict(mapping), return_dtype=pl.String))
    return renamed.unique(["entity", "text", "model", "source"], keep="first", maintain_order=True)


def tag_counts(tags: Iterable[str]) -> dict[str, int]:
    return dict(Counter(tags))


def _encoded(order: list[str], encoder: Encoder) -> FloatArray:
    """Encoded in the order of the alphabet: padding within a batch moves the last digits of a vector."""
    listed = sorted(order)
    place = {tag: i for i, tag in enumerate(listed)}
    return encoder.encode(listed)[[place[tag] for tag in order]]


def _join(order: list[str], vectors: FloatArray, near: float) -> dict[str, str]:
    """Canonical tags are held apart by their marks: only tags of the same marks may join."""
    joined: dict[str, str] = {}
    by_marks: dict[object, list[int]] = defaultdict(list)
    for i, tag in enumerate(order):
        by_marks[_marks(tag)].append(i)
    for members in by_marks.values():
        leaders: list[str] = []
        matrix = np.zeros((len(members), vectors.shape[1]), dtype=np.float32)
        for i in members:
            cosines = matrix[: len(leaders)] @ vectors[i]
            if leaders and cosines.max() >= near:
                joined[order[i]] = leaders[int(cosines.argmax())]
            else:
                matrix[len(leaders)] = vectors[i]
                leaders.append(order[i])
                joined[order[i]] = order[i]
    return joined


def _key(plain: str) -> tuple[str, ...]:
    words = _WORDS.findall(plain.replace("'s", "").replace("’s", ""))
    telling = [_singular(word) for word in words if word not in _SMALL] or words
    return tuple(sorted(telling))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _marks(tag: str) -> tuple[tuple[str, ...], bool]:
    """What vectors are blind to: the numbers of a tag and whether it says no."""
    words = _WORDS.findall(tag)
    return tuple(sorted(word for word in words if any(ch.isdigit() for ch in word))), bool(_NOT & set(words))
