"""One typed request, one typed answer; `Engine` reaches a model, `LLM` is what callers see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from palate.data.dataset import FloatArray
from palate.llm.canonical import canonical_json, key_of
from palate.llm.images import Image

Part = str | Image


@dataclass(frozen=True)
class Message:
    role: str  # "system", "user" or "assistant"
    content: str | tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts alone."""
        return self.content if isinstance(self.content, str) else "".join(p for p in self.content if isinstance(p, str))

    @property
    def images(self) -> tuple[Image, ...]:
        return () if isinstance(self.content, str) else tuple(p for p in self.content if isinstance(p, Image))


@dataclass(frozen=True)
class Request:
    """What is asked of a model.

    At most one of `schema` (a JSON Schema or a pydantic model that the answer must fit), `options` (probabilities
    over these), `trie` (the answer must be one of these strings) and `body` may be set; with none the answer is free
    text. `body` is a chat-completions body that goes to an OpenAI-compatible server as it stands (its `model` aside);
    only such engines take it, `messages` are empty then and `Answer.value` is the server's whole reply.
    `purpose` and `entity` are for the ledger's books and not part of the key.
    """

    messages: tuple[Message, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | type[BaseModel] | None = None
    options: tuple[str, ...] | None = None
    trie: tuple[str, ...] | None = None
    logprobs: int = 0  # how many of the likeliest tokens to report at each place of the answer
    body: dict[str, Any] | None = None
    purpose: str = ""
    entity: str = ""

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """`schema` as JSON Schema."""
        if self.schema is None or isinstance(self.schema, dict):
            return self.schema
        return self.schema.model_json_schema()

    def canonical(self, model: str) -> str:
        """The canonical form: two spellings of one request have the same."""
        return canonical_json(self, model)

    def key(self, model: str) -> str:
        """Hash of the canonical form: 32 hex digits, the ledger's key and the answer's `prompt_hash`."""
        return key_of(self.canonical(model))


class Drafts(NamedTuple):
    """How an answer was written with drafts (`palate.llm.decoding`)."""

    mode: str  # "strict", "relaxed" or "sampled"
    drafted: int  # tokens
    accepted: int
    passes: int
    unlike: int = 0  # tokens that were not the likeliest


@dataclass(frozen=True)
class Answer:
    """What a model said. `value` is the validated object where a schema was given."""

    text: str = ""
    value: Any = None
    probabilities: tuple[float, ...] | None = None  # over the request's options, sums to 1
    method: str = ""  # how probabilities came about: "exact", "first token" or "sampled"
    logprobs: tuple[tuple[tuple[str, float], ...], ...] | None = None  # for each token the likeliest, the chosen first
    finish_reason: str = "stop"
    tokens_in: int = 0  # prompt tokens, cached ones included
    tokens_cached: int = 0  # prompt tokens the engine did not read again
    tokens_out: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    model: str = ""
    engine: str = ""
    attempts: int = 1
    error: str | None = None
    free: bool = False  # an error that surely cost nothing
    drafts: Drafts | None = None  # where it was written with drafts


@dataclass(frozen=True)
class Bound:
    """The most that one attempt can cost."""

    tokens: int = 0
    money: float = 0.0


class Work(Protocol):
    """Where an engine takes its requests from: as many as it has room for, when it has room."""

    def take(self, n: int) -> list[tuple[int, Request]]:
        """At most `n` requests with their numbers; none: there is nothing to do now.

        After each batch of answers an engine asks again; it ends when it gets none and nothing is in flight.
        """
        ...

    def again(self, number: int, billed: bool) -> bool:
        """May request `number` be sent once more? `billed`: the failed attempt may have cost its tokens.

        Thread-safe, quick. False: the budget does not allow it; answer with the error of the failed attempt.
        """
        ...


class Engine(Protocol):
    """A way to reach a model.

    `ask` yields batches of `(number of the request, answer)` as they arrive, in any order, never an empty batch. A
    request that fails yields an `Answer` with `error`; only what ends the whole run raises. A generator that is
    closed early (`close()`) gives up what is in flight.
    """

    name: str
    model: str

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]: ...

    def bound(self, request: Request) -> Bound:
        """The most that one attempt can cost (see `palate.llm.prices.bound_of`)."""
        ...

    def close(self) -> None:
        """Give back sockets and memory."""
        ...


class ListedWork:
    """A fixed list of requests as `Work`, with no ledger and no budget: for tests and benchmarks of engines."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._waiting = iter(enumerate(requests))

    def take(self, n: int) -> list[tuple[int, Request]]:
        return list(islice(self._waiting, n))

    def again(self, number: int, billed: bool) -> bool:
        return True


class LLM(Protocol):
    """The two batch verbs. Never called while a recommendation is served."""

    @property
    def model(self) -> str: ...

    def generate(self, requests: Sequence[Request]) -> list[Answer]: ...

    def choose(self, requests: Sequence[Request], options: Sequence[str]) -> FloatArray:
        """Probabilities, [n_requests, n_options]; a failed row is NaN."""
        ...
