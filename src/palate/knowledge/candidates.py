"""Candidate sets: where a teacher is unsure, all answers that it finds plausible, from which the student picks.

CanDist (Xu et al. 2025, arXiv 2506.03857): a wrong single label teaches a student an error; a set that holds the truth
does not. Distribution refinement, as it is done here: the student's own probabilities, out of fold and renormalised on
the set, become the next targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from palate.errors import InputError
from palate.llm.request import LLM, Request

Matrix = npt.NDArray[np.float64]
Sets = npt.NDArray[np.bool_]
_ASK = "Name every option that could be right, and no other."


def candidate_sets(probabilities: Matrix, mass: float) -> Sets:
    """The fewest options along the last axis whose probabilities come to `mass`; all where they are NaN.

    Raises:
        InputError: `mass` outside (0, 1].
    """
    if not 0 < mass <= 1:
        raise InputError("The mass of a candidate set must lie above 0, at most 1.", got=mass)
    shares = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=1.0)
    shares = shares / np.maximum(shares.sum(axis=-1, keepdims=True), 1e-12)
    order = np.argsort(-shares, axis=-1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=-1)
    needed = np.cumsum(ranked, axis=-1) - ranked < mass - 1e-9
    sets = np.zeros(shares.shape, dtype=bool)
    np.put_along_axis(sets, order, needed, axis=-1)
    return np.where(np.isnan(probabilities), True, sets)


def plausible_sets(requests: Sequence[Request], options: Sequence[str], llm: LLM) -> Sets:
    """The same by asking: the model lists every option that could be right, [n_requests, n_options].

    An answer that failed, or names none, leaves all options open.
    """
    names = {"type": "array", "items": {"type": "string", "enum": list(options)}, "minItems": 1}
    schema = {
        "type": "object",
        "properties": {"plausible": {**names, "maxItems": len(options)}},
        "required": ["plausible"],
        "additionalProperties": False,
    }
    sets = np.ones((len(requests), len(options)), dtype=bool)
    asked = [_all_of(request, schema) for request in requests]
    for row, answer in enumerate(llm.generate(asked)):
        value: Any = answer.value
        if answer.error is None and isinstance(value, dict) and value.get("plausible"):
            sets[row] = [option in value["plausible"] for option in options]
    return sets


def refined(probabilities: Matrix, sets: Sets, honest: Callable[[Matrix], Matrix], rounds: int) -> Matrix:
    """Targets [n, ..., n_options] after `rounds`; outside its set an option's target is 0.

    The teacher's probabilities on the set are the first targets. NaN rows (not asked) stay NaN.

    Args:
        honest: From targets [n, all options] to the predictions of students that never saw the row (`Student.fit`).
    """
    targets = _on_sets(probabilities, sets)
    for _ in range(rounds):
        found = honest(targets.reshape(len(targets), -1)).reshape(targets.shape)
        targets = np.where(np.isnan(targets), np.nan, _on_sets(found, sets))
    return targets


def _on_sets(probabilities: Matrix, sets: Sets) -> Matrix:
    kept = np.where(sets, np.maximum(probabilities, 1e-9), 0.0)
    return np.asarray(kept / kept.sum(axis=-1, keepdims=True))


def _all_of(request: Request, schema: dict[str, Any]) -> Request:
    last = request.messages[-1]
    messages = (*request.messages[:-1], replace(last, content=f"{last.text}\n{_ASK}"))
    return replace(request, messages=messages, options=None, schema=schema, max_tokens=128)
