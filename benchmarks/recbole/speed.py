"""Time RecBole's SASRec for some batches of its own training loop. Started by `benchmarks/train.py --recbole VENV`.

    VENV/bin/python benchmarks/recbole/speed.py FOLDER OPTIONS_AS_JSON

FOLDER holds NAME/NAME.inter with user_id, item_id, timestamp. Loading, augmentation (each prefix of a history is one
sample), model, loss and loop are RecBole's own; only the end is ours, after `seconds`. Prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

warnings.filterwarnings("ignore")

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402


class Timed:
    """The batches of a loader until time is up, and when each was asked for."""

    def __init__(self, loader, seconds: float) -> None:
        self.loader, self.seconds, self.asked, self.spent, self.samples = loader, seconds, [], [], []

    def __iter__(self):
        batches = iter(self.loader)
        while len(self.asked) < 4 or self.asked[-1] - self.asked[1] < self.seconds:
            self.look()
            batch = next(batches, None)
            if batch is None:
                return
            self.samples.append(len(batch))
            yield batch
        self.look()

    def look(self):
        self.asked.append(time.perf_counter())
        self.spent.append(time.process_time())


def main() -> None:
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(options["threads"])
    # Importing RecBole's models turned autograd's anomaly detection on for all of them (sine.py): as it comes, or off.
    torch.autograd.set_detect_anomaly(options["anomaly"])
    settings = {
        "data_path": str(folder.resolve()),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "MAX_ITEM_LIST_LENGTH": options["length"],
        "loss_type": options["loss"],
        "train_batch_size": options["batch"],
        "hidden_size": options["dimensions"],
        "n_layers": options["blocks"],
        "n_heads": options["heads"],
        "inner_size": options["widening"] * options["dimensions"],
        "hidden_dropout_prob": options["dropout"],
        "attn_dropout_prob": options["dropout"],
        "use_gpu": False,
        "show_progress": False,
        "checkpoint_dir": str(folder / "saved"),
    }
    if options["loss"] == "CE":
        settings["train_neg_sample_args"] = None
    config = Config(model="SASRec", dataset=options["set"], config_dict=settings)
    logging.disable(logging.INFO)
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = SASRec(config, train_data.dataset)
    timed = Timed(train_data, options["seconds"])
    loss = Trainer(config, model)._train_epoch(timed, 0, show_progress=False)
    wall, cpu = (np.diff(clock)[1 : len(timed.samples) - 1] for clock in (timed.asked, timed.spent))
    samples = np.array(timed.samples[1:-1])  # the first batch warms up, the last may be short
    found = {
        "events_per_second": float((samples / wall).max()),
        "events_per_cpu_second": float((samples / cpu).max()),
        "events": int(samples.sum()),
        "seconds": wall.tolist(),
        "samples_an_epoch": len(train_data.dataset),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mean_loss": loss / len(timed.samples),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
