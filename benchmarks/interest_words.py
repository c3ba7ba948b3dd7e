"""What the words of interests are good for: tuning to names, and aligning candidates with feedback.

python benchmarks/interest_words.py tune [DATA] [MINUTES]    # match rate and recall by step; movielens-small, 6
python benchmarks/interest_words.py align [DATA]             # is the best of five, by alignment, liked more?

People are split by number: seven in ten teach, one in ten chooses, two in ten report. Titles of interests beside
keywords are measured by `palate interests name`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_sets import load

from palate.data.dataset import Dataset, IntArray
from palate.evaluation.bootstrap import bootstrap_mean
from palate.interests.alignment import AlignmentConfig, aggregated, fit_alignment
from palate.interests.meetings import Meetings, balanced, first_meetings, pair_numbers, positives
from palate.interests.names import name_nodes
from palate.interests.next_llm import TrieNextInterest, all_pairs, examples, free
from palate.interests.tree import TreeConfig, build_tree
from palate.knowledge.annotate import item_text
from palate.knowledge.keywords import document_tokens
from palate.llm.encoders import MiniLMEncoder
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import Answer, ListedWork, Request
from palate.models.finetune import Example, FinetuneConfig, finetune


@dataclass(frozen=True)
class Named:
    dataset: Dataset
    interest_of: IntArray
    names: list[str]
    role: IntArray  # of each user, 0..9

    def of(self, meetings: Meetings, *roles: int) -> Meetings:
        return meetings.part(np.isin(self.role[meetings.user], roles))


def named(name: str) -> Named:
    """32 interests of a data set, named by keywords."""
    dataset = load(name)
    texts = [item_text(dataset, number) for number in range(dataset.n_items)]
    rows = dataset.items.select("title", "text", "categories").rows()
    documents = [document_tokens(f"{t or ''} {x or ''}", [c.lower() for c in cs or []]) for t, x, cs in rows]
    tree = build_tree(MiniLMEncoder().encode(texts), dataset.item_counts, TreeConfig(branching=(8, 4)))
    nodes = name_nodes(tree, documents).at_level(2)
    role = (np.random.default_rng(0).permutation(dataset.n_users) % 10).astype(np.int32)
    interest_of = (tree.node_of_items(2) - nodes[0].node).astype(np.int32)
    return Named(dataset, interest_of, [node.title for node in nodes], role)


class Direct:
    """An `LLM` without a ledger."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine, self.model = engine, engine.model

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        found = dict(pair for batch in self.engine.ask(ListedWork(requests)) for pair in batch)
        return [found[number] for number in range(len(requests))]


def tune(data: Named, minutes: float) -> None:
    """Free match rate on pairs that no example has, recall on the examples and on held-out people, by step."""
    met = first_meetings(positives(data.dataset), data.interest_of)
    taught, held, rng = balanced(data.of(met, *range(7))), data.of(met, 7), np.random.default_rng(0)
    held = held.part(rng.permutation(len(held))[:128])
    some = taught.part(rng.permutation(len(taught))[:64])
    pairs, n = all_pairs(len(data.names)), len(data.names)
    new = pairs[~np.isin(pair_numbers(pairs, n), pair_numbers(taught.pair, n))]
    new = new[rng.permutation(len(new))[:100]]
    print(f"{len(data.names)} interests, {len(taught)} examples, {len(new)} pairs without an example\n", flush=True)
    print(f"{'match':>7}{'examples @1':>13}{'@5':>6}{'people @1':>11}{'@5':>6}{'seconds':>9}", flush=True)
    begun = time.perf_counter()

    def measure(engine: TorchEngine) -> dict[str, float]:
        found = {"match": free(Direct(engine), new, data.names).match_rate}  # type: ignore[arg-type]
        for who, part in (("examples", some), ("people", held)):
            scores = TrieNextInterest(engine, data.names).scores(part.pair)
            place = (scores > scores[np.arange(len(part)), part.label][:, None]).sum(axis=1)
            found |= {f"{who} @{k}": float((place < k).mean()) for k in (1, 5)}
        told = [found[key] for key in ("match", "examples @1", "examples @5", "people @1", "people @5")]
        widths = zip(told, (7, 13, 6, 11, 6), strict=True)
        print("".join(f"{v:>{w}.2f}" for v, w in widths) + f"{time.perf_counter() - begun:>9.0f}", flush=True)
        return found

    sides = [[Example(*row) for row in examples(m.pair, m.label, data.names)] for m in (taught, held)]
    config = FinetuneConfig(
        batch=16, rank=16, alpha=32, learning_rate=1e-3, epochs=20, judge_every=20, patience=99, minutes=minutes
    )
    with tempfile.TemporaryDirectory() as folder:
        done = finetune(TorchEngine(batch_size=32), sides[0], sides[1], Path(folder), config, None, measure)
    print(f"\n{'step':>5}{'loss':>8}{'exact':>7}{'training':>10}")
    for look in done.looks:
        print(f"{look.step:>5}{look.loss:>8.3f}{look.exact:>7.2f}{look.training:>10.3f}")
    steps = done.looks[-1].step
    print(f"{done.stopped}; lowest validation loss at {done.best}; {16 * steps / done.seconds:.1f} examples a second,")
    print("looks included")


def align(data: Named) -> None:
    """Of the next five interests a person met, is the one that alignment likes best liked better than their mean?"""
    events, n = data.dataset.events, len(data.names)
    user, value = events["user_num"].to_numpy().astype(np.int64), events["value"].to_numpy().astype(np.float64)
    own = np.bincount(user, value) / np.maximum(np.bincount(user), 1)
    cell, size = user * n + data.interest_of[events["item_num"].to_numpy()], data.dataset.n_users * n
    liked = np.bincount(cell, value - own[user], size) / np.maximum(np.bincount(cell, minlength=size), 1)
    met = first_meetings(data.dataset, data.interest_of)
    teach, vectors = data.of(met, *range(7)), MiniLMEncoder().encode(data.names)

    def signal(meetings: Meetings) -> np.ndarray:
        return np.asarray(liked[meetings.user.astype(np.int64) * n + meetings.label])

    print(f"{'least':>5}{'ridge':>7}{'rows':>7}  {'people':<8}{'alignment':<28}interests' own mean")
    for least in (1, 2, 3):
        for ridge in (10.0, 100.0, 1000.0):
            config = AlignmentConfig(least=least, ridge=ridge)
            rows = aggregated(teach.pair, teach.label, signal(teach), config)
            model = fit_alignment(rows, vectors, config)
            for who, roles in (("choose", (7,)), ("report", (8, 9))):
                part = data.of(met, *roles)
                gains, people = [], []
                for person in np.unique(part.user):
                    mine = np.flatnonzero(part.user == person)
                    for start in range(0, len(mine) - 4, 5):
                        five = part.part(mine[start : start + 5])
                        scores = model.scores(five.pair[:1], five.label[None])[0], model.prior[five.label]
                        gains.append([signal(five)[each.argmax()] - signal(five).mean() for each in scores])
                        people.append(person)
                both = [str(bootstrap_mean(column, np.array(people))) for column in np.array(gains).T]
                print(f"{least:>5}{ridge:>7.0f}{len(rows):>7}  {who:<8}{both[0]:<28}{both[1]}", flush=True)


if __name__ == "__main__":
    chosen = named(sys.argv[2] if len(sys.argv) > 2 else "movielens-small")
    if sys.argv[1] == "tune":
        tune(chosen, float(sys.argv[3]) if len(sys.argv) > 3 else 6.0)
    else:
        align(chosen)
