"""The LLM as annotator: closed questions about items, answered by token probabilities."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import Dataset, FloatArray, IntArray
from palate.knowledge.attributes import Attribute, Example
from palate.knowledge.guard import GuardConfig
from palate.knowledge.media import ItemMedia, item_words
from palate.knowledge.prompt import WORDINGS, Look, label_request, reading_request, verified
from palate.knowledge.shots import Shots
from palate.knowledge.tables import SCHEMA
from palate.llm.request import LLM, Request

__all__ = ["AnnotateConfig", "Question", "Tally", "annotate", "item_text", "label_request", "questions", "sample_items"]
Media = Mapping[int, ItemMedia]
MAX_TEXT = 1200  # characters of an item that are shown
_NOTHING = "N/A"  # an item about which nothing can be said


class AnnotateConfig(BaseModel):
    """How questions are put and what is made of the answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reading: Literal["none", "evidence", "reasons"] = "none"
    """One call more for each item: words of the item that bear on each question, and why. For models that can quote."""
    examples: int = Field(default=0, ge=0, le=16)
    """Like items that people judged (dev alone), shown with each question; as many of each answer as there are."""
    example_chars: int = Field(default=400, ge=50)
    """Characters of all examples of a question together."""
    orders: int = Field(default=1, ge=1)
    """Rotations of the options in the prompt over which answers are averaged; each reads the item again."""
    content_free: bool = False
    """Divide out what is answered about an item of which nothing is known (Zhao et al. 2021, arXiv 2102.09690)."""
    jury: int = Field(default=1, ge=1, le=WORDINGS * 4)
    """Simulated annotators (arXiv 2407.18370): each with its own wording, examples and order of the options."""
    calibrate: Literal["none", "platt", "isotonic", "auto"] = "auto"
    """Probabilities made to mean what they say on people's dev labels; auto: what does best there, out of fold."""
    guard: GuardConfig = GuardConfig()


@dataclass
class Tally:
    """What became of the asking, beside its rows."""

    skipped: list[str] = field(default_factory=list)  # items with nothing to read
    failed: int = 0  # questions without an answer
    unread: int = 0  # items whose reading failed
    quoted: int = 0  # quotations given
    unverified: int = 0  # of these, such as do not occur in the item

    def facts(self) -> dict[str, object]:
        return {"skipped": len(self.skipped), "first_skipped": self.skipped[:3], **_numbers(self)}


def _numbers(tally: Tally) -> dict[str, object]:
    return {name: value for name, value in vars(tally).items() if isinstance(value, int)}


def item_text(dataset: Dataset, item_num: int) -> str:
    """What a model is shown of an item: title, categories, text. Its hash is a label's `content_hash`."""
    row = dataset.items.row(item_num, named=True)
    lines = [str(row["title"] or "")]
    if row["categories"]:
        lines.append("Categories: " + ", ".join(row["categories"]))
    if row["text"]:
        lines.append(str(row["text"]))
    return "\n".join(lines)[:MAX_TEXT]


def content_hash(text: str, media: str = "") -> str:
    """Of an item's text and its media (`ItemMedia.digest`): a changed picture is a changed item."""
    return hashlib.sha256((f"{text}\0{media}" if media else text).encode()).hexdigest()[:32]


