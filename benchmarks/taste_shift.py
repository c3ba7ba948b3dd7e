"""How often tastes move by the measure of `palate refresh`, and how often it says so where nothing moves.

    python benchmarks/taste_shift.py PROJECT

PROJECT: one whose vectors were made (`palate demo`, or `palate run vectors`). Of everybody with 40 events the last 20
against the 20 before; and the same 40 in random order, 20 times each, where nothing can have moved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from palate.cli.options import open_run
from palate.knowledge.shifts import shift

WINDOW, DRAWS = 20, 20
CUTS = (1.2, 1.5, 2.0, 3.0)


def main() -> None:
    with open_run(Path(sys.argv[1]), quiet=True) as run:
        histories = run.project.dataset.histories
        vectors = np.load(run.vectors.folder / "vectors.npy")
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"as it was": [], "in random order": []}
    for user in range(len(histories.offsets) - 1):
        last = vectors[histories.of(user)[-2 * WINDOW :]]
        if len(last) < 2 * WINDOW:
            continue
        found["as it was"].append(shift(last[:WINDOW], last[WINDOW:]))
        for _ in range(DRAWS):
            drawn = last[rng.permutation(len(last))]
            found["in random order"].append(shift(drawn[:WINDOW], drawn[WINDOW:]))
    for name, amounts in found.items():
        values = np.array(amounts)
        above = ", ".join(f"{(values >= cut).mean():.1%} from {cut}" for cut in CUTS)
        print(f"{name}: {len(values)} comparisons, mean {values.mean():.2f}; {above}")


if __name__ == "__main__":
    main()
