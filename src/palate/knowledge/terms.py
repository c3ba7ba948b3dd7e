"""Candidate words for tags: n-grams of what is said of items, and which items each is said of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from palate.data.dataset import Dataset
from palate.knowledge.tag_prompts import plain_tag

Document = Sequence[str]  # pieces of text about one item; no n-gram reaches over the end of a piece
_CLAUSE = re.compile(r"[^.!?;:,()\n\"“”]+")
_WORD = re.compile(r"[^\W\d_][\w'’-]*")


@dataclass(frozen=True)
class Terms:
    """`names` [n_terms] and where they occur: `incidence` [n_items, n_terms], a CSR matrix of 0 and 1."""

    names: list[str]
    incidence: Any

    def weighed(self) -> Any:
        """`incidence` times log(items / items that have the term): TF-IDF with 0 or 1 as TF."""
        uses = np.asarray(self.incidence.sum(axis=0)).ravel()
        return self.incidence.multiply(np.log(self.incidence.shape[0] / np.maximum(uses, 1))[None, :]).tocsr()


def item_documents(dataset: Dataset, tags: Sequence[pl.DataFrame] = (), *, categories: bool = True) -> list[list[str]]:
    """Title, text, categories and `tags` (tables of `entity` and `text`) of each item, each tag a piece of its own."""
    documents = []
    for title, text, own in dataset.items.select("title", "text", "categories").iter_rows():
        pieces = [re.sub(r"\(\d{4}\)", "", title or ""), *(text or "").split("\n"), *(own or [] if categories else [])]
        documents.append([piece for piece in pieces if piece.strip()])
    for table in tags:
        for entity, tag in table.select("entity", "text").drop_nulls().iter_rows():
            if entity in dataset.item_nums:
                documents[dataset.item_nums[entity]].append(tag)
    return documents


def mine_terms(
    documents: Sequence[Document], min_items: int = 5, max_share: float = 0.25, max_terms: int = 1200
) -> Terms:
    """Words and pairs of words that at least `min_items` and at most `max_share` of the documents hold.

    Of more than `max_terms` those that tell the most apart are kept: the largest items · log(documents / items).
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=_Grams(), binary=True, dtype=np.float32)
    try:
        found = vectorizer.fit_transform(documents).tocsc()
    except ValueError:  # not a single word
        return Terms([], _nothing(len(documents), 0))
    names = np.array(vectorizer.get_feature_names_out(), dtype=object)
    items = np.asarray(found.sum(axis=0)).ravel()
    fits = (items >= min_items) & (items <= max(max_share * len(documents), min_items))
    worth = np.where(fits, items * np.log(len(documents) / np.maximum(items, 1)), -1.0)
    chosen = np.sort(np.argsort(-worth, kind="stable")[: min(max_terms, int(fits.sum()))])
    return Terms(names[chosen].tolist(), found[:, chosen].tocsr())


def merged(terms: Terms, mapping: Mapping[str, str]) -> Terms:
    """Terms under the names that `mapping` gives them; an item has a name if it has any of its terms."""
    from scipy.sparse import csr_matrix

    names = sorted({mapping[name] for name in terms.names if name in mapping})
    place = {name: i for i, name in enumerate(names)}
    pairs = [(i, place[mapping[name]]) for i, name in enumerate(terms.names) if name in mapping]
    if not pairs:
        return Terms([], _nothing(terms.incidence.shape[0], 0))
    rows, columns = zip(*pairs, strict=True)
    join = csr_matrix((np.ones(len(pairs), np.float32), (rows, columns)), (len(terms.names), len(names)))
    incidence = terms.incidence @ join
    incidence.data[:] = 1.0
    return Terms(names, incidence.tocsr())


def occurrences(documents: Sequence[Document], names: Sequence[str]) -> Terms:
    """Where given names occur as whole words, singular or plural alike."""
    from scipy.sparse import csr_matrix

    grams = _Grams(longest=4, stop=False)
    place = {_folded(name): i for i, name in enumerate(names)}
    cells = [(row, place[g]) for row, d in enumerate(documents) for g in set(map(_folded, grams(d))) if g in place]
    if not cells:
        return Terms(list(names), _nothing(len(documents), len(names)))
    rows, columns = zip(*cells, strict=True)
    shape = (len(documents), len(names))
    return Terms(list(names), csr_matrix((np.ones(len(cells), np.float32), (rows, columns)), shape))


class _Grams:
    """The n-grams of a document, as scikit-learn calls it."""

    def __init__(self, longest: int = 2, stop: bool = True) -> None:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        self.longest, self.stop = longest, ENGLISH_STOP_WORDS if stop else frozenset()

    def __call__(self, document: Document) -> list[str]:
        grams = []
        for piece in document:
            for clause in _CLAUSE.findall(piece):
                words = [word.strip("'’-") for word in _WORD.findall(plain_tag(clause))]
                for n in range(1, self.longest + 1):
                    for start in range(len(words) - n + 1):
                        gram = words[start : start + n]
                        if not self.stop & set(gram) and all(len(word) > 1 for word in gram):
                            grams.append(" ".join(gram))
        return grams


def _folded(name: str) -> str:
    return " ".join(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in name.lower().split())


def _nothing(rows: int, columns: int) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((rows, columns), dtype=np.float32)
