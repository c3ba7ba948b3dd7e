"""The exploration table of 761 interests by the batch-file route: export, a stand-in that answers, import, table.

python benchmarks/exploration_table.py                       # 579,121 ordered pairs, as in arXiv 2405.16363
python benchmarks/exploration_table.py --interests 64        # a quick look
python benchmarks/exploration_table.py --unordered --keep DIR

Names and answers are synthetic (a hash of the request draws five names): the route is measured, not the model. The
export and the import are those of `palate llm export` and `palate llm import`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np

from palate.interests.next_batch import NextRequests, table_of
from palate.interests.table import InterestTable, open_table, save_table
from palate.llm.ledger import Ledger
from palate.llm.provider_files import export_requests
from palate.llm.provider_results import import_results

SOUNDS = ("ka", "lo", "mi", "ne", "ru", "so", "ta", "ve", "zi")


@contextmanager
def stage(name: str, *paths: Path) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    files = [
        file for path in paths for file in (path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*"))
    ]
    size = sum(file.stat().st_size for file in files) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{name:<28}{time.perf_counter() - begun:>9.1f} s{size:>11.1f} MB{len(files):>5} files{peak:>7.2f} GB peak",
        flush=True,
    )


def synthetic_names(n: int) -> list[str]:
    """Three made-up words each, all different."""
    word = ["".join(SOUNDS[number // 9**place % 9] for place in range(4)) for number in range(3 * n)]
    return [", ".join(word[3 * number : 3 * number + 3]) for number in range(n)]


def answer_all(folder: Path, results: Path, names: list[str], n: int) -> None:
    """What a batch service does: a result line for every line of every file, in any order."""
    results.mkdir()
    usage = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
    for file in sorted(folder.glob("*.jsonl")):
        lines = []
        for line in file.read_bytes().splitlines():
            custom_id = json.loads(line)["custom_id"]
            start = crc32(custom_id.encode())
            text = "\n".join(names[(start + 97 * place) % len(names)] for place in range(n))
            message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", "index": 0}
            body = {"choices": [message], "usage": usage, "model": "stand-in"}
            lines.append(
                json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None})
            )
        (results / file.name).write_text("\n".join(reversed(lines)) + "\n")


def look_ups(table: InterestTable, n: int = 1_000_000) -> None:
    pairs = np.random.default_rng(0).integers(0, table.n_interests, (n, 2))
    table.look_up(pairs[:1000])
    begun = time.perf_counter()
    table.look_up(pairs)
    each = (time.perf_counter() - begun) / n
    begun = time.perf_counter()
    for row in range(2000):
        table.look_up(pairs[row : row + 1])
    single = (time.perf_counter() - begun) / 2000
    print(f"look-up, {n:,} random pairs at once: {1e9 * each:.0f} ns a pair; one at a time: {1e6 * single:.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interests", type=int, default=761)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--unordered", action="store_true")
    parser.add_argument("--keep", type=Path, help="leave all files in this new folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(given.keep or Path(temporary), given.interests, given.candidates, ordered=not given.unordered)


def run(folder: Path, interests: int, candidates: int, *, ordered: bool) -> None:
    names = synthetic_names(interests)
    begun = time.perf_counter()
    with stage("requests and their keys"):
        asked = NextRequests(names, "stand-in", ordered=ordered, candidates=candidates)
    with Ledger(folder / "ledger.db") as ledger:
        with stage("export", folder / "batch"):
            done = export_requests(asked.requests(), folder / "batch", ledger, asked.model)
        with stage("stand-in answers", folder / "results"):
            answer_all(folder / "batch", folder / "results", names, candidates)
        with stage("import into the ledger", folder / "ledger.db"):
            kept = import_results(sorted((folder / "results").glob("*.jsonl")), asked, ledger)
        with stage("table", folder / "exploration.table"):
            table, read = table_of(asked, ledger)
            save_table(table, folder / "exploration.table")
    with stage("open and check"):
        opened = open_table(folder / "exploration.table")
    print(f"in all {time.perf_counter() - begun:.1f} s")
    print(f"{done.lines:,} requests in {len(done.files)} files")
    print(f"kept {kept.kept:,}, failed {kept.failed}, missing {kept.missing}")
    print(f"rows {len(opened.next):,} x {candidates}; match rate {read.match_rate:.4f}")
    look_ups(opened)


if __name__ == "__main__":
    main()