def sample_items(dataset: Dataset, budget: int, first: Sequence[int] = (), seed: int = 0) -> IntArray:
    """`budget` item_nums to ask about: three in four from `first` (items that people judged), the rest by traffic.

    Traffic is sampled, not cut at the top, so that the tail is asked about too.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.asarray(first, dtype=np.int32))[: budget * 3 // 4]
    weights = dataset.item_counts + 1.0
    weights[chosen] = 0.0
    n_rest = min(budget - len(chosen), int((weights > 0).sum()))
    rest = rng.choice(dataset.n_items, n_rest, replace=False, p=weights / weights.sum())
    return np.concatenate([chosen, rest]).astype(np.int32)


@dataclass(frozen=True)
class Question:
    """One attribute of one item, as it is asked.

    `forms`: for each order of the options the request, and behind it those whose answers are divided out.
    """

    item_num: int
    attribute: Attribute
    text: str
    forms: tuple[tuple[Request, ...], ...]
    look: Look | None = None
    media: str = ""  # digest

    @property
    def request(self) -> Request:
        return self.forms[0][0]


def question(
    text: str,
    attribute: Attribute,
    entity: str,
    item_num: int = -1,
    *,
    config: AnnotateConfig | None = None,
    salt: str = "",
    shots: Sequence[Example] = (),
    look: Look | None = None,
    juror: int = 0,
    media: ItemMedia | None = None,
) -> Question:
    """An attribute of an item, put as `config` says; `juror` (0, 1, ...) shifts wording and order of the options."""
    config, media = config or AnnotateConfig(), media or ItemMedia()
    ask = partial(label_request, guard=config.guard, salt=salt, wording=juror % WORDINGS)
    forms = []
    for order in range(juror, juror + min(config.orders, len(attribute.options))):
        form = [ask(text, attribute, entity, shots=shots, look=look, order=order, images=media.images)]
        if config.guard.neutral:
            form.append(ask(text, attribute, entity, order=order, about_nothing=True))
        if config.content_free:
            form.append(ask(_NOTHING, attribute, "", shots=shots, order=order))
        forms.append(tuple(form))
    return Question(item_num, attribute, text, tuple(forms), look, media.digest)


def questions(
    dataset: Dataset,
    items: IntArray,
    attributes: Sequence[Attribute],
    *,
    config: AnnotateConfig | None = None,
    salt: str = "",
    shots: Shots | None = None,
    looks: Mapping[tuple[int, str], Look] | None = None,
    juror: int = 0,
    media: Media | None = None,
) -> list[Question]:
    """Each attribute of each of `items` (item_nums) that has something to read; those about one item follow each other.

    Args:
        shots: Where like items come from, if `config.examples` asks for them.
        looks: What was found by `readings`.
        media: By item_num what is shown beside the text.
    """
    config = config or AnnotateConfig()
    found = []
    for num in map(int, items):
        text, beside = _shown(dataset, num, media)
        for attribute in attributes if text.strip() or beside.images else ():
            like = () if shots is None else shots.of(num, attribute, config.examples, config.example_chars, juror)
            look = (looks or {}).get((num, attribute.name))
            entity = dataset.item_ids[num]
            put = partial(question, config=config, salt=salt, shots=like, look=look, juror=juror, media=beside)
            found.append(put(text, attribute, entity, num))
    return found


def _shown(dataset: Dataset, item_num: int, media: Media | None) -> tuple[str, ItemMedia]:
    """The item's text, with what is said in its films, and its media."""
    beside = (media or {}).get(item_num, ItemMedia())
    return item_words(item_text(dataset, item_num), beside), beside


def requests_of(asked: Iterable[Question]) -> list[Request]:
    """All that is asked for `asked`, each once."""
    return list(dict.fromkeys(request for one in asked for form in one.forms for request in form))


def probabilities(asked: Sequence[Question], llm: LLM) -> list[FloatArray]:
    """For each question the probabilities of its options, what is to be divided out divided out; NaN: it failed."""
    groups: dict[tuple[str, ...], dict[Request, None]] = defaultdict(dict)
    for request in requests_of(asked):
        groups[request.options or ()][request] = None
    told: dict[Request, FloatArray] = {}
    for options, group in groups.items():
        told |= zip(group, llm.choose(list(group), options), strict=True)
    return [_fair(one, told) for one in asked]


