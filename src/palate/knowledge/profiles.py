"""Profiles of users and facts of items by the factors of a scenario, each as of a time.

Leak guard (KAR, arXiv 2306.10933): of a user's `len` events a model is shown the first n = min((len + 1) // 2, cap);
samples to train and test on must come after them (`as_of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import TIMESTAMP, Dataset, IntArray
from palate.data.samples import first_places
from palate.knowledge.annotate import content_hash
from palate.knowledge.factors import Factors
from palate.knowledge.profile_prompts import closed_request, read_text, text_request
from palate.knowledge.store import in_schema
from palate.knowledge.tables import SCHEMA
from palate.llm.choice import calibrated
from palate.llm.request import LLM, Answer, Request

KIND = {"user": "profile", "item": "fact"}
_NOTHING = "N/A"
Row = dict[str, Any]


class ProfileConfig(BaseModel):
    """What is shown of a history and how the model answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cap: int = Field(default=30, ge=1, description="most events of a user that a profile may rest on")
    answer: Literal["closed", "text"] = Field(
        default="text", description="closed: choose among each factor's values (small models); text: a note in words"
    )
    liked_above: float = Field(default=3.0, description="events of a greater value, or of none, were liked")
    liked: int = Field(default=20, ge=1, description="most liked titles shown, the best valued and latest first")
    disliked: int = Field(default=10, ge=0, description="most disliked titles shown")
    title_chars: int = Field(default=80, ge=10, description="of a title")
    words: int = Field(default=60, ge=5, description="asked for in a note")
    max_tokens: int = Field(default=100, ge=5, description="of a note; it ends there in any case")


@dataclass(frozen=True)
class Seen:
    """What may be known of a user at `as_of` (microseconds): items and values, oldest first."""

    user_num: int
    items: IntArray
    values: npt.NDArray[np.float32]
    as_of: int


def seen_windows(dataset: Dataset, starts: npt.ArrayLike, ends: npt.ArrayLike) -> list[Seen]:
    """Of each user the events at the places [start, end) of the history; users with none are left out."""
    packed = dataset.histories
    values = dataset.events["value"].cast(pl.Float32).fill_null(np.nan).to_numpy()
    values = values[np.argsort(dataset.events["user_num"].to_numpy(), kind="stable")]
    found = []
    for user, (first, last) in enumerate(zip(np.asarray(starts).tolist(), np.asarray(ends).tolist(), strict=True)):
        where = slice(packed.offsets[user] + first, min(packed.offsets[user] + last, packed.offsets[user + 1]))
        if where.stop > where.start:
            found.append(Seen(user, packed.items[where], values[where], int(packed.times[where.stop - 1])))
    return found


def seen_first(dataset: Dataset, cap: int = 30) -> list[Seen]:
    """What the leak guard lets be seen of each user."""
    n = first_places(dataset, cap)
    return seen_windows(dataset, np.zeros_like(n), n)


def shown_history(dataset: Dataset, seen: Seen, config: ProfileConfig) -> str:
    """The titles of what was liked and of what was not, the best valued first and of these the latest."""
    valued = np.where(np.isnan(seen.values), np.inf, seen.values)
    order = np.lexsort((-np.arange(len(valued)), -valued))
    liked = [int(i) for i in order if valued[i] > config.liked_above][: config.liked]
    disliked = [int(i) for i in order[::-1] if valued[i] <= config.liked_above][: config.disliked]
    titles = dataset.items["title"]

    def line(head: str, places: Sequence[int]) -> list[str]:
        names = [str(titles[int(seen.items[i])] or "")[: config.title_chars] for i in places]
        names = [name for name in names if name.strip()]
        return [f"{head}: {'; '.join(names)}"] if names else []

    return "\n".join(line("Liked", liked) + line("Did not like", disliked))


def shown_item(dataset: Dataset, item_num: int, config: ProfileConfig) -> str:
    """Title and categories, as in KAR: what else is known of the item is to come from the model."""
    row = dataset.items.row(item_num, named=True)
    title = str(row["title"] or "")[: 2 * config.title_chars]
    return f"{title} ({', '.join(row['categories'])})" if row["categories"] else title


@dataclass
class Asked:
    """What the asking came to, answers from the ledger counted as what they once cost."""

    tokens: int = 0  # read and written
    seconds: float = 0.0
    calls: int = 0
    failed: int = 0
    written: int = 0  # tokens, of answers written with drafts, and their passes and tokens that were not the likeliest
    passes: int = 0
    unlike: int = 0

    def count(self, answers: Sequence[Answer]) -> None:
        self.tokens += sum(answer.tokens_in + answer.tokens_out for answer in answers)
        self.seconds += sum(answer.seconds for answer in answers)
        self.calls += len(answers)
        self.failed += sum(answer.error is not None for answer in answers)
        for answer in answers:
            if answer.drafts is not None:
                self.written += answer.tokens_out
                self.passes += answer.drafts.passes
                self.unlike += answer.drafts.unlike


@dataclass(frozen=True)
class Subject:
    """One user, item or cluster that is asked about. `as_of` in microseconds, None: at any time."""

    entity: str
    shown: str
    as_of: int | None = None
    before: str = ""


