"""The recipe tagllm on a data set of the development checkout, with the embedded model and the recorded answers.

python benchmarks/tagllm.py movielens-small WORKSPACE [name=value ...]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from palate.data.folder import read_folder, read_labels
from palate.experiments.study import Study
from palate.knowledge.recorded import read_recorded
from palate.knowledge.tables import Knowledge
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import CachedEncoder, MiniLMEncoder
from palate.llm.engines.llama import LlamaEngine
from palate.llm.ledger import Ledger
from palate.recipes.registry import load

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def main(name: str, workspace: Path, settings: list[str]) -> None:
    folder, begun = SHARED / name, time.perf_counter()
    answers = folder / "answers"
    recorded = read_recorded(answers, "large model, recorded") if answers.is_dir() else {}

    def progress(what: str, done: int, total: int) -> None:
        print(f"{time.perf_counter() - begun:7.0f} s  {what}: {done} of {total}", file=sys.stderr, flush=True)

    with Ledger(workspace / "ledger.sqlite") as ledger:
        study = Study(
            read_folder(folder),
            LedgeredLLM(LlamaEngine(threads=int(os.environ.get("OMP_NUM_THREADS", "0")) or None), ledger),
            CachedEncoder(MiniLMEncoder(), ledger),
            workspace,
            read_labels(folder),
            recorded=Knowledge({"tag": recorded["tag"]} if recorded else {}),
            settings=dict(setting.split("=", 1) for setting in settings),
            progress=progress,
        )
        report = load("tagllm")(study)
    for line in (*report.verdict, *report.notes):
        print(line)
    for table in report.tables:
        print(f"\n{table.title} ({table.note})")
        for row in table.rows:
            print("  " + json.dumps({key: _short(value) for key, value in row.items()}, ensure_ascii=False))
    print(f"\n{time.perf_counter() - begun:.0f} s")


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
