"""What a project remembers between visits to its catalogue: items seen, labels asked since, the trickle."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from palate.data.dataset import TIMESTAMP
from palate.errors import InputError
from palate.knowledge.fresh import (
    CATALOGUE,
    TRICKLE,
    Schema,
    ask_due,
    compared,
    disagreed,
    due,
    sample_trickle,
    share_threshold,
    visit,
)
from palate.knowledge.matrix import label_matrix
from palate.knowledge.store import KnowledgeStore, in_schema, write_parquet
from palate.knowledge.tables import SCHEMA
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.llm.request import LLM
from palate.project.progress import Bars
from palate.project.project import Project
from palate.project.steps import file_digest

_TRICKLE: Schema = {**TRICKLE, "batch": pl.Int64, "at": TIMESTAMP}


class Visits:
    """The folder `.palate/fresh` of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.folder = project.state / "fresh"
        self._store = KnowledgeStore(self.folder / "knowledge")

    @cached_property
    def catalogue(self) -> pl.DataFrame | None:
        """As the last visit left it, in `CATALOGUE`."""
        path = self.folder / "catalogue.parquet"
        return pl.read_parquet(path).select(list(CATALOGUE)) if path.exists() else None

    @property
    def labels(self) -> pl.DataFrame:
        """All that the project's LLM was asked about items, oldest first: by `palate annotate`, then by visits."""
        parts = [pl.read_parquet(path) for path in self._made("annotate-*/label.parquet")]
        rows = pl.concat([*(in_schema("label", part) for part in parts), self._store.load().table("label")])
        return rows.filter((pl.col("model") == self.project.engine.model) & (pl.col("source") == "llm"))

    @property
    def _manner(self) -> dict[str, Any]:
        """As `palate annotate` puts its questions, but without examples: what is like a new item is not known yet."""
        config = self.project.config.annotate.model_copy(update={"examples": 0})
        return {"config": config, "salt": self.project.salt}

    @property
    def key(self) -> str:
        """Hash of what visits asked about items."""
        return self._key("label")

    @property
    def profiles_key(self) -> str:
        """Hash of what visits asked about users."""
        return self._key("profile")

    def _key(self, kind: str) -> str:
        folder = self._store.folder / kind
        return file_digest(folder) if folder.exists() else ""

    @property
    def profiles(self) -> pl.DataFrame:
        """All versions of what visits asked about users, oldest first."""
        return self._store.load().table("profile")

    def keep_profiles(self, rows: pl.DataFrame) -> None:
        """Keep new versions; earlier ones stay."""
        if not rows.is_empty():
            self._store.add("profile", rows)

    def holding(self) -> pl.DataFrame:
        """Label rows that visits asked for and that still hold: of today's texts, wordings and model."""
        project = self.project
        rows = self._store.load().table("label").filter(pl.col("model") == project.engine.model)
        rows = rows.unique(["entity", "name"], keep="last", maintain_order=True)
        versions = {attribute.name: attribute.version for attribute in project.attributes}
        hashes = dict(visit(project.dataset, None, _now()).select("item_id", "content_hash").iter_rows())
        holds = [
            versions.get(name) == version and hashes.get(entity) == hashed
            for entity, name, version, hashed in rows.select("entity", "name", "version", "content_hash").iter_rows()
        ]
        return rows.filter(pl.Series(holds, dtype=pl.Boolean))

    @cached_property
    def student(self) -> pl.DataFrame:
        """Labels of the LLM's student on every item that there was when it was taught; empty without one."""
        paths = self._made("distil-*/annotate.parquet")
        return pl.read_parquet(paths[-1]) if paths else pl.DataFrame(schema=SCHEMA)

    @cached_property
    def trickle(self) -> pl.DataFrame:
        """Rows in `TRICKLE` with batch and time, in the order in which they were asked."""
        path = self.folder / "trickle.parquet"
        return pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=_TRICKLE)

    def due(self) -> pl.DataFrame:
        """What must be asked now (see `palate.knowledge.fresh.due`)."""
        return due(self.project.dataset, self.project.attributes, self.labels, self.catalogue)

    def refresh(self, what: pl.DataFrame, llm: LLM) -> pl.DataFrame:
        """Ask what is due and keep the labels, then the catalogue. An item that was not answered stays due."""
        rows = self.ask(what, llm)
        self.remember(what, rows)
        return rows

    def ask(self, what: pl.DataFrame, llm: LLM) -> pl.DataFrame:
        """Ask and keep the labels. What was due and is not asked stays due until `remember`."""
        project = self.project
        rows = ask_due(what, project.dataset, project.attributes, llm, **self._manner)
        if not rows.is_empty():
            self._store.add("label", rows.with_columns(as_of=pl.lit(_now(), dtype=TIMESTAMP)))
        return rows

    def remember(self, what: pl.DataFrame, rows: pl.DataFrame) -> None:
        """What was due, and what of it was answered: the catalogue is as it is now but for new items left over."""
        project = self.project
        answered = set() if rows.is_empty() else set(rows.select("entity", "name").iter_rows())
        left = {i for i, name, why in what.iter_rows() if why == "new" and (i, name) not in answered}
        now = visit(project.dataset, self.catalogue, _now()).filter(~pl.col("item_id").is_in(list(left)))
        write_parquet(now.select(list(CATALOGUE)), self.folder / "catalogue.parquet")
        self.catalogue = now

    def ask_trickle(self, n: int, bars: Bars) -> pl.DataFrame:
        """Ask anew, past the ledger, about `n` items that the student labelled. Returns and keeps the rows.

        A batch has a ledger of its own: one that was stopped goes on where it was.

        Raises:
            InputError: There is no student.
        """
        if self.student.is_empty():
            raise InputError("There is no student to compare with.", hint="Run palate annotate and palate distill.")
        project, batch = self.project, int(self.trickle["batch"].n_unique())
        items = sample_trickle(project.dataset, self.student, n, seed=batch)
        ledger = Ledger(self.folder / f"trickle-{batch}.sqlite")
        try:
            llm = LedgeredLLM(project.engine, ledger, project.budget, bars.bar("trickle", "questions"))
            named = pl.DataFrame({"item_id": [project.dataset.item_ids[num] for num in items]})
            names = pl.DataFrame({"name": [attribute.name for attribute in project.attributes]})
            asked = named.join(names, how="cross")
            answers = ask_due(asked, project.dataset, project.attributes, llm, **self._manner)
        finally:
            ledger.close()
        rows = compared(answers, self.student).with_columns(batch=pl.lit(batch, pl.Int64), at=pl.lit(_now(), TIMESTAMP))
        self.trickle = pl.concat([self.trickle, rows.select(list(_TRICKLE))])
        write_parquet(self.trickle, self.folder / "trickle.parquet")
        return rows

    @property
    def history(self) -> pl.DataFrame:
        """What LLM and student said of the items that the LLM was asked about before, in `TRICKLE`."""
        return compared(self.labels, self.student)

    def check_column(self, by: str) -> None:
        """Raises `InputError` where items have no column `by`."""
        columns = self.project.dataset.items.columns
        if by not in columns:
            raise InputError("Items have no such column.", where="--by", got=by, allowed=", ".join(columns))

    def hits(self, by: str, since: datetime | None = None) -> pl.DataFrame:
        """Rows for `creator_jumps`: labels (the student's where it knows the item, else the LLM's) and disagreements.

        Args:
            by: The column of items that names the creator; of a list, each.
            since: Items whose content was first seen later are recent; None: later than the first visit.

        Raises:
            InputError: An unknown column, or no visit yet.
        """
        self.check_column(by)
        if self.catalogue is None:
            raise InputError("The catalogue was never visited.", hint="Run palate annotate fresh first.")
        first = since or self.catalogue["since"].min()
        recent = self.catalogue.select("item_id", recent=pl.col("since") > first)
        groups = self.project.dataset.items.select("item_id", group=pl.col(by))
        if isinstance(groups.schema["group"], pl.List):
            groups = groups.explode("group")
        said = pl.concat([self._positive(recent), self._apart()])
        return said.join(groups, on="item_id").join(recent, on="item_id").with_columns(pl.col("group").cast(pl.String))

    def _positive(self, recent: pl.DataFrame) -> pl.DataFrame:
        """item_id, name, hit: whether a label says yes, at each source's own threshold on the items of before."""
        ids = recent["item_id"].to_list()
        old = ~recent["recent"].to_numpy()
        names = [attribute.name for attribute in self.project.attributes]
        sources = [label_matrix(rows, ids, names) for rows in (self.student, self.labels)]
        parts = []
        for column, name in enumerate(names):
            hit = np.full(len(ids), np.nan)
            for values in (matrix[:, column] for matrix in sources):
                known = ~np.isnan(values)
                if (known & old).any():
                    verdict = (values >= share_threshold(values[known & old])).astype(np.float64)
                    hit = np.where(np.isnan(hit) & known, verdict, hit)
            parts.append(pl.DataFrame({"item_id": ids, "name": name, "hit": hit}).filter(pl.col("hit").is_not_nan()))
        return pl.concat(parts).with_columns(pl.col("hit") == 1)

    def _apart(self) -> pl.DataFrame:
        found = disagreed(self.history, pl.concat([self.history, self.trickle.select(list(TRICKLE))]))
        return found.with_columns(pl.col("name") + " (student against LLM)")

    def _made(self, pattern: str) -> list[Path]:
        """Files of finished steps, oldest first."""
        return sorted((self.project.state / "steps").glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def _now() -> datetime:
    return datetime.now(UTC)
