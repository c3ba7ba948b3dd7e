"""What others do about the same restricts, each from a `World` and a `Case`: see `retrieval.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.data.query import Restrict
from palate.interests.tree import InterestTree
from palate.serving.scores import Quantised

D, K, LEAVES = 64, 10, 1024
GRAPHS_TO = 100_000  # items: building takes minutes beyond
FLAT_TO = 2_000_000  # items: two flat indexes take the memory of a machine beyond
Search = Callable[[np.ndarray, int], np.ndarray]  # query and the number of the restrict's turn


@dataclass
class World:
    """Vectors in leaf order, their tree, attributes by place, and queries."""

    vectors: np.ndarray
    codes: Quantised
    tree: InterestTree
    attributes: dict[str, np.ndarray]
    queries: np.ndarray

    @property
    def leaf(self) -> np.ndarray:
        return np.repeat(np.arange(LEAVES), [node.stop - node.start for node in self.tree.at_level(2)])


@dataclass
class Case:
    """A kind of restrict, once for each turn."""

    name: str
    restricts: list[Restrict]
    places: list[np.ndarray]


def numpy_mask(vectors: np.ndarray, order: np.ndarray, mask: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Costs are partitioned, not scores: many -inf below the K-th best make NumPy's partition 20 times slower."""

    def search(query: np.ndarray) -> np.ndarray:
        costs = np.where(mask, -(vectors @ query), np.float32(np.inf))
        top = np.argpartition(costs, K)[:K]
        return order[top[np.argsort(costs[top])]]

    return search


def numpy_masks(made: World, case: Case) -> dict[str, Search]:
    searches = []
    for places in case.places:
        mask = np.zeros(len(made.vectors), dtype=bool)
        mask[places] = True
        searches.append(numpy_mask(made.vectors, made.tree.order, mask))
    return {"NumPy mask over all": lambda query, turn: searches[turn](query)}


