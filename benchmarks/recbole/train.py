"""Train RecBole's SASRec on the files of `sequence_models.py --export-recbole` and rank the test queries.

Runs in the environment of `setup.sh`, without Palate:

    DIR/bin/python benchmarks/recbole/train.py EXPORT/movielens-100k --batch 256

The model, its loss (full softmax), its data augmentation (every prefix of a training sequence is one sample) and
its training loop are RecBole's own. Ours is only the figure that stops it early: NDCG@10 over the same validation
queries with seen items masked, so that both sides stop by the same rule. Writes `test_top.npy`, item numbers
[queries, 100], best first, and `recbole.json` beside the input.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

warnings.filterwarnings("ignore")
# RecBole pickles its configuration into its checkpoints, which torch >= 2.6 refuses by default.
_load = torch.load
torch.load = lambda *args, **kwargs: _load(*args, **{"weights_only": False, **kwargs})

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

# Importing RecBole's models turns autograd's anomaly detection on for all of them (sine.py); it costs 60% of the time.
torch.autograd.set_detect_anomaly(False)

BATCH = 1024


class QuickSASRec(SASRec):
    """RecBole's SASRec, the same function of the same weights, with the work left out that nobody reads.

    Padding behind the longest sequence of each group of like length is cut off, the last layer is computed at the
    last event only, and GELU is one call. `main` asserts that it equals RecBole's own `forward`.
    """

    GROUP = 64

    def forward(self, item_seq, item_seq_len):
        order = torch.argsort(item_seq_len)
        groups = order.split(self.GROUP)
        states = [self._group(item_seq[g][:, : int(item_seq_len[g].max())], item_seq_len[g]) for g in groups]
        return torch.cat(states)[torch.argsort(order)]

    def _group(self, items, lengths):
        x = self.item_embedding(items) + self.position_embedding.weight[: items.shape[1]]
        x = self.dropout(self.LayerNorm(x))
        mask = self.get_attention_mask(items)
        *layers, last = self.trm_encoder.layer
        for layer in layers:
            x = self._layer(layer, x, x, mask)
        rows = torch.arange(len(items))
        ends = x[rows, lengths - 1][:, None]
        return self._layer(last, ends, x, mask[rows, :, lengths - 1][:, :, None])[:, 0]

    def _layer(self, layer, asking, x, mask):
        a, feed = layer.multi_head_attention, layer.feed_forward
        q, k, v = (a.transpose_for_scores(t).transpose(1, 2) for t in (a.query(asking), a.key(x), a.value(x)))
        weights = a.attn_dropout((q @ k.transpose(-1, -2) / a.sqrt_attention_head_size + mask).softmax(-1))
        read = (weights @ v).transpose(1, 2).flatten(2)
        y = a.LayerNorm(a.out_dropout(a.dense(read)) + asking)
        return feed.LayerNorm(feed.dropout(feed.dense_2(F.gelu(feed.dense_1(y)))) + y)


class Queries:
    """Packed histories and single targets of one held-out part."""

    def __init__(self, path: Path, most: int | None = None) -> None:
        packed = np.load(path)
        histories = np.split(packed["items"], packed["offsets"][1:-1])
        n = min(len(histories), most or len(histories))
        picked = np.linspace(0, len(histories) - 1, n).astype(int)
        self.targets = packed["targets"][picked]
        self.histories = [histories[i] for i in picked]


def rank(model, dataset, queries: Queries, n: int) -> np.ndarray:
    """The first `n` item numbers for each query, seen items left out."""
    tokens = dataset.field2id_token["item_id"]
    numbers = np.array([-1] + [int(t) for t in tokens[1:]])
    ids = np.zeros(numbers.max() + 1, dtype=np.int64)
    ids[numbers[1:]] = np.arange(1, len(numbers))
    length = model.max_seq_length
    model.eval()
    top = []
    for start in range(0, len(queries.histories), BATCH):
        histories = queries.histories[start : start + BATCH]
        items = torch.zeros(len(histories), length, dtype=torch.long)
        for row, history in enumerate(histories):
            recent = history[-length:]
            items[row, : len(recent)] = torch.from_numpy(ids[recent])
        lengths = torch.tensor([min(len(history), length) for history in histories])
        with torch.no_grad():
            scores = model.full_sort_predict({model.ITEM_SEQ: items, model.ITEM_SEQ_LEN: lengths})
        scores[:, 0] = -torch.inf
        for row, history in enumerate(histories):
            scores[row, ids[history]] = -torch.inf
        top.append(numbers[scores.topk(n).indices.numpy()])
    return np.concatenate(top)


def ndcg(top: np.ndarray, targets: np.ndarray) -> float:
    """NDCG@10 with one relevant item per query."""
    _, place = np.nonzero(top[:, :10] == targets[:, None])
    return float((1 / np.log2(place + 2)).sum() / len(top))


def assert_same(model: QuickSASRec) -> None:
    """In evaluation, where no dropout differs, both ways to compute must agree."""
    model.eval()
    lengths = torch.randint(1, model.max_seq_length + 1, (100,))
    items = torch.randint(1, model.n_items, (100, model.max_seq_length))
    items[torch.arange(model.max_seq_length) >= lengths[:, None]] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(items, lengths), SASRec.forward(model, items, lengths), atol=1e-5, rtol=1e-4)


class SameRuleTrainer(Trainer):
    """RecBole's trainer, stopped by our validation figure."""

    def __init__(self, config, model, dataset, validation: Queries) -> None:
        super().__init__(config, model)
        self.dataset, self.validation, self.curve = dataset, validation, []

    def _valid_epoch(self, valid_data, show_progress=False):
        figure = ndcg(rank(self.model, self.dataset, self.validation, 10), self.validation.targets)
        self.curve.append(figure)
        print(f"epoch {len(self.curve) - 1}: validation NDCG@10 {figure:.4f}, {time.process_time():.0f} s", flush=True)
        return figure, {"ndcg@10": figure}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--patience", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2048, help="RecBole's default is 2048")
    parser.add_argument("--dropout", type=float, default=0.5, help="RecBole's default is 0.5")
    parser.add_argument("--validation-queries", type=int, default=2000, help="evenly picked, as Palate's SASRec does")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {
        "data_path": str(args.folder.parent.resolve()),
        "checkpoint_dir": str(args.folder / "saved"),
        "benchmark_filename": ["train", "validation", "test"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": 50,
        "train_neg_sample_args": None,
        "epochs": args.epochs,
        "stopping_step": args.patience,
        "train_batch_size": args.batch,
        "hidden_dropout_prob": args.dropout,
        "attn_dropout_prob": args.dropout,
        "valid_metric": "NDCG@10",
        "metrics": ["NDCG"],
        "topk": [10],
        "use_gpu": False,
        "show_progress": False,
        "seed": 2020,
    }
    config = Config(model="SASRec", dataset=args.folder.name, config_dict=settings)
    logging.disable(logging.INFO)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    model = QuickSASRec(config, train_data.dataset)
    assert_same(model)
    validation = Queries(args.folder / "validation.npz", args.validation_queries)
    test = Queries(args.folder / "test.npz")
    trainer = SameRuleTrainer(config, model, dataset, validation)
    start = time.process_time()
    trainer.fit(train_data, valid_data, saved=True, show_progress=False)
    model.load_state_dict(torch.load(trainer.saved_model_file)["state_dict"])
    np.save(args.folder / "test_top.npy", rank(model, dataset, test, 100).astype(np.int32))
    figures = {
        "epochs_cap": args.epochs,
        "patience": args.patience,
        "batch": args.batch,
        "dropout": args.dropout,
        "curve": trainer.curve,
        "fit_cpu_seconds": time.process_time() - start,
    }
    (args.folder / "recbole.json").write_text(json.dumps(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
