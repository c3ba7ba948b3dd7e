"""One typed request, one typed answer; `Engine` reaches a model, `LLM` is what callers see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from palate.data.dataset import FloatArray


@dataclass(frozen=True)
class Message:
    role: str  # "system", "user" or "assistant"
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked of a model.

    Exactly one of `schema` (a JSON Schema the answer must fit), `options` (probabilities over these) and
    `trie` (the answer must be one of these strings) may be set; with none the answer is free text.
    `purpose` and `entity` are for the ledger's books and not part of the key.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    schema: dict[str, Any] | None = None
    options: tuple[str, ...] | None = None
    trie: tuple[str, ...] | None = None
    purpose: str = ""
    entity: str = ""

    def key(self, model: str) -> str:
        """Hash of the canonical request: 32 hex digits, the ledger's key and the answer's `prompt_hash`."""
        canonical = {
            "model": model,
            "messages": [[m.role, m.content] for m in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": float(self.temperature),
            "schema": self.schema,
            "options": self.options,
            "trie": self.trie,
        }
        text = json.dumps(canonical, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Answer:
    """What a model said. `value` is the validated object where a schema was given."""

    text: str = ""
    value: Any = None
    probabilities: tuple[float, ...] | None = None  # over the request's options, sums to 1
    finish_reason: str = "stop"
    tokens_in: int = 0  # prompt tokens, cached ones included
    tokens_cached: int = 0  # prompt tokens the engine did not read again
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    model: str = ""
    engine: str = ""
    error: str | None = None


class Engine(Protocol):
    """A way to reach a model. Yields `(index of the request, answer)` as answers arrive, in any order.

    A request that fails yields an `Answer` with `error`; only what ends the whole run raises.
    """

    name: str
    model: str

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]: ...

    def close(self) -> None:
        """Give back sockets and memory."""
        ...


class LLM(Protocol):
    """The two batch verbs. Never called while a recommendation is served."""

    @property
    def model(self) -> str: ...

    def generate(self, requests: Sequence[Request]) -> list[Answer]: ...

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> FloatArray:
        """Probabilities, [n_requests, n_options]; a failed row is NaN."""
        ...
