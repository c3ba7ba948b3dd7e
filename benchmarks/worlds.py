"""How fast a world lives: 10,000 people, 30 days, beside a plain loop over people and places of the same model.

    python benchmarks/worlds.py [--people 10000] [--days 30] [--items 5000] [--policies popularity content ...]

A policy is named as in `palate.experiments.worlds.lineup`; explorers have SASRec behind them unless `--ranker content`.
The bar is 180 seconds on two cores. The loop answers `--loop` slates one place after the other in Python, as simulators
of one agent at a time do, with the same chances (checked here); the ratio is of seconds a slate, policies left out.
Writes `benchmarks/results/worlds.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts

from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.crowd import Crowd, Shown
from palate.experiments.worlds.lineup import LLM, POPULAR, SEQUENCE, Trial, policy_of
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.world import SyntheticWorld, World

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--policies", nargs="+", default=[POPULAR, "content", SEQUENCE, LLM])
    parser.add_argument("--ranker", default=SEQUENCE)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--loop", type=int, default=300)
    given = parser.parse_args()
    begun = time.perf_counter()
    config = WorldConfig(people=given.people, items=given.items)
    world = SyntheticWorld(config, 0, given.days)
    world.catalogue  # noqa: B018  cut once, shared by all policies
    found: dict[str, Any] = {
        "world_seconds": round(time.perf_counter() - begun, 2),
        "loop": beside_loop(world, given.loop),
    }
    print(json.dumps(found))
    found["policies"] = {}
    for name in given.policies:
        trial = Trial("benchmark", config, 0, given.days, name, every=given.every, ranker=given.ranker)
        found["policies"][name] = lived(world, trial)
        print(name, json.dumps(found["policies"][name]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    facts = {"arguments": vars(given), "machine": machine_facts()}
    (RESULTS / "worlds.json").write_text(json.dumps({**found, **facts}, indent=1) + "\n")


def lived(world: World, trial: Trial) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    run = simulate(world, policy_of(trial, world))
    seconds = time.perf_counter() - wall
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "slates": run.total("sessions"),
        "impressions": run.total("impressions"),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def beside_loop(world: World, n: int) -> dict[str, float]:
    """Processor seconds a slate, of arrays over everybody and of a loop; the chances must agree."""
    crowd, rng = world.crowd(), np.random.default_rng(0)
    people = np.arange(world.config.people, dtype=np.int32)
    items = rng.integers(0, int(world.catalogue.sizes[0]), (len(people), world.config.places), dtype=np.int32)
    begun = time.process_time()
    chances = crowd.chances(people[:n], items[:n], 0)[0]
    looked = crowd.looked(people, world.config.places, 0, 0)
    crowd.answer(Shown(people, items, looked, 0, 0))
    arrays = (time.process_time() - begun) / len(people)
    fresh = world.crowd()
    begun = time.process_time()
    plain = [[plain_chance(fresh, person, item) for item in items[person].tolist()] for person in range(n)]
    loop = (time.process_time() - begun) / n
    np.testing.assert_allclose(chances, plain, rtol=1e-4)
    return {
        "arrays_us_a_slate": round(1e6 * arrays, 2),
        "loop_us_a_slate": round(1e6 * loop, 2),
        "ratio": round(loop / arrays, 1),
    }


def plain_chance(crowd: Crowd, person: int, item: int) -> float:
    """The chance of `WorldConfig`, for one person and one item."""
    config, truth = crowd.config, crowd.truth
    main, other = truth.items.nearest[item].tolist()
    first, second = truth.items.weights.tolist()
    affinity = truth.people.affinity[person]
    logit = config.base + config.taste * (first * float(affinity[main]) + second * float(affinity[other]))
    logit += float(truth.items.appeal[item]) + float(truth.trend[0, item])
    logit -= config.satiation * float(crowd.sated[person, main])
    logit -= config.novelty_cost * 2 ** (-float(crowd.met[person, main]) / config.familiarity)
    if item in crowd.histories(np.array([person]))[0].tolist():
        logit -= config.repeat_cost
    return 1 / (1 + math.exp(-logit))


if __name__ == "__main__":
    main()