class Faiss:
    """Flat indexes in catalogue order and in leaf order, one of 8 bits, and HNSW where it is built in time."""

    def __init__(self, made: World) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.made, self.faiss = made, faiss
        self.kept: list[Any] = []  # what FAISS only points to
        self.leaf_order, self.catalogue = faiss.IndexFlatIP(D), faiss.IndexFlatIP(D)
        self.has_flat = len(made.vectors) <= FLAT_TO
        if self.has_flat:
            self.leaf_order.add(made.vectors)
        self.eight = faiss.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        self.eight.train(made.vectors[:: max(1, len(made.vectors) // 100_000)])
        for start in range(0, len(made.vectors), 100_000):
            rows = made.vectors[made.tree.position[start : start + 100_000]]
            if self.has_flat:
                self.catalogue.add(rows)
            self.eight.add(rows)
        self.graph = None
        if len(made.vectors) <= GRAPHS_TO:
            self.graph = faiss.IndexHNSWFlat(D, 32, faiss.METRIC_INNER_PRODUCT)
            self.graph.hnsw.efConstruction = 80
            self.graph.add(made.vectors[made.tree.position])

    def searches(self, case: Case) -> dict[str, Search]:
        if case.name == "none":
            none = [None] * len(case.places)
            found = {"FAISS SQ8": self._selected(self.eight, none)}
            if self.has_flat:
                found["FAISS flat"] = self._selected(self.catalogue, none)
            return found | self._graphs(none)
        items = [np.sort(self.made.tree.order[places]).astype(np.int64) for places in case.places]
        bitmaps = [self._bitmap(some) for some in items]
        found = {"FAISS SQ8, bitmap": self._selected(self.eight, bitmaps)}
        return found | (self._flats(case, items, bitmaps) if self.has_flat else {}) | self._graphs(bitmaps)

    def _flats(self, case: Case, items: list[np.ndarray], bitmaps: list[Any]) -> dict[str, Search]:
        array, batch, order = self.faiss.IDSelectorArray, self.faiss.IDSelectorBatch, self.made.tree.order
        found = {
            "FAISS flat, bitmap": self._selected(self.catalogue, bitmaps),
            "FAISS flat, batch": self._selected(self.catalogue, [batch(some) for some in items]),
            "FAISS flat, array": self._selected(self.catalogue, [array(some) for some in items]),
            "FAISS flat in our order, array": self._selected(self.leaf_order, [array(p) for p in case.places], order),
        }
        if case.restricts[0].nodes and not case.restricts[0].attributes:
            found["FAISS flat in our order, a search a slice"] = self._by_slice(case.restricts)
        return found

    def _graphs(self, selectors: list[Any]) -> dict[str, Search]:
        if self.graph is None:
            return {}
        return {f"FAISS HNSW ef={ef}": self._selected(self.graph, selectors, ef=ef) for ef in (64, 256)}

    def _bitmap(self, items: np.ndarray) -> Any:
        mask = np.zeros(len(self.made.vectors), dtype=bool)
        mask[items] = True
        bits = np.packbits(mask, bitorder="little")
        self.kept.append(bits)
        return self.faiss.IDSelectorBitmap(len(mask), self.faiss.swig_ptr(bits))

    def _parameters(self, selector: Any, ef: int) -> Any:
        made = self.faiss.SearchParametersHNSW if ef else self.faiss.SearchParameters
        self.kept.append(selector)
        return made(sel=selector, efSearch=ef) if ef else made(sel=selector)

    def _selected(self, index: Any, selectors: list[Any], names: np.ndarray | None = None, ef: int = 0) -> Search:
        parameters = [self._parameters(each, ef) for each in selectors]

        def search(query: np.ndarray, turn: int) -> np.ndarray:
            found = index.search(query[None], K, params=parameters[turn])[1][0]
            return found if names is None else np.where(found >= 0, names[found], -1)

        return search

    def _by_slice(self, restricts: list[Restrict]) -> Search:
        order, nodes = self.made.tree.order, self.made.tree.nodes
        parameters = [
            [
                self._parameters(self.faiss.IDSelectorRange(nodes[node].start, nodes[node].stop), 0)
                for node in each.nodes
            ]
            for each in restricts
        ]

        def search(query: np.ndarray, turn: int) -> np.ndarray:
            found = [self.leaf_order.search(query[None], K, params=each) for each in parameters[turn]]
            scores = np.concatenate([each[0][0] for each in found])
            best = np.argpartition(-scores, K)[:K]
            return order[np.concatenate([each[1][0] for each in found])[best]]

        return search


class Lance:
    """A table on disk with a bitmap index for each attribute and a B-tree for the leaves; the vectors have no index."""

    def __init__(self, made: World) -> None:
        import lancedb
        import pyarrow as pa

        self.folder = tempfile.TemporaryDirectory()
        self.made = made
        columns = {
            "item": pa.array(made.tree.order),
            "leaf": pa.array(made.leaf.astype(np.int32)),
            **{name: pa.array(mask) for name, mask in made.attributes.items()},
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(made.vectors.ravel()), D),
        }
        self.table = lancedb.connect(self.folder.name).create_table("items", pa.table(columns))
        self.table.create_scalar_index("leaf", index_type="BTREE")
        for name in made.attributes:
            self.table.create_scalar_index(name, index_type="BITMAP")

    def searches(self, case: Case) -> dict[str, Search]:
        first = self.made.tree.at_level(2)[0].node
        texts = []
        for restrict in case.restricts:
            leaves = ", ".join(str(node - first) for node in restrict.nodes)
            texts.append(" AND ".join(([f"leaf IN ({leaves})"] if leaves else []) + list(restrict.attributes)))

        def search(query: np.ndarray, turn: int) -> np.ndarray:
            asked = self.table.search(query).distance_type("dot").select(["item", "_distance"]).limit(K)
            asked = asked.where(texts[turn], prefilter=True) if texts[turn] else asked
            return asked.to_arrow()["item"].to_numpy()

        return {"LanceDB, prefilter": search}


class Hnsw:
    def __init__(self, made: World) -> None:
        import hnswlib

        self.made = made
        self.index = hnswlib.Index("ip", D)
        self.index.init_index(len(made.vectors), M=32, ef_construction=80)
        self.index.set_num_threads(1)
        self.index.add_items(made.vectors, num_threads=1)
        self.index.set_ef(64)

    def searches(self, case: Case) -> dict[str, Search]:
        allowed = [set(places.tolist()) for places in case.places]
        everything, order = case.name == "none", self.made.tree.order

        def search(query: np.ndarray, turn: int) -> np.ndarray:
            own = None if everything else allowed[turn].__contains__
            try:
                return order[self.index.knn_query(query[None], K, num_threads=1, filter=own)[0][0]]
            except RuntimeError:  # it found fewer than K
                return order[:0]

        return {"hnswlib ef=64, filter": search}


def usearch_gathered(made: World, case: Case) -> dict[str, Search]:
    from usearch.index import search as exact

    def search(query: np.ndarray, turn: int) -> np.ndarray:
        places = case.places[turn]
        rows = made.vectors if case.name == "none" else made.vectors[places]
        found = exact(rows, query, K, metric="ip", exact=True, threads=1).keys.astype(np.int64)
        return made.tree.order[found if case.name == "none" else places[found]]

    return {"usearch exact over gathered rows": search}
