"""What HSTU's two savings save: candidates judged beside a history read once, and stochastic length.

python benchmarks/hstu.py candidates      # milliseconds for m candidates, against one sequence for each
python benchmarks/hstu.py stochastic      # tokens read and validation NDCG@10 for several alphas, movielens-100k
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from data_sets import load

from palate.data.splits import split_in_time
from palate.models.hstu import Hstu, HstuConfig, Network, shortened
from palate.models.item_side import ItemTable
from palate.models.windows import Windows

LENGTH, ITEMS = 200, 10_000


def candidates() -> None:
    """A history of 200 events, untrained weights: what is measured does not depend on them."""
    network = Network(ItemTable(ITEMS, 64), HstuConfig(length=LENGTH, candidates=1)).eval()
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, ITEMS, (1, LENGTH)))
    times = torch.from_numpy(np.sort(rng.integers(0, 10**15, (1, LENGTH + 1))))
    print("| candidates | beside, ms | one sequence each, ms | largest difference of scores |\n|---|---|---|---|")
    for m in (1, 16, 64, 256, 1024):
        items = torch.from_numpy(rng.integers(0, ITEMS, (1, m)))
        both = torch.cat([times, times[:, -1:]], 1).expand(m, -1)
        with torch.inference_mode():
            beside, fast = _timed(lambda items=items: network.judged(network.beside(tokens, times, items, 256))[0])
            whole = torch.cat([tokens.expand(m, -1), items.T], 1)
            alone, slow = _timed(lambda whole=whole, both=both: _one_by_one(network, whole, both), repeats=2)
        print(f"| {m} | {fast:.1f} | {slow:.1f} | {float((beside - alone).abs().max()):.1e} |", flush=True)


def _one_by_one(network: Network, tokens: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    parts = zip(tokens.split(16), times.split(16), strict=True)
    return torch.cat([network.judged(network.hidden(*part)[:, -1:])[:, 0] for part in parts])


def _timed(run: Callable[[], torch.Tensor], repeats: int = 5) -> tuple[torch.Tensor, float]:
    result, best = run(), float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        best = min(best, 1000 * (time.perf_counter() - begun))
    return result, best


def stochastic(epochs: int) -> None:
    split = split_in_time(load("movielens-100k"))
    print("| alpha | tokens of an epoch | best validation NDCG@10 | CPU s |\n|---|---|---|---|")
    for alpha in (None, 1.8, 1.6):
        config = HstuConfig(length=LENGTH, alpha=alpha, epochs=epochs, threads=torch.get_num_threads())
        windows = Windows(split.train.histories, split.train.n_items, LENGTH, config.batch_targets)
        epoch = windows(np.random.default_rng(0))
        batches = [epoch[i] for i in range(len(epoch))]
        read = sum((b if alpha is None else shortened(b, LENGTH, alpha)).tokens.numel() for b in batches)
        begun = time.process_time()
        model = Hstu(config).fit(split.train, validation=split.validation)
        print(f"| {alpha} | {read} | {max(model.curve):.4f} | {time.process_time() - begun:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["candidates", "stochastic"])
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    candidates() if args.what == "candidates" else stochastic(args.epochs)


if __name__ == "__main__":
    main()