@dataclass(frozen=True)
class Interview:
    """Who is asked, by which factors, and how; `asked` adds up what it came to.

    `salt`: a secret of the project, without which the marks around strangers' text could be foreseen.
    """

    factors: Factors
    llm: LLM
    config: ProfileConfig = field(default_factory=ProfileConfig)
    salt: str = ""
    asked: Asked = field(default_factory=Asked)

    def ask(self, subjects: Sequence[Subject], side: str, cluster: bool = False) -> pl.DataFrame:
        """Knowledge rows about `subjects`; those with nothing to show, and failed asks, have none.

        Args:
            side: "user" or "item".
            cluster: Each subject stands for many.
        """
        known = [subject for subject in subjects if subject.shown.strip()]
        rows = self._closed(known, side) if self.config.answer == "closed" else self._text(known, side, cluster)
        if not rows:
            return pl.DataFrame(schema=SCHEMA)
        return in_schema(KIND[side], pl.DataFrame(rows, infer_schema_length=None))

    def _text(self, subjects: Sequence[Subject], side: str, cluster: bool) -> list[Row]:
        config = self.config
        sizes: Row = {"words": config.words, "max_tokens": config.max_tokens, "salt": self.salt, "cluster": cluster}
        put = [text_request(s.shown, self.factors, s.entity, side=side, before=s.before, **sizes) for s in subjects]
        rows = []
        for subject, request, answer in zip(subjects, put, self._answers(put), strict=True):
            text = read_text(answer.text) if answer.error is None else ""
            if text:
                rows.append(self._row(subject, request, answer) | {"name": KIND[side], "text": text})
        return rows

    def _closed(self, subjects: Sequence[Subject], side: str) -> list[Row]:
        """A row for each factor with values; what is said of nobody is divided out of the probabilities."""
        rows: list[Row] = []
        factors = [factor for factor in self.factors.factors if factor.values]

        def about(shown: str, entity: str, before: str = "") -> list[Request]:
            said: Row = {"side": side, "salt": self.salt, "before": before}
            return [closed_request(shown, factor, self.factors, entity, **said) for factor in factors]

        asked = [about(_NOTHING, ""), *(about(s.shown, s.entity, s.before) for s in subjects)]
        answers = self._answers([request for each in asked for request in each])
        n, priors = len(factors), answers[: len(factors)]
        for place, (subject, requests) in enumerate(zip(subjects, asked[1:], strict=True), start=1):
            given = answers[place * n : (place + 1) * n]
            for factor, prior, request, answer in zip(factors, priors, requests, given, strict=True):
                shares = _shares(answer, prior)
                if shares is not None:
                    best = int(shares.argmax())
                    said = {"name": factor.name, "text": factor.values[best], "confidence": float(shares[best])}
                    rows.append(self._row(subject, request, answer) | said | {"vector": shares.tolist()})
        return rows

    def _answers(self, requests: Sequence[Request]) -> list[Answer]:
        answers = self.llm.generate(requests)
        self.asked.count(answers)
        return answers

    def _row(self, subject: Subject, request: Request, answer: Answer) -> Row:
        model = self.llm.model
        as_of = None if subject.as_of is None else pl.Series([subject.as_of]).cast(TIMESTAMP)[0]
        hashes = {
            "content_hash": content_hash(f"{subject.shown}\0{subject.before}"),
            "prompt_hash": request.key(model),
        }
        spent = {"tokens": answer.tokens_in + answer.tokens_out, "cost": answer.cost}
        return {"entity": subject.entity, "model": model, "source": "llm", "as_of": as_of, **hashes, **spent}


def user_profiles(
    dataset: Dataset, seen: Sequence[Seen], interview: Interview, before: Mapping[int, str] | None = None
) -> pl.DataFrame:
    """Rows of kind `profile`, each as of the last event that the model was shown.

    `before`: by user_num the text of an earlier profile. The new one is made of it and of what was `seen` since
    (streaming extraction).
    """
    ids, config = dataset.user_ids, interview.config
    subjects = [
        Subject(ids[s.user_num], shown_history(dataset, s, config), s.as_of, (before or {}).get(s.user_num, ""))
        for s in seen
    ]
    return interview.ask(subjects, "user")


def item_facts(dataset: Dataset, items: IntArray, interview: Interview) -> pl.DataFrame:
    """Rows of kind `fact` for `items` (item_nums); what is said of an item holds at any time (`as_of` is null)."""
    subjects = [Subject(dataset.item_ids[n], shown_item(dataset, n, interview.config)) for n in map(int, items)]
    return interview.ask(subjects, "item")


def streamed_profiles(dataset: Dataset, windows: Sequence[Sequence[Seen]], interview: Interview) -> pl.DataFrame:
    """Streaming extraction: each window of events makes a new version of its users' profiles out of the last one.

    Args:
        windows: The earliest first. No version knows more than the events up to its own `as_of`.
    """
    parts: list[pl.DataFrame] = []
    latest: dict[int, str] = {}
    for seen in windows:
        rows = user_profiles(dataset, seen, interview, latest)
        parts.append(rows)
        for entity, text in notes(rows).items():
            latest[dataset.user_nums[entity]] = text
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def notes(rows: pl.DataFrame) -> dict[str, str]:
    """By entity what `rows` of one asking say, as one line: "genre: comedy; mood: warm" of closed answers."""
    found: dict[str, list[str]] = {}
    for entity, name, text, vector in rows.select("entity", "name", "text", "vector").iter_rows():
        found.setdefault(entity, []).append(text if vector is None else f"{name}: {text}")
    return {entity: "; ".join(said) for entity, said in found.items()}


def _shares(answer: Answer, prior: Answer) -> npt.NDArray[np.float32] | None:
    if answer.error is not None or answer.probabilities is None:
        return None
    found = np.array([answer.probabilities], dtype=np.float32)
    if prior.error is None and prior.probabilities is not None:
        found = calibrated(found, np.array([prior.probabilities], dtype=np.float32))
    return np.asarray(found[0])
