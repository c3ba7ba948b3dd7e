"""A project's judges, cheapest first, with what each costs; who answers what; the queue for people."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.errors import InputError
from palate.knowledge import cost
from palate.knowledge.annotate import item_text, questions
from palate.knowledge.blocks import item_blocks, side_by_side
from palate.knowledge.golden import truth_matrix
from palate.knowledge.golden_queue import Pick
from palate.knowledge.matrix import label_matrix
from palate.knowledge.promise import check_promise, cost_curve
from palate.knowledge.route import PEOPLE, Judge, RouteConfig, calibrate, route, stage_rows
from palate.knowledge.store import in_schema, write_parquet
from palate.llm.plan import tokens_of
from palate.project.run import Run

_TEXTS = 64  # encoded to time the encoder
_PROMPTS = 50  # items whose prompts are counted for a model that was not asked here


@dataclass(frozen=True)
class Source:
    """A judge and what one item costs it."""

    judge: Judge
    way: cost.Way


class Routing:
    """What a run's judges may answer under a promise.

    Raises:
        InputError: People labelled nothing on the dev side.
    """

    def __init__(self, run: Run, config: RouteConfig) -> None:
        self.project, self.config = run.project, config
        self._run = run
        self.names = [attribute.name for attribute in run.project.attributes]
        self.truth = truth_matrix(run.project.golden.dev, run.project.dataset.item_ids, self.names)
        if np.isnan(self.truth).all():
            raise InputError(
                "No label of people is on the dev side, so no error can be promised.",
                where=str(run.project.path(run.project.config.golden)),
                got=f"{run.project.golden.n_locked} held-out labels, 0 dev labels",
                hint="Label more items: palate golden sample.",
            )
        self.judges = [source.judge for source in self.sources]
        self.rules, self.silences = calibrate(self.judges, self.truth, self.names, config)
        self.routed = route(self.judges, self.rules)

    @cached_property
    def sources(self) -> list[Source]:
        """The student of the strongest teacher, the model asked here, the recorded one; cheapest first."""
        run, n = self._run, len(self.names)
        teacher = run.teachers[0]
        model = run.project.engine.model
        files = [
            (f"student of {self._teacher()}", run.distil.folder / f"{teacher.name}.parquet", self.student_ways[0]),
            (model, run.annotate.folder / "label.parquet", self._asked_way()),
        ]
        if run.recorded is not None:
            name = str(run.recorded.detail["model"])
            files.append((f"{name}, recorded", run.recorded.folder / "label.parquet", self._recorded_way(name)))
        found = []
        for name, path, way in files:
            scores = label_matrix(pl.read_parquet(path), self.project.dataset.item_ids, self.names)
            found.append(Source(Judge(name, scores, (way.money or 0.0) / n), way))
        return found

    @cached_property
    def student_ways(self) -> tuple[cost.Way, cost.Way]:
        """With vectors at hand, and with the encoding; timed now."""
        dataset, rng = self.project.dataset, np.random.default_rng(0)
        vectors = np.load(self._run.vectors.folder / "vectors.npy")
        blocks = item_blocks(self.project.split.train, self.project.config.distil.blocks)
        features = side_by_side([vectors, *blocks])
        texts = [item_text(dataset, int(num)) for num in rng.permutation(dataset.n_items)[:_TEXTS]]
        return cost.student(self.project.encoder, texts, features, len(self.names), self.config.machine)

    @property
    def people(self) -> cost.Way:
        return cost.people(len(self.names), self.config.seconds, self.config.wage)

    def stages(self) -> list[dict[str, Any]]:
        """See `stage_rows`; errors are those on dev, which the rules were chosen on: `check` gives fair ones."""
        price = (self.people.money or 0.0) / len(self.names)
        return stage_rows(self.judges, self.rules, self.routed, self.truth, self.names, price)

    def costs(self) -> list[dict[str, Any]]:
        """A million items by each route: see `cost.per_million`."""
        ways = [source.way for source in self.sources]
        total = [row for row in self.stages() if row["attribute"] == "all"]
        labels = self.routed.takes.size
        reached = [row["reached"] / labels for row in total]
        together = cost.cascade([*ways, self.people], reached)
        return cost.per_million([*self.student_ways, *ways[1:], together, self.people])

    def check(self, splits: int) -> list[dict[str, Any]]:
        return check_promise(self.judges, self.truth, self.names, self.config, splits)

    def curve(self) -> list[dict[str, Any]]:
        price = (self.people.money or 0.0) / len(self.names)
        return cost_curve(self.judges, self.truth, self.names, self.config, price)

    def keep(self) -> Path:
        """`.palate/routed.parquet`: what the judges answered, 1 or 0, under the name of who said it."""
        items, columns = np.nonzero(self.routed.takes != PEOPLE)
        ids, who = self.project.dataset.item_ids, self.routed.takes[items, columns]
        rows = pl.DataFrame(
            {
                "entity": [ids[item] for item in items],
                "name": [self.names[column] for column in columns],
                "value": self.routed.says[items, columns],
                "model": [self.judges[number].name for number in who],
            }
        )
        path = self.project.state / "routed.parquet"
        write_parquet(in_schema("label", rows.with_columns(source=pl.lit("route"))), path)
        return path

    def queue(self, limit: int) -> list[Pick]:
        """Labels that only people may give, of the items most met first; those they gave already are left out."""
        dataset, labelled = self.project.dataset, self.project.golden.judged
        open_ = (self.routed.takes == PEOPLE) & (self.routed.waits < 0)
        open_[[item_id in labelled for item_id in dataset.item_ids]] = False
        found: list[Pick] = []
        for item in np.argsort(-dataset.item_counts, kind="stable"):
            for column in np.flatnonzero(open_[item]):
                if len(found) == limit:
                    return found
                why = self._why(int(item), int(column))
                found.append(Pick(dataset.item_ids[item], why, attribute=self.names[column]))
        return found

    def _why(self, item: int, column: int) -> str:
        unsure = [
            f"{judge.name} {judge.scores[item, column]:.2f}, yes from {rule.yes:.2f}, no to {rule.no:.2f}"
            for judge, rule in zip(self.judges, self.rules[column], strict=True)
            if not rule.silent
        ]
        return "unsure: " + "; ".join(unsure) if unsure else f"no judge may answer {self.names[column]}"

    def _teacher(self) -> str:
        teacher = self._run.teachers[0]
        return str(teacher.detail["model"]) if teacher.name == "recorded" else self.project.engine.model

    def _asked_way(self) -> cost.Way:
        model, section = self.project.engine.model, self.project.config.llm
        local = section.engine != "openai"
        prices = self.project.prices(model) if model in section.prices else None
        totals = [row for row in self.project.ledger.totals() if row["purpose"] == "annotate"]
        hourly = self.config.machine if local else None
        return cost.asked(totals, model, len(self.names), prices, hourly) or cost.Way(model, basis="never asked here")

    def _recorded_way(self, model: str) -> cost.Way:
        """Recorded answers carry no tokens: those that this project's questions would take, and one to answer."""
        dataset, prices = self.project.dataset, self.project.config.llm.prices
        sample = np.random.default_rng(0).permutation(dataset.n_items)[:_PROMPTS].astype(np.int32)
        config, salt = self.project.config.annotate, self.project.salt
        put = questions(dataset, sample, self.project.attributes, config=config, salt=salt)
        asked = [question.request for question in put]
        read = sum(map(tokens_of, asked)) / max(len(sample), 1)
        basis = "tokens estimated from this project's questions" + (
            "" if model in prices else "; no price in llm.prices"
        )
        known = self.project.prices(model) if model in prices else None
        return cost.Way(model, tokens_in=read, tokens_out=float(len(self.names)), prices=known, basis=basis)
