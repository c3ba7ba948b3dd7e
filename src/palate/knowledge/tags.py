"""Tags of items by a language model: free, guided by a handbook with evidence, or chosen among its values.

TagLLM's guided extraction (Chen et al. 2026, arXiv 2603.21481) on text. A model too small to write well is asked
closed questions instead: which of a dimension's canonical values fits, or whether each of the nearest does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.errors import InputError
from palate.knowledge.annotate import content_hash, item_text
from palate.knowledge.handbook import Dimension, Handbook
from palate.knowledge.store import in_schema
from palate.knowledge.tables import SCHEMA
from palate.knowledge.tag_prompts import (
    fits_request,
    guided_request,
    occurs,
    pick_request,
    plain_request,
    plain_tag,
    read_plain,
)
from palate.llm.encoders import Encoder
from palate.llm.request import LLM, Answer, Request

Route = Literal["plain", "guided", "pick", "choose"]
MAX_TEXT = 280  # characters of an item that are shown: a tag rests on its first sentences
_CANDIDATES = 10  # values of the handbook that are asked about, by nearness to the item
_NOTHING = "N/A"
Row = dict[str, Any]


@dataclass(frozen=True)
class Extraction:
    """Tag rows, and what became of the rest.

    `unverified`: tags whose evidence does not occur in the item, dropped. `repeated`: tags said twice of an item, too
    long or empty. `unread`: answers that could not be had or read. `without_text`: items with nothing to show, by id.
    `tokens`: read and written, kept answers counted as what they once took.
    """

    rows: pl.DataFrame
    asked: int
    unread: int
    unverified: int
    repeated: int
    without_text: tuple[str, ...]
    tokens: int


def tag_text(dataset: Dataset, item_num: int) -> str:
    """What is shown of an item: the beginning of `item_text`; empty where it has neither title nor text."""
    row = dataset.items.row(item_num, named=True)
    return item_text(dataset, item_num)[:MAX_TEXT] if (row["title"] or "").strip() or row["text"] else ""


def extract(
    dataset: Dataset,
    items: IntArray,
    llm: LLM,
    route: Route = "plain",
    n: int = 5,
    handbook: Handbook | None = None,
    encoder: Encoder | None = None,
) -> Extraction:
    """At most `n` tags for each of `items` (item_nums), none of them canonical yet (`palate.knowledge.canonical`).

    Args:
        route: plain: a line of tags, no handbook. guided: a walk over the item's dimensions, each tag with words of the
            item as evidence (JSON Schema). pick: of each dimension the value that fits best, or none, held to the
            list. choose: Yes or No to the values nearest to the item, against the same question about nothing.
        handbook: Needed by all routes but plain; `encoder` by choose.

    Raises:
        InputError: A route lacks what it needs, or the handbook is empty.
    """
    if route != "plain" and (handbook is None or not handbook.values):
        raise InputError(
            "Guided tags need a handbook with dimensions.",
            got="none" if handbook is None else "an empty one: " + " ".join(handbook.notes),
            hint="Use the route plain, or write dimensions into handbook.yaml.",
        )
    if route == "choose" and encoder is None:
        raise InputError("The route choose needs an encoder.")
    texts = {int(num): tag_text(dataset, int(num)) for num in items}
    shown = {num: text for num, text in texts.items() if text.strip()}
    work = _Work(dataset, shown, llm, n, handbook or Handbook(), encoder)
    getattr(work, route)()
    rows = pl.DataFrame(work.rows, infer_schema_length=None) if work.rows else pl.DataFrame(schema=SCHEMA)
    empty = tuple(dataset.item_ids[num] for num in texts if num not in shown)
    return Extraction(
        in_schema("tag", rows), work.asked, work.unread, work.unverified, work.repeated, empty, work.tokens
    )


def nearest_values(
    texts: Sequence[str], values: Sequence[str], encoder: Encoder, n: int
) -> list[list[tuple[str, float]]]:
    """For each text the `n` values whose sentence vectors are nearest, with their cosines: what needs no LLM.

    A value's cosines are centred over the texts, so that one which is near to everything is near to nothing.
    """
    if not len(texts):
        return []
    cosines = encoder.encode(list(texts)) @ encoder.encode(list(values)).T
    cosines = cosines - cosines.mean(axis=0, keepdims=True)
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
    return [[(values[i], float(row[i])) for i in found] for row, found in zip(cosines, best.tolist(), strict=True)]


class _Work:
    """The questions of one extraction and what is kept of the answers."""

    def __init__(
        self,
        dataset: Dataset,
        texts: dict[int, str],
        llm: LLM,
        n: int,
        handbook: Handbook,
        encoder: Encoder | None,
    ) -> None:
        self.dataset, self.texts, self.llm, self.n = dataset, texts, llm, n
        self.handbook, self.encoder = handbook, encoder
        self.categories = dataset.items["categories"].to_list()
        self.rows: list[Row] = []
        self.said: dict[int, set[str]] = {num: set() for num in texts}
        self.asked = self.unread = self.unverified = self.repeated = self.tokens = 0

    def plain(self) -> None:
        requests = [plain_request(text, self._id(num), self.n) for num, text in self.texts.items()]
        for num, request, answer in self._answers(list(self.texts), requests):
            tags, dropped = read_plain(answer.text, self.n)
            self.repeated += dropped
            for tag in tags:
                self._keep(num, request, "tag", tag, None, None, answer, len(tags))

    def guided(self) -> None:
        nums = [num for num in self.texts if self._dimensions(num)]
        requests = []
        for num in nums:
            dimensions = self._dimensions(num)
            guide = "\n".join(f"- {d.name}: {', '.join(d.values[:5])}" for d in dimensions)
            names = [d.name for d in dimensions]
            requests.append(guided_request(self.texts[num], self._id(num), guide, names, self.n))
        for num, request, answer in self._answers(nums, requests):
            said = answer.value["tags"]
            for entry in said:
                tag = plain_tag(entry["tag"])
                if not occurs(entry["evidence"], self.texts[num]):
                    self.unverified += 1
                elif tag:
                    self._keep(num, request, entry["dimension"], tag, entry["evidence"], None, answer, len(said))

    def pick(self) -> None:
        asked = [(num, d) for num in self.texts for d in self._dimensions(num)]
        requests = [pick_request(self.texts[num], self._id(num), d.name, d.values) for num, d in asked]
        for (num, dimension), request, answer in self._answers(asked, requests):
            if answer.value != "none" and len(self.said[num]) < self.n:
                self._keep(num, request, dimension.name, answer.value, None, None, answer, 1)

    def choose(self) -> None:
        assert self.encoder is not None
        values = self.handbook.values
        home = {value: d.name for section in self.handbook.sections for d in section.dimensions for value in d.values}
        near = nearest_values(list(self.texts.values()), values, self.encoder, _CANDIDATES)
        from scipy.special import expit

        asked = [(num, value) for num, found in zip(self.texts, near, strict=True) for value, _ in found]
        used = sorted({value for _, value in asked})
        empty = self._yes([fits_request(_NOTHING, "", home[value], value) for value in used])
        usual = dict(zip(used, empty.tolist(), strict=True))
        requests = [fits_request(self.texts[num], self._id(num), home[value], value) for num, value in asked]
        surplus = self._yes(requests) - np.array([usual[value] for _, value in asked])
        self.unread += int(np.isnan(surplus).sum())
        for at in np.argsort(-np.nan_to_num(surplus, nan=-np.inf), kind="stable").tolist():
            num, value = asked[at]
            if not np.isnan(surplus[at]) and len(self.said[num]) < self.n:
                confidence = float(expit(surplus[at]))
                self._keep(num, requests[at], home[value], value, None, confidence, None, 1)

    def _yes(self, requests: list[Request]) -> FloatArray:
        """Log-odds of Yes, [n_requests]; NaN where there is no answer."""
        self.asked += len(requests)
        answers = self.llm.generate(requests)
        self.tokens += sum(answer.tokens_in + answer.tokens_out for answer in answers)
        shares = np.array([a.probabilities or (np.nan, np.nan) for a in answers]).reshape(-1, 2)
        return np.asarray(np.diff(-np.log(np.clip(shares, 1e-6, 1 - 1e-6)), axis=1)[:, 0])

    def _answers(self, keys: Sequence[Any], requests: list[Request]) -> list[tuple[Any, Request, Answer]]:
        self.asked += len(requests)
        answers = self.llm.generate(requests)
        self.tokens += sum(answer.tokens_in + answer.tokens_out for answer in answers)
        self.unread += sum(answer.error is not None for answer in answers)
        return [(k, r, a) for k, r, a in zip(keys, requests, answers, strict=True) if a.error is None]

    def _dimensions(self, num: int) -> list[Dimension]:
        return self.handbook.of(self.categories[num] or [])

    def _id(self, num: int) -> str:
        return self.dataset.item_ids[num]

    def _keep(
        self,
        num: int,
        request: Request,
        dimension: str,
        tag: str,
        evidence: str | None,
        confidence: float | None,
        answer: Answer | None,
        among: int,
    ) -> None:
        text = self.texts[num]
        if tag in self.said[num]:
            self.repeated += 1
            return
        self.said[num].add(tag)
        self.rows.append(
            {
                "entity": self._id(num),
                "name": dimension,
                "text": tag,
                "confidence": confidence,
                "model": self.llm.model,
                "source": "llm",
                "content_hash": content_hash(text),
                "prompt_hash": request.key(self.llm.model),
                "version": self.handbook.version if self.handbook.sections else None,
                "evidence": evidence if evidence else tag if occurs(tag, text) else None,
                "tokens": (answer.tokens_in + answer.tokens_out) // among if answer else None,
                "cost": answer.cost / among if answer else None,
            }
        )
