"""An LLM that only writes down what it would be asked: for plans of work that asks as it goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from palate.data.dataset import FloatArray
from palate.llm.choice import in_orders
from palate.llm.request import Answer, Request


class NotingLLM:
    """See `LLM`. Every answer is an error, every probability NaN; `requests` are what was asked."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        self.requests += requests
        return [Answer(error="not asked: this is a plan", free=True)] * len(requests)

    def choose(
        self,
        requests: Sequence[Request],
        options: Sequence[str],
        *,
        orders: int = 1,
        content_free: Sequence[Request] = (),
    ) -> FloatArray:
        self.generate(in_orders([*requests, *content_free], options, orders))
        return np.full((len(requests), len(options)), np.nan, dtype=np.float32)
