"""The data sets of the development checkout, as `Dataset`s for the other benchmarks, and the making of the sample.

python benchmarks/data_sets.py list          # what there is, and how it splits
python benchmarks/data_sets.py make-sample   # data/ml-latest-small from the fuller copy
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import polars as pl

from palate.data.dataset import Dataset
from palate.data.folder import read_folder
from palate.data.splits import split_global_time

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
SAMPLE = ROOT / "data" / "ml-latest-small"
NAMES = ("movielens-small", "movielens-100k", "amazon-toys", "amazon-industrial", "grocery", "news-bing")


def load(name: str) -> Dataset:
    """One of `NAMES`. Raises `InputError` where the development data is not there."""
    return read_folder(SHARED / name)


def make_sample() -> None:
    """Write ratings, titles, genres and user tags in MovieLens' own format: no text from anywhere else."""
    source = SHARED / "movielens-small"
    ratings = pl.read_parquet(source / "interactions.parquet")
    ratings.select(userId="user_id", movieId="item_id", rating="rating", timestamp="timestamp").write_csv(
        SAMPLE / "ratings.csv"
    )
    genres = pl.col("categories").list.join("|").replace("", "(no genres listed)")
    films = pl.read_parquet(source / "items.parquet")
    films.select(movieId="item_id", title="title", genres=genres).write_csv(SAMPLE / "movies.csv")
    tags = pl.read_parquet(source / "labels.parquet").filter(pl.col("source") == "ml_user_tag")
    tags.select(userId="user_id", movieId="item_id", tag="label", timestamp="timestamp").write_csv(SAMPLE / "tags.csv")
    for name in ("items.jsonl", "users.jsonl", "README.md"):
        (SAMPLE / "answers").mkdir(exist_ok=True)
        shutil.copyfile(source / "answers" / name, SAMPLE / "answers" / name)


def show() -> None:
    print(
        f"{'name':<18}{'items':>8}{'users':>8}{'events':>9}{'train':>9}{'val':>7}{'test':>7}{'read s':>8}{'split s':>8}"
    )
    for name in NAMES:
        begun = time.perf_counter()
        data = load(name)
        read = time.perf_counter()
        split = split_global_time(data)
        done = time.perf_counter()
        held = f"{len(split.validation.queries):>7}{len(split.test.queries):>7}"
        sizes = f"{data.n_items:>8}{data.n_users:>8}{data.events.height:>9}{split.train.events.height:>9}"
        print(f"{name:<18}{sizes}{held}{read - begun:>8.2f}{done - read:>8.2f}")


if __name__ == "__main__":
    {"list": show, "make-sample": make_sample}[sys.argv[1] if len(sys.argv) > 1 else "list"]()
