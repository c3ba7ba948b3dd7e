"""What a student keeps of its teacher, and how much faster it labels: AUC against people's tags, items a second.

    python benchmarks/student.py [--llm-items 200]
    python benchmarks/student.py --speeds            # the speeds alone: minutes

Films of movielens-small; people's tags are the truth (twelve attributes of the example project), text is title, genres
and overview. Teachers: the recorded large model (1,200 films) and, asked here, the embedded SmolLM2 (`--llm-items` of
the same films). A film that its teacher labelled is judged by a student that never saw its label (out of fold).
Everything was chosen on dev; this reads the held-out half. Intervals resample films, the same ones for both sides of a
difference or ratio. Speeds are of one process on this machine, one after the other, each the median of several
times: what else runs here slows all of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from data_sets import ROOT, SHARED, load
from machine import machine_facts

from palate.data.dataset import Dataset
from palate.data.folder import read_labels
from palate.data.splits import split_global_time
from palate.evaluation.binary import auc, expected_calibration_error
from palate.evaluation.calibration import fit_platt
from palate.knowledge.annotate import annotate, item_text, questions
from palate.knowledge.attributes import Attribute, load_attributes
from palate.knowledge.blocks import item_blocks, side_by_side
from palate.knowledge.cost import seconds_to_predict
from palate.knowledge.distil import Student, StudentConfig, distil
from palate.knowledge.golden import MIN_POSITIVES, golden_from_tags, truth_matrix
from palate.knowledge.golden_set import GoldenSplit
from palate.knowledge.matrix import label_matrix
from palate.knowledge.promise import check_promise
from palate.knowledge.recorded import read_recorded
from palate.knowledge.route import Judge, RouteConfig, calibrate, route
from palate.llm.asking import LedgeredLLM
from palate.llm.encoders import MiniLMEncoder
from palate.llm.engines.llama import LlamaEngine
from palate.llm.ledger import Ledger
from palate.llm.request import ListedWork

TAGS = ("ml_user_tag", "hetrec2011_user_tag")
SPLIT = GoldenSplit("palate", 0.5)
STRENGTHS = (1.0, 3.0)
RESAMPLES = 500
FEWEST = 200  # films that a comparison needs
BLOCKS = ("categories", "company", "taste")
TIMED = 20  # films that the LLM is timed on


def truth_of(data: Dataset, attributes: Sequence[Attribute]) -> tuple[np.ndarray, np.ndarray]:
    """People's labels [n_items, n_attributes], and which items are on the dev side."""
    labels = read_labels(SHARED / "movielens-small")
    assert labels is not None
    tags = labels.filter(pl.col("source").is_in(TAGS)).rename({"label": "tag"})
    golden = golden_from_tags(tags, attributes).with_columns(value=pl.col("label").cast(pl.Float64))
    truth = truth_matrix(golden, data.item_ids, [attribute.name for attribute in attributes])
    return truth, np.array([SPLIT.is_dev(item_id) for item_id in data.item_ids])


def mean_auc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Over attributes with enough of either label."""
    enough = [k for k in range(truth.shape[1]) if MIN_POSITIVES <= truth[:, k].sum() <= len(truth) - MIN_POSITIVES]
    return float(np.nanmean([auc(truth[:, k], scores[:, k]) for k in enough]))


def resampled(truth: np.ndarray, sources: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """Mean AUC of each source: first the point, then on resamples of the items, the same ones for all."""
    rng, n = np.random.default_rng(seed), len(truth)
    draws = [np.arange(n), *(rng.integers(0, n, n) for _ in range(RESAMPLES))]
    return {name: np.array([mean_auc(truth[d], s[d]) for d in draws]) for name, s in sources.items()}


def interval(drawn: np.ndarray) -> list[float]:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return [float(drawn[0]), float(low), float(high)]


def compared(truth: np.ndarray, sources: Mapping[str, np.ndarray], teacher: str, plain: str) -> dict[str, object]:
    """AUC of each source, its ratio to the teacher's and its difference to the student on text alone."""
    drawn = resampled(truth, sources)
    rows = {}
    for name, found in drawn.items():
        ratio, more = interval(found / drawn[teacher]), interval(found - drawn[plain])
        rows[name] = {"auc": interval(found), "of_teacher": ratio, "over_text_alone": more}
        print(f"  {name:<38} AUC {_words(rows[name]['auc'])}  of teacher {_words(ratio)}  over text {_words(more)}")
    return rows


