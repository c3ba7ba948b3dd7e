"""What tags are worth: how redundant and telling they are, and what they say of clicks, of gold and of cold items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.evaluation.bootstrap import Interval, bootstrap_mean, paired_difference
from palate.evaluation.ranking import ndcg, recall, top_n
from palate.knowledge.canonical import canonical_tags, tag_counts
from palate.knowledge.clicks import ClickPairs
from palate.llm.encoders import Encoder

REDUNDANT = 0.9  # cosine above which two tags say the same
ALIKE = 0.6  # cosine from which a tag is taken for one of people's
WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)  # of tags beside another signal, chosen on validation
Values = npt.NDArray[np.float64]


class TagSet:
    """One source's tags: of each item at most `n`, canonical within the source, with their vectors.

    `own[i]` are the numbers, within `names`, of the tags of item_num `i`; `raw` what was said before merging.
    """

    def __init__(
        self, source: str, rows: pl.DataFrame, dataset: Dataset, items: IntArray, encoder: Encoder, n: int
    ) -> None:
        self.source, self.items = source, items
        wanted = pl.DataFrame({"entity": [dataset.item_ids[i] for i in items.tolist()]})
        rows = rows.join(wanted, on="entity", how="semi").unique(["entity", "text"], keep="first", maintain_order=True)
        self.rows = rows.group_by("entity", maintain_order=True).head(n)
        mapping = canonical_tags(tag_counts(self.rows["text"]), encoder)
        self.names = sorted(set(mapping.values()))
        place = {name: i for i, name in enumerate(self.names)}
        self.own: dict[int, list[int]] = {int(i): [] for i in items}
        for entity, tag in self.rows.select("entity", "text").iter_rows():
            if tag in mapping and place[mapping[tag]] not in self.own[dataset.item_nums[entity]]:
                self.own[dataset.item_nums[entity]].append(place[mapping[tag]])
        self.raw = sorted(set(self.rows["text"]))
        self.raw_vectors = encoder.encode(self.raw)
        self.vectors = encoder.encode(self.names)
        used = Counter(k for tags in self.own.values() for k in tags)
        self.idf = np.log(len(items) / np.array([used[k] for k in range(len(self.names))], dtype=np.float64))

    def replaced(self, source: str, own: Mapping[int, list[int]]) -> TagSet:
        """The same vocabulary on other items: a control."""
        other = object.__new__(TagSet)
        other.__dict__ = {**self.__dict__, "source": source, "own": dict(own)}
        used = Counter(k for tags in other.own.values() for k in tags)
        other.idf = np.log(len(self.items) / np.array([max(1, used[k]) for k in range(len(self.names))]))
        return other

    def permuted(self, seed: int = 0) -> TagSet:
        """Every item has another's tags."""
        order = np.random.default_rng(seed).permutation(self.items)
        pairs = zip(self.items.tolist(), order.tolist(), strict=True)
        return self.replaced(f"{self.source}, permuted", {num: self.own[other] for num, other in pairs})

    def noise(self, seed: int = 0) -> TagSet:
        """As many tags, drawn from the vocabulary alike."""
        rng = np.random.default_rng(seed)
        drawn = {
            num: rng.choice(len(self.names), min(len(own), len(self.names)), replace=False).tolist()
            for num, own in self.own.items()
        }
        return self.replaced(f"{self.source}, noise", drawn)

    def gram(self) -> FloatArray:
        """Likeness of the items, in their order, [n, n]: half of it shared rare tags, half the tags' mean vectors."""
        same = np.zeros((len(self.items), max(1, len(self.names))), dtype=np.float32)
        mean = np.zeros((len(self.items), self.vectors.shape[1] if len(self.names) else 1), dtype=np.float32)
        for row, num in enumerate(self.items.tolist()):
            if own := self.own[num]:
                same[row, own], mean[row] = self.idf[own], self.vectors[own].mean(axis=0)
        return gram(same) + gram(mean)


def form(tags: TagSet) -> dict[str, float]:
    """Tags an item, different ones, share of them that have a near-double, share of an item's pairs that do, mean IDF.

    Doubles are looked for before merging: what a source says, not what is made of it.
    """
    place = {name: i for i, name in enumerate(tags.raw)}
    said = [[place[t] for t in own] for own in tags.rows.group_by("entity", maintain_order=True).agg("text")["text"]]
    cosines = tags.raw_vectors @ tags.raw_vectors.T
    np.fill_diagonal(cosines, 0.0)
    pairs = [cosines[a, b] > REDUNDANT for own in said for k, a in enumerate(own) for b in own[k + 1 :]]
    idf = [tags.idf[k] for own in tags.own.values() for k in own]
    return {
        "tags_an_item": float(np.mean([len(own) for own in tags.own.values()])),
        "different": float(len(tags.raw)),
        "doubles": float((cosines.max(axis=1) > REDUNDANT).mean()) if len(tags.raw) else float("nan"),
        "double_pairs": float(np.mean(pairs)) if pairs else float("nan"),
        "mean_idf": float(np.mean(idf)) if idf else float("nan"),
    }


@dataclass(frozen=True)
class Sharing:
    """Clicks and their matched items beside a history, intervals over users.

    `lift`: share of clicks that share a canonical tag with the history, minus that of matched items. `nearer`: share
    of pairs in which the click's tags are nearer in meaning to the history's than the matched item's are, ties half.
    """

    clicked: Interval
    matched: Interval
    lift: Interval
    nearer: Interval


