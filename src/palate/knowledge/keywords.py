"""The words that tell one group of texts from another: tokens, counts, c-TF-IDF."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

Counts = npt.NDArray[np.float64]
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_MAX_WORD = 40  # characters
_CHOSEN_WEIGHT = 3  # a category or tag was chosen by someone; a word of a text only occurs in it


def item_words(
    items: pl.DataFrame, tags: pl.DataFrame | None = None, said: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Tokens of each of `items`: title, text and what was `said` of it; categories, and people's tags.

    Args:
        tags: user_id, item_id and `tag`, lower case. One that a single person uses ("in netflix queue") is a note to
            oneself, no word for an interest, and is left out.
    """
    tagged: dict[str, list[str]] = {}
    if tags is not None:
        shared = tags.filter(pl.col("user_id").n_unique().over("tag") > 1)
        tagged = dict(shared.group_by("item_id").agg(pl.col("tag").unique().sort()).iter_rows())
    return [
        document_tokens(
            f"{title or ''} {text or ''} {(said or {}).get(item_id, '')}",
            [*(category.lower() for category in categories or []), *tagged.get(item_id, [])],
        )
        for item_id, title, text, categories in items.select("item_id", "title", "text", "categories").iter_rows()
    ]


def document_tokens(text: str, chosen: Iterable[str] = ()) -> list[str]:
    """Tokens of an item: each word of `text` once, each category or tag in `chosen` three times.

    A category or tag stays whole ("science fiction").
    """
    words = dict.fromkeys(word.strip("'’-") for word in _WORD.findall(text.lower()))
    return [*words, *[label for label in chosen for _ in range(_CHOSEN_WEIGHT)]]


def english_stop_words() -> frozenset[str]:
    """The commonest English words, as scikit-learn lists them (imported here: it takes seconds)."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def count_words(documents: Sequence[Sequence[str]], stop_words: frozenset[str]) -> tuple[sp.csr_matrix, list[str]]:
    """Counts [n_items, n_words] of the words of at least two items; words in alphabetical order."""
    per_item = [Counter(clean for token in document if (clean := _clean(token, stop_words))) for document in documents]
    spread = Counter(word for counter in per_item for word in counter)
    words = sorted(word for word, items in spread.items() if items >= 2)
    number = {word: i for i, word in enumerate(words)}
    cells = [(i, number[word], count) for i, c in enumerate(per_item) for word, count in c.items() if word in number]
    rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
    shape = (len(documents), len(words))
    return sp.csr_matrix((np.array(values, dtype=np.float64), (rows, columns)), shape=shape), words


def _clean(token: str, stop_words: frozenset[str]) -> str | None:
    word = " ".join("".join(ch if ch.isprintable() and ch not in ",|" else " " for ch in token.lower()).split())
    useful = 1 < len(word) <= _MAX_WORD and word not in stop_words and any(ch.isalpha() for ch in word)
    return word if useful else None


def class_tf_idf(within: Counts) -> Counts:
    """Worth of each word for each group, from counts `within` [n_groups, n_words]: tf · log(1 + A / f).

    Grootendorst 2022, arXiv 2203.05794, eq. 2: tf is the word's share of the group, f its count in all groups, A the
    mean number of words of a group.
    """
    tf = within / np.maximum(within.sum(axis=1, keepdims=True), 1)
    return np.asarray(tf * np.log1p(within.sum() / max(len(within), 1) / np.maximum(within.sum(axis=0), 1)))


def group_keywords(
    documents: Sequence[Sequence[str]],
    groups: npt.NDArray[np.int64],
    stop_words: Iterable[str] | None = None,
    n_keywords: int = 4,
) -> list[list[str]]:
    """The words that tell each of the groups 0, 1, ... apart, best first.

    Args:
        documents: Tokens of each item (`document_tokens`).
        groups: [n_items], the group of each.
        stop_words: Words that name nothing; None: the commonest English ones.
    """
    counts, words = count_words(documents, english_stop_words() if stop_words is None else frozenset(stop_words))
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    member = sp.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(n_groups, len(groups)))
    within, spread = (member @ counts).toarray(), (member @ (counts > 0).astype(np.float64)).toarray()
    worth = np.where(spread >= 2, class_tf_idf(within), 0.0)  # a word of one item names no group
    found = []
    for row in worth:
        ranked = [words[i] for i in np.argsort(-row, kind="stable")[: 6 * n_keywords] if row[i] > 0]
        found.append(without_variants(ranked)[:n_keywords])
    return found


def without_variants(ranked: list[str]) -> list[str]:
    """Drop a word that bends or is part of a better one ("detectives" after "detective", "ii" after "world war ii")."""
    kept: list[str] = []
    for word in ranked:
        if not any(_same_stem(word, other) for other in kept):
            kept.append(word)
    return kept


def _same_stem(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=len)
    if short in long.split():
        return True
    return long.startswith(short) and (len(short) >= 4 or len(long) - len(short) <= 1)
