"""What labelling costs: one table of time and money for a million items, by route."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palate.data.dataset import FloatArray
from palate.knowledge.distil import Matrix, Student
from palate.llm.encoders import Encoder
from palate.llm.prices import Prices

MILLION = 1_000_000


@dataclass(frozen=True)
class Way:
    """One way to label one item with all attributes.

    Attributes:
        seconds: Of this machine, of a server's slot or of a person; None: not known.
        hourly: Money for an hour of that; None: time costs nothing here (somebody else's server).
        tokens_in, tokens_cached, tokens_out: Read, of these read before, written.
        prices: Of those tokens; None: they have no price.
        money_else: What an item costs beside time and tokens.
        basis: Where the figures are from.
    """

    name: str
    seconds: float | None = None
    hourly: float | None = None
    tokens_in: float = 0.0
    tokens_cached: float = 0.0
    tokens_out: float = 0.0
    prices: Prices | None = None
    money_else: float | None = None
    basis: str = ""

    @property
    def money(self) -> float | None:
        """For one item; None: neither its time nor its tokens have a price that is known."""
        by_time = None if self.hourly is None or self.seconds is None else self.seconds / 3600 * self.hourly
        known = [part for part in (by_time, self._by_tokens(), self.money_else) if part is not None]
        return sum(known) if known else None

    def _by_tokens(self) -> float | None:
        if self.prices is None:
            return None
        # Prices are for a million tokens, and `cost` counts whole ones.
        scaled = (round(MILLION * tokens) for tokens in (self.tokens_in, self.tokens_cached, self.tokens_out))
        return self.prices.cost(*scaled) / MILLION


def cascade(ways: Sequence[Way], reached: Sequence[float], name: str = "cascade") -> Way:
    """Ways one after the other: `reached` is the share of labels for which each was asked."""
    known = [(way, share) for way, share in zip(ways, reached, strict=True) if share]
    money = [share * way.money if way.money is not None else None for way, share in known]
    seconds = [share * way.seconds if way.seconds is not None else None for way, share in known]
    total_seconds = None if None in seconds else sum(s for s in seconds if s is not None)
    read, cached, written = (
        sum(share * getattr(way, kind) for way, share in known) for kind in ("tokens_in", "tokens_cached", "tokens_out")
    )
    unknown = [way.name for (way, _), m in zip(known, money, strict=True) if m is None]
    total = None if unknown else sum(m for m in money if m is not None)
    shares = ", ".join(f"{way.name} {share:.0%}" for way, share in known)
    basis = f"labels that reach {shares}"
    return Way(name, total_seconds, None, read, cached, written, money_else=total, basis=basis)


def per_million(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Rows: route, items_per_second, hours, tokens_in, tokens_out, money (each for a million items), basis.

    None: not known.
    """
    return [
        {
            "route": way.name,
            "items_per_second": None if not way.seconds else 1 / way.seconds,
            "hours": None if way.seconds is None else way.seconds * MILLION / 3600,
            "tokens_in": way.tokens_in * MILLION,
            "tokens_out": way.tokens_out * MILLION,
            "money": None if way.money is None else way.money * MILLION,
            "basis": way.basis,
        }
        for way in ways
    ]


def people(attributes: int, seconds: float, wage: float) -> Way:
    """A person who gives one label after the other."""
    return Way("people", attributes * seconds, wage, basis=f"{seconds:g} s a label at {wage:g} an hour")


def asked(
    totals: Sequence[Mapping[str, Any]], model: str, calls_per_item: int, prices: Prices | None, hourly: float | None
) -> Way | None:
    """A model by what it has taken so far (rows of `Ledger.totals`); None where it was never asked."""
    rows = [row for row in totals if row["model"] == model]
    calls = sum(row["calls"] for row in rows)
    if not calls:
        return None
    seconds, read, cached, written = (
        sum(row[name] for row in rows) / calls * calls_per_item
        for name in ("seconds", "tokens_in", "tokens_cached", "tokens_out")
    )
    return Way(model, seconds, hourly, read, cached, written, prices, basis=f"mean of {calls:,} calls")


def student(
    encoder: Encoder, texts: Sequence[str], features: FloatArray, attributes: int, hourly: float
) -> tuple[Way, Way]:
    """A student with vectors that are there, and with the encoding of the texts; both timed now.

    Args:
        texts: A sample of items' texts; the first few warm the encoder up.
        features: Any rows of the student's width: how long it takes does not depend on what was learnt.
    """
    model = Student()
    model.weights, model.bias = np.zeros((attributes, features.shape[1])), np.zeros(attributes)
    encoder.encode(texts[:8])
    begun = time.perf_counter()
    encoder.encode(texts)
    encoding = (time.perf_counter() - begun) / len(texts)
    each = seconds_to_predict(model, features)
    basis = f"timed on {len(features):,} items, {features.shape[1]} features"
    return (
        Way("student, vectors at hand", each, hourly, basis=basis),
        Way("student and encoder", each + encoding, hourly, basis=f"{basis}; {len(texts)} texts encoded"),
    )


def seconds_to_predict(model: Student, features: FloatArray, least: float = 0.3) -> float:
    """Seconds an item, over as many rounds as fill `least` seconds."""
    model.predict(features[:8])
    rounds, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < least:
        kept: Matrix = model.predict(features)
        rounds += 1
    del kept
    return spent / (rounds * len(features))
