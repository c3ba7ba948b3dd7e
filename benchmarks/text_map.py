"""How well an item's text says where it belongs: the map that new items are placed by, on items held out.

    python benchmarks/text_map.py PROJECT

Reads what `palate demo` or `palate run` left in PROJECT. The map is learned from three fifths of the items; of the last
fifth it prints the share whose leaf is found, the mean correlation of labels with those of the snapshot, and, for items
with ten events or more, the cosine with the learned vector and the share of the ten nearest neighbours found.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from palate.data.dataset import FloatArray
from palate.interests.tree import load_tree
from palate.interests.vectors import unit_rows
from palate.serving.fresh import grown
from palate.serving.text_map import fit_text_map, placed
from palate.serving.versions import current

MET = 10


def main(project: Path) -> None:
    state = project / ".palate"
    snapshot = current(state / "snapshots")
    texts = np.load(next(state.glob("steps/vectors-*/vectors.npy")))
    vectors = np.load(next(state.glob("steps/models-*/item_vectors.npy"))).astype(np.float32)
    labels, events = np.load(snapshot / "attributes.npy"), np.load(snapshot / "popularity.npy")
    whole = load_tree(snapshot / "tree.json")
    leaves = whole.node_of_items(whole.depth)
    part = np.random.default_rng(0).permutation(len(texts)) % 5
    learn, test = part < 3, part == 4
    tree = grown(whole, leaves[learn])
    named = {str(row): values[learn] for row, values in enumerate(labels)}
    text_map = fit_text_map(texts[learn], vectors[learn], named, tree, events[learn])
    found = placed(text_map, texts[test], vectors.shape[1], tree, 1.0)
    met, pool = events[test] >= MET, unit_rows(vectors[learn & (events >= MET)])
    true, guessed = unit_rows(vectors[test])[met], found.vectors[met]
    pairs = zip(nearest(true, pool), nearest(guessed, pool), strict=True)
    correlations = [np.corrcoef(labels[row][test], found.probabilities[:, row])[0, 1] for row in range(len(labels))]
    print(f"{int(test.sum())} items, {int(met.sum())} of them with {MET} events or more")
    print(f"leaf found        {np.mean(found.leaves == leaves[test]):.3f}")
    print(f"labels, r         {np.mean(correlations):.3f}")
    print(f"cosine            {np.mean((true * guessed).sum(axis=1)):.3f}")
    shared = np.mean([len(np.intersect1d(*pair)) / MET for pair in pairs])
    print(f"neighbours found  {shared:.3f} (chance {MET / len(pool):.3f})")


def nearest(queries: FloatArray, pool: FloatArray) -> np.ndarray:
    return np.argsort(-(queries @ pool.T), axis=1)[:, :MET]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