def sharing(tags: TagSet, pairs: ClickPairs, seed: int = 0) -> Sharing:
    cosines = tags.vectors @ tags.vectors.T
    shares, near = np.zeros((2, len(pairs))), np.zeros((2, len(pairs)))
    for i, history in enumerate(pairs.histories):
        known = sorted({k for item in history.tolist() for k in tags.own[item]})
        for side, item in enumerate((int(pairs.clicked[i]), int(pairs.matched[i]))):
            own = tags.own[item]
            shares[side, i] = float(bool(set(own) & set(known)))
            near[side, i] = cosines[np.ix_(own, known)].max(axis=1).mean() if own and known else 0.0
    users = pairs.users
    wins = (np.sign(near[0] - near[1]) + 1) / 2
    return Sharing(
        bootstrap_mean(shares[0], users, seed=seed),
        bootstrap_mean(shares[1], users, seed=seed),
        paired_difference(shares[0], shares[1], users, seed=seed),
        bootstrap_mean(wins, users, seed=seed),
    )


def precision(tags: TagSet, gold: Mapping[int, Sequence[str]], encoder: Encoder) -> dict[str, Interval]:
    """Share of tags that people gave the item too: the same canonical tag (`exact`), or one alike by vector (`alike`).

    Over the items of `gold` (item_num to people's tags), each item weighing the same. A missing tag is no "no".
    """
    exact, alike = [], []
    for num, said in gold.items():
        own = tags.own.get(num, [])
        if not own:
            continue
        joined = canonical_tags(tag_counts([*said, *(tags.names[k] for k in own)]), encoder)
        people = {joined[tag] for tag in said if tag in joined}
        exact.append(np.mean([joined.get(tags.names[k]) in people for k in own]))
        alike.append((tags.vectors[own] @ encoder.encode(list(said)).T).max(axis=1).__ge__(ALIKE).mean())
    return {"exact": bootstrap_mean(np.array(exact)), "alike": bootstrap_mean(np.array(alike))}


class ColdItems:
    """Items nobody has met, found by what is said of them: histories hold warm items, targets cold ones.

    A signal is a Gram matrix over `items`: how alike any two of them are.

    Args:
        validation, test: Held-out queries of the whole data set.
        items: item_nums; those of `cold` [n_items] are taken out of every history and ranked against each other.
    """

    def __init__(
        self, validation: Holdout, test: Holdout, items: IntArray, cold: npt.NDArray[np.bool_], n: int = 10
    ) -> None:
        self.place = {num: i for i, num in enumerate(items.tolist())}
        self.cold, self.n = np.flatnonzero(cold), n
        self.validation, self.test = (self._kept(side, cold) for side in (validation, test))

    def _kept(self, held: Holdout, cold: npt.NDArray[np.bool_]) -> Holdout:
        """Queries in places of `items`, targets in places of the cold ones."""
        ranked = {int(place): i for i, place in enumerate(self.cold)}
        queries, targets = [], []
        for query, target in zip(held.queries, held.targets, strict=True):
            known = [self.place[num] for num in query.history.tolist() if num in self.place]
            warm = np.array([place for place in known if not cold[place]], dtype=np.int32)
            found = self.place.get(int(target[0]), -1)
            if found in ranked and len(warm):
                queries.append(Query(query.user_id, warm, query.as_of))
                targets.append(np.array([ranked[found]], dtype=np.int32))
        return Holdout(queries, targets)

    @property
    def users(self) -> list[str | None]:
        return [query.user_id for query in self.test.queries]

    def judge(self, signal: FloatArray, beside: FloatArray | None = None) -> tuple[float, Values, Values]:
        """NDCG and recall at n of the test's queries, [q], by `signal`; with `beside`, plus a weight times that.

        The weight is the best of `WEIGHTS` on validation and comes first.
        """
        if beside is None:
            return 0.0, *self._values(self.test, self._scores(self.test, signal))
        sides = [(self._scores(held, signal), self._scores(held, beside)) for held in (self.validation, self.test)]
        first, second = sides[0]
        weight = max(WEIGHTS, key=lambda w: float(np.nanmean(self._values(self.validation, first + w * second)[0])))
        return weight, *self._values(self.test, sides[1][0] + np.float32(weight) * sides[1][1])

    def _scores(self, held: Holdout, signal: FloatArray) -> FloatArray:
        """Mean likeness of each cold item to the history, standardised over the cold items, [q, n_cold]."""
        found = np.stack([signal[query.history][:, self.cold].mean(axis=0) for query in held.queries])
        spread = found.std(axis=1, keepdims=True)
        return np.asarray((found - found.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1), np.float32)

    def _values(self, held: Holdout, scores: FloatArray) -> tuple[Values, Values]:
        top = top_n(scores, self.n)
        return ndcg(top, held.targets, self.n), recall(top, held.targets, self.n)


def gram(vectors: Any) -> FloatArray:
    """Cosines of the rows of a dense or sparse matrix, float32 [n, n]; 0 for rows of zeros."""
    dense = vectors.toarray() if hasattr(vectors, "toarray") else vectors
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    rows = np.asarray(dense / np.where(lengths > 0, lengths, 1), dtype=np.float32)
    return np.asarray(rows @ rows.T, dtype=np.float32)
