"""Every metric of people against loops over a log of everything at once."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from planted_log import END, ITEMS, START, experiment, planted_tables

from palate.experiments.effects import effects_on
from palate.experiments.explore_measures import gini
from palate.experiments.gather import gather
from palate.experiments.log import Log, log_of, microseconds
from palate.experiments.metrics import METRICS, metric_named

DAY = 86_400_000_000
TYPES = ("click", "play", "like", "rating", "skip", "purchase", "cart")
RNG = np.random.default_rng(0)
CLUSTERS, CREATORS = RNG.integers(0, 9, ITEMS), RNG.integers(0, 6, ITEMS)
VECTORS = RNG.normal(size=(ITEMS, 3))
DEFINED = {
    "watched": {"of": ["play"], "take": "value", "winsorise": 0.9},
    "long_plays": {"of": ["play"], "at_least": 0.5, "days": 3},
    "middle": {"of": ["play", "click"], "quantile": 0.5},
}
ALL = [*METRICS, "uci@2", *DEFINED]


@pytest.fixture(scope="module")
def log() -> Log:
    shown, done = planted_tables({"control": 0.5, "more": 0.5}, 120, 3, seed=3, history=4)
    rng = np.random.default_rng(1)
    done = done.with_columns(
        event_type=pl.Series(rng.choice(TYPES, done.height)), value=pl.Series(rng.uniform(0, 5, done.height))
    ).with_columns(value=pl.when(pl.col("event_type") == "play").then(pl.col("value") / 5).otherwise(pl.col("value")))
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "cluster": CLUSTERS,
            "creator": [f"c{n}" for n in CREATORS],
            "vector": VECTORS.tolist(),
        }
    )
    return log_of(shown, done, items)


@pytest.fixture(scope="module")
def gathered(log):
    return gather(log, declared())


def declared():
    return experiment(primary="click_rate", metrics=[name for name in ALL if name != "click_rate"], define=DEFINED)


@pytest.fixture(scope="module")
def people(log: Log) -> dict[str, dict]:
    """user_id to variant, exposed, shown rows and events, in time."""
    found: dict[str, dict] = defaultdict(lambda: {"shown": [], "done": [], "before": []})
    for row in log.impressions.sort("timestamp").collect().iter_rows(named=True):
        person = found[row["user_id"]]
        person.setdefault("exposed", row["timestamp"])
        person["variant"] = row["variant"].split(":")[1]
        person["shown"].append(row)
    for row in log.events.sort("timestamp").collect().iter_rows(named=True):
        person = found[row["user_id"]]
        if "exposed" in person:
            person["done" if row["timestamp"] >= person["exposed"] else "before"].append(row)
    return {name: person for name, person in found.items() if "exposed" in person}


def number(item_id: str) -> int:
    return int(item_id[1:])


def within(person: dict, days: float) -> list[dict]:
    return [
        row
        for row in person["done"]
        if not days or (row["timestamp"] - person["exposed"]).total_seconds() < days * 86_400
    ]


def clusters(rows: list[dict]) -> set[int]:
    return {int(CLUSTERS[number(row["item_id"])]) for row in rows if row["event_type"] not in ("skip", "cart")}


def liked(row: dict) -> bool:
    return row["event_type"] in ("like", "purchase", "cart") or (row["event_type"] == "rating" and row["value"] >= 4)


def distances(person: dict) -> list[float]:
    slates = defaultdict(list)
    for row in person["shown"]:
        slates[row["request_id"]].append(VECTORS[number(row["item_id"])])
    unit = [[v / np.linalg.norm(v) for v in slate] for slate in slates.values()]
    return [float(np.mean([1 - a @ b for a, b in combinations(slate, 2)])) for slate in unit]


def counted(person: dict, *types: str) -> int:
    return sum(row["event_type"] in types for row in person["done"])


def by_hand(name: str, person: dict) -> tuple[float, float]:
    """Above and below the line."""
    done, shown = person["done"], len(person["shown"])
    consumed = [row for row in done if row["event_type"] not in ("skip", "cart")]
    plays = [row["value"] for row in done if row["event_type"] == "play"]
    met = clusters(person["before"])
    seen = [(row["timestamp"] - person["exposed"]).total_seconds() / 86_400 for row in [*person["shown"], *done]]
    return {
        "click_rate": (counted(person, "click"), shown),
        "completion_rate": (sum(value >= 0.9 for value in plays), len(plays)),
        "positive_rate": (sum(map(liked, done)), shown),
        "negative_rate": (counted(person, "skip"), shown),
        "events_per_user": (len(consumed), 1),
        "novel_impression_ratio": (
            sum(int(CLUSTERS[number(row["item_id"])]) not in met for row in person["shown"]),
            shown,
        ),
        "interests_per_user": (len(clusters(done)), 1),
        "return_rate": (float(any(1 <= at < 8 for at in seen)), 1),
        "intra_list_distance": (sum(distances(person)), len(distances(person))),
        "uci@2": (float(len(clusters(within(person, 7))) >= 2), 1),
        "watched": (sum(plays), 1),
        "long_plays": (sum(r["event_type"] == "play" and r["value"] >= 0.5 for r in within(person, 3)), 1),
    }[name]


@pytest.mark.parametrize(
    "name", [name for name in ALL if name != "middle" and metric_named(name, declared().define).whole is None]
)
def test_a_metric_is_what_its_words_say(name, people, gathered):
    metric = declared().metric(name)
    last = max(max(row["timestamp"] for row in person["shown"] + person["done"]) for person in people.values())
    long_enough = {
        each: person
        for each, person in people.items()
        if (last - person["exposed"]).total_seconds() >= metric.days * 86_400
    }
    figures = {}
    for variant in ("control", "more"):
        own = [by_hand(name, person) for person in long_enough.values() if person["variant"] == variant]
        above, below = np.array(own, dtype=float).T
        if name in ("watched", "events_per_user"):
            everybody = [by_hand(name, person)[0] for person in long_enough.values()]
            above = np.minimum(above, np.quantile(everybody, metric.winsorise))
        figures[variant] = (above.sum() / below.sum(), len(own))
    (found,) = effects_on(metric, "metric", gathered, declared())
    assert (found.treated, found.control) == pytest.approx((figures["more"][0], figures["control"][0]), rel=1e-9)
    assert (found.n_treated, found.n_control) == (figures["more"][1], figures["control"][1])


def test_a_quantile_is_one_over_people(people, gathered):
    (found,) = effects_on(declared().metric("middle"), "metric", gathered, declared())
    values = sorted(counted(each, "play", "click") for each in people.values() if each["variant"] == "more")
    assert found.treated == values[len(values) // 2]


@pytest.mark.parametrize("name", ["coverage", "gini", "creator_exposure", "creator_gini"])
def test_a_whole_is_a_statistic_of_groups_that_share_out_all_impressions(name, log, gathered):
    metric = declared().metric(name)
    (found,) = effects_on(metric, "metric", gathered, declared())
    counts = gathered.wholes[metric.whole.of]
    assert counts["n"].sum() == log.impressions.select(pl.len()).collect().item()
    size = ITEMS if metric.whole.of == "item" else len(set(CREATORS))
    figures = []
    for (_, _), part in counts.filter(pl.col("variant") == 1).group_by("variant", "group"):
        shown = np.zeros(size)
        shown[: part.height] = part["n"].to_numpy()
        figures.append(gini(shown) if "gini" in name else (shown > 0).mean())
    assert found.treated == pytest.approx(np.mean(figures))


def test_days_weekdays_and_dates_add_up(gathered):
    cells = gathered.cells.filter(pl.col("variant") == 1)
    last = cells.filter(pl.col("table") == "date").sort("key").row(-1, named=True)
    (found,) = effects_on(declared().metric("click_rate"), "primary", gathered, declared())
    assert last["x"] / last["y"] == pytest.approx(found.treated) and last["n"] == found.n_treated
    own = gathered.people.filter(pl.col("variant") == 1)
    x, y = own["click_rate.x"].to_numpy(), own["click_rate.y"].to_numpy()
    assert (last["xx"], last["xy"], last["yy"]) == pytest.approx((x @ x, x @ y, y @ y))
    weekdays = cells.filter(pl.col("table") == "weekday")
    assert (weekdays["x"].sum(), weekdays["y"].sum()) == (x.sum(), y.sum())
    days = cells.filter(pl.col("table") == "day")
    observed = (gathered.seen.last - own["exposed"].to_numpy()) // DAY
    assert {row["key"]: row["n"] for row in days.iter_rows(named=True)} == {
        day: (observed > day).sum() for day in range(observed.max())
    }


def test_of_what_the_log_lacks_the_reason_is_given(log):
    bare = gather(log_of(log.impressions, log.events.filter(pl.col("event_type") == "click")), declared())
    missing = {name: effects_on(declared().metric(name), "metric", bare, declared())[0].missing for name in ALL}
    assert "cluster" in missing["uci@2"] and "creator" in missing["creator_gini"]
    assert "vector" in missing["intra_list_distance"] and "skip or hide or dislike" in missing["negative_rate"]
    assert missing["click_rate"] == missing["coverage"] == ""


def test_times(log):
    assert microseconds(START) < gather(log, declared()).seen.last <= microseconds(END)