def _fair(one: Question, told: Mapping[Request, FloatArray]) -> FloatArray:
    rows = []
    for asked, *divisors in one.forms:
        row = np.asarray(told[asked], dtype=np.float64)
        for divisor in divisors:
            row = row / np.maximum(told[divisor], 1e-6)
            row = row / row.sum()
        assert asked.options is not None
        rows.append(row[[asked.options.index(option) for option in one.attribute.options]])
    known = [row for row in rows if not np.isnan(row).any()]
    return np.asarray(np.mean(known or rows[:1], axis=0), dtype=np.float32)


def readings(
    dataset: Dataset,
    items: IntArray,
    attributes: Sequence[Attribute],
    llm: LLM,
    config: AnnotateConfig,
    salt: str = "",
    tally: Tally | None = None,
    media: Media | None = None,
) -> dict[tuple[int, str], Look]:
    """What one reading of each item finds for each attribute; quotations that do not occur in the item are dropped."""
    tally = tally if tally is not None else Tally()
    asked = reading_requests(dataset, items, attributes, config, salt, media)
    found = {}
    for num, answer in zip(asked, llm.generate(list(asked.values())) if asked else (), strict=True):
        tally.unread += answer.error is not None
        for attribute in attributes if answer.error is None else ():
            text, _ = _shown(dataset, num, media)
            look, honest = verified(answer.value, attribute.name, text, attribute.options, config.guard)
            tally.unverified += not honest
            tally.quoted += bool(look.evidence) or not honest
            found[num, attribute.name] = look
    return found


def reading_requests(
    dataset: Dataset,
    items: IntArray,
    attributes: Sequence[Attribute],
    config: AnnotateConfig,
    salt: str = "",
    media: Media | None = None,
) -> dict[int, Request]:
    """By item_num; none if `config` asks for no reading."""
    if config.reading == "none":
        return {}
    reasons, texts = config.reading == "reasons", {n: _shown(dataset, n, media)[0] for n in map(int, items)}
    return {
        num: reading_request(text, attributes, dataset.item_ids[num], reasons=reasons, guard=config.guard, salt=salt)
        for num, text in texts.items()
        if text.strip()
    }


def annotate(
    dataset: Dataset,
    items: IntArray,
    attributes: Sequence[Attribute],
    llm: LLM,
    *,
    config: AnnotateConfig | None = None,
    salt: str = "",
    shots: Shots | None = None,
    juror: int = 0,
    tally: Tally | None = None,
    media: Media | None = None,
) -> pl.DataFrame:
    """Label rows (kind `label`) for each of `items` (item_nums) and each attribute.

    Items with nothing to read and failed asks have no rows: `tally` counts them.

    Args:
        media: By item_num what is shown beside the text; no pictures for an engine that reads none.
    """
    config, tally = config or AnnotateConfig(), tally if tally is not None else Tally()
    looks = readings(dataset, items, attributes, llm, config, salt, tally, media)
    put = partial(questions, config=config, salt=salt, shots=shots, looks=looks, juror=juror, media=media)
    asked = put(dataset, items, attributes)
    read = {one.item_num for one in asked}
    tally.skipped = [dataset.item_ids[num] for num in map(int, items) if num not in read]
    rows = []
    for one, row in zip(asked, probabilities(asked, llm), strict=True):
        if np.isnan(row).any():
            tally.failed += 1
        else:
            rows.append(_label(one, row, llm.model))
    return pl.DataFrame(rows, schema_overrides={"evidence": pl.String}) if rows else pl.DataFrame(schema=SCHEMA)


def _label(one: Question, row: FloatArray, model: str) -> dict[str, object]:
    return {
        "entity": one.request.entity,
        "name": one.attribute.name,
        "value": float(one.attribute.fit(row[None, :])[0]),
        "text": one.attribute.options[int(row.argmax())],
        "confidence": float(row.max()),
        "model": model,
        "source": "llm",
        "content_hash": content_hash(one.text, one.media),
        "prompt_hash": one.request.key(model),
        "version": one.attribute.version,
        "evidence": (one.look.evidence or None) if one.look else None,
    }