def _words(found: list[float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*found)


def students(labels: pl.DataFrame, vectors: np.ndarray, blocks: Mapping[str, list], ids: list[str], names: list[str]):
    """One student for each set of blocks, and one with candidate sets on all blocks: [n_items, n_names] each."""
    configs = {f"student: {name}": (found, None) for name, found in blocks.items()}
    last = list(blocks.values())[-1]
    configs |= {f"student: all blocks, candidate mass {mass}": (last, mass) for mass in (0.7, 0.9)}
    made = {}
    for name, (found, mass) in configs.items():
        config = StudentConfig(strengths=STRENGTHS, candidate_mass=mass)
        made[name] = label_matrix(distil(labels, vectors, ids, config, found), ids, names)
    return made


def study(labels: pl.DataFrame, teacher: str, material: tuple, blocks: Mapping[str, list]) -> dict[str, object]:
    """A teacher and its students on the held-out films that it labelled, and on those that it never saw."""
    ids, names, vectors, truth, dev = material
    said = label_matrix(labels, ids, names)
    made = students(labels, vectors, blocks, ids, names)
    plain, best = next(iter(made)), list(made)[len(blocks) - 1]
    judged, seen = ~np.isnan(truth).any(axis=1), ~np.isnan(said).any(axis=1)
    found: dict[str, object] = {}
    for where, rows in (("dev", judged & seen & dev), ("held-out", judged & seen & ~dev)):
        if rows.sum() < FEWEST:
            print(f"{teacher}, {where}: {rows.sum()} films are too few to compare on")
            continue
        print(f"{teacher}, {where}, {rows.sum()} films")
        sources = {teacher: said[rows], **{name: scores[rows] for name, scores in made.items()}}
        found[where] = {"films": int(rows.sum()), "rows": compared(truth[rows], sources, teacher, plain)}
    rows = judged & ~seen & ~dev & (np.abs(vectors).sum(axis=1) > 0)
    print(f"{teacher}, held-out films that it never saw, {rows.sum()}")
    unseen = {name: scores[rows] for name, scores in made.items()}
    found["unseen"] = {"films": int(rows.sum()), "rows": compared(truth[rows], unseen, best, plain)}
    rows = judged & seen & dev
    if rows.sum() < FEWEST:
        return found
    found["promises"] = promises(made[best][rows], said[rows], truth[rows], names)
    found["calibration"] = calibrated(made[best], truth, judged & seen, dev)
    return found


def calibrated(scores: np.ndarray, truth: np.ndarray, rows: np.ndarray, dev: np.ndarray) -> dict[str, float]:
    """Mean error of calibration on held-out, as it is and after Platt's curve was fitted on dev."""
    before, after = [], []
    for k in range(truth.shape[1]):
        on, off = rows & dev, rows & ~dev
        known = on & ~np.isnan(scores[:, k]) & ~np.isnan(truth[:, k])
        curve = fit_platt(scores[known, k], truth[known, k])
        before.append(expected_calibration_error(truth[off, k], scores[off, k]))
        after.append(expected_calibration_error(truth[off, k], curve(scores[off, k])))
    print(f"  calibration error {np.mean(before):.3f}, after Platt {np.mean(after):.3f}")
    return {"before": float(np.mean(before)), "after": float(np.mean(after))}


def promises(student: np.ndarray, teacher: np.ndarray, truth: np.ndarray, names: list[str]) -> list[dict[str, object]]:
    """The cascade student, teacher, people on dev labels: how often 200 random splits break the promise, and what of
    the labels is answered; with half of them to calibrate on, and by rules of all of them."""
    judges, rows = [Judge("student", student), Judge("teacher", teacher)], []
    for error in ("class", "answer"):
        for alpha in (0.1, 0.2, 0.3):
            config = RouteConfig(error=error, alpha=alpha)
            rules, silences = calibrate(judges, truth, names, config)
            says = route(judges, rules).says
            for drawn in (False, True):
                found = check_promise(judges, truth, names, config, drawn=drawn)
                row = {
                    "error": error,
                    "alpha": alpha,
                    "drawn": drawn,
                    "worst_share_broken": max(row["share"] for row in found),
                    "limit": found[0]["limit"],
                    "answered_by_half": float(np.mean([row["answered"] for row in found])),
                    "answered_by_all": float((~np.isnan(says)).mean()),
                    "missed_yes": float(((says == 0) & (truth == 1)).sum() / (truth == 1).sum()),
                    "silences": len(silences),
                }
                rows.append(row)
                print(" ", row)
    return rows


def timed(encoder: MiniLMEncoder, texts: Sequence[str]) -> float:
    begun = time.perf_counter()
    encoder.encode(texts)
    return (time.perf_counter() - begun) / len(texts)


def speeds(data: Dataset, attributes: Sequence[Attribute], vectors: np.ndarray, blocks: list, llm_rate: float) -> dict:
    """Items a second: the student on vectors, with the text's encoding, and the small LLM."""
    rng, encoder = np.random.default_rng(0), MiniLMEncoder()
    texts = [item_text(data, int(num)) for num in rng.permutation(data.n_items)[:320]]
    encoder.encode(texts[:16])
    encoding = float(np.median([timed(encoder, texts[at : at + 32]) for at in range(0, len(texts), 32)]))
    features = side_by_side([vectors, *blocks])
    model = Student()
    model.weights, model.bias = np.ones((len(attributes), features.shape[1])), np.zeros(len(attributes))
    each = float(np.median([seconds_to_predict(model, features) for _ in range(5)]))
    found = {"student": 1 / each, "student and encoder": 1 / (each + encoding), "llm": llm_rate}
    for name, rate in found.items():
        print(f"{name}: {rate:,.1f} items/s, {rate / llm_rate:,.0f} times the LLM's")
    return found | {f"{name} / llm": rate / llm_rate for name, rate in found.items()}


def llm_rate(engine: LlamaEngine, data: Dataset, items: np.ndarray, attributes: Sequence[Attribute]) -> float:
    """Items a second, all attributes each: of the median item. No ledger, so that nothing is remembered."""
    requests = [question.request for question in questions(data, items, attributes)]
    list(engine.ask(ListedWork(requests[:1])))  # loads the model
    seconds = np.zeros(len(requests))
    for batch in engine.ask(ListedWork(requests)):
        for number, answer in batch:
            seconds[number] = answer.seconds
    return 1 / float(np.median(seconds.reshape(len(items), len(attributes)).sum(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm-items", type=int, default=200)
    parser.add_argument("--speeds", action="store_true")
    args = parser.parse_args()
    data, attributes = load("movielens-small"), load_attributes(ROOT / "examples" / "movielens" / "attributes")
    names, ids = [attribute.name for attribute in attributes], data.item_ids
    truth, dev = truth_of(data, attributes)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    recorded = read_recorded(SHARED / "movielens-small" / "answers", "claude")["label"]
    taught = {*recorded["entity"]}
    wanted = [n for n, i in enumerate(ids) if i in taught or not np.isnan(truth[n]).any()]
    vectors = np.zeros((data.n_items, 384), dtype=np.float32)
    if args.speeds:
        engine, every = LlamaEngine(), list(item_blocks(split_global_time(data).train, BLOCKS))
        rate = llm_rate(engine, data, np.array(wanted[:TIMED], dtype=np.int32), attributes)
        speeds(data, attributes, vectors[wanted], [block[wanted] for block in every], rate)
        engine.close()
        return
    vectors[wanted] = MiniLMEncoder().encode([item_text(data, n) for n in wanted])
    categories, company, taste = item_blocks(split_global_time(data).train, BLOCKS)
    blocks = {
        "text alone": [],
        "text, categories": [categories],
        "text, company, taste": [company, taste],
        "all blocks": [categories, company, taste],
    }
    material = (ids, names, vectors, truth, dev)
    found: dict[str, object] = {"recorded": study(recorded, "claude, recorded", material, blocks)}
    asked = [n for n in wanted if ids[n] in taught and not np.isnan(truth[n]).any()]
    asked = np.random.default_rng(0).permutation(asked)[: args.llm_items].astype(np.int32)
    engine, ledger = LlamaEngine(), Ledger(results / "student.sqlite")
    llm = LedgeredLLM(engine, ledger)
    labels = annotate(data, asked, attributes, llm)
    found["small"] = study(labels, llm.model, material, blocks)
    rate = llm_rate(engine, data, asked[:TIMED], attributes)
    found["speeds"] = speeds(data, attributes, vectors[wanted], [b[wanted] for b in blocks["all blocks"]], rate)
    engine.close()
    (results / "student.json").write_text(json.dumps({**found, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
