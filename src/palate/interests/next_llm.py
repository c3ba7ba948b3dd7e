"""Which interest next? A language model's answer from the names of the interests a person has.

The novelty model of LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363). With hundreds of
interests their list does not fit a prompt: the model must know the names, from tuning (`palate.models.finetune`) or
from a trie. *Free* decoding shows whether it does (the match rate); *constrained* decoding gives an interest by
construction, and the probability of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.errors import InputError
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.prompts import defused
from palate.llm.request import LLM, Message, Request
from palate.llm.token_trie import trie_shares

Numbers = npt.NDArray[np.integer]  # [n, K]: interests, by their places in the list of names

MAX_NAME = 130  # characters: three keywords of the greatest length
MAX_TOKENS = 40  # of a free answer
_SYSTEM = "Name one new interest this person will enjoy next."
_SEVERAL = "Name {n} new interests this person will enjoy next, the likeliest first, one a line."


def check_names(names: Sequence[str]) -> None:
    """Names must be told apart by an answer that is one line of text.

    Raises:
        InputError: One that is empty, long, broken into lines, padded, or reads as a control token; or two that differ
            in case and spaces alone.
    """
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        if not name.strip() or len(name) > MAX_NAME or name != " ".join(name.split()) or name != defused(name):
            raise InputError(
                "An interest has a name that no model can answer with.",
                where=f"interest {number}",
                got=name,
                allowed=f"1 to {MAX_NAME} characters on one line, single spaces, no control tokens",
                hint="Name the interests again.",
            )
        twin = seen.setdefault(name.casefold(), number)
        if twin != number:
            raise InputError("Two interests have one name.", where=f"interests {twin} and {number}", got=name)


def all_pairs(n_names: int, *, ordered: bool = False) -> IntArray:
    """All pairs of two interests [n, 2], sorted; `ordered`: all `n_names` squared, an interest with itself included."""
    first, second = np.divmod(np.arange(n_names * n_names, dtype=np.int32), n_names)
    keep = np.full(len(first), True) if ordered else first < second
    return np.stack([first[keep], second[keep]], axis=1).astype(np.int32)


def next_request(pair: Sequence[int], names: Sequence[str], n: int = 1) -> Request:
    """Ask for the next `n` new interests of someone who has those of `pair`, in this order; two alike are said once."""
    known = [names[number] for number in dict.fromkeys(int(number) for number in pair)]
    wanted = _SYSTEM if n == 1 else _SEVERAL.format(n=n)
    messages = (Message("system", wanted), Message("user", "\n".join(known)))
    entity = "|".join(str(int(number)) for number in pair)
    return Request(messages, max_tokens=n * MAX_TOKENS, purpose="next interest", entity=entity)


def examples(pairs: Numbers, labels: Numbers, names: Sequence[str]) -> Iterator[tuple[Request, str]]:
    """Requests and the answers they should get, one for each row: what `palate.models.finetune` is given."""
    check_names(names)
    for pair, label in zip(pairs.tolist(), labels.tolist(), strict=True):
        yield next_request(pair, names), names[label]


@dataclass(frozen=True)
class Said:
    """What free decoding wrote for each pair, and the interest it is by name, -1 where it is none."""

    texts: tuple[str, ...]
    interests: IntArray

    @property
    def match_rate(self) -> float:
        """The share of answers that are an interest's name, word for word."""
        return float((self.interests >= 0).mean()) if len(self.interests) else float("nan")


def free(llm: LLM, pairs: Numbers, names: Sequence[str]) -> Said:
    """Greedy answers without any constraint; a failed one matches nothing."""
    number = {name: place for place, name in enumerate(names)}
    answers = llm.generate([next_request(pair, names) for pair in pairs.tolist()])
    texts = tuple(answer.text.strip() for answer in answers)
    return Said(texts, np.array([number.get(text, -1) for text in texts], dtype=np.int32))


def asked(llm: LLM, pairs: Numbers, names: Sequence[str]) -> IntArray:
    """The one constrained answer to each pair through any engine that keeps to a trie, [n]; -1 where it failed.

    A pair's own interests are no answer. Where tokens can be scored, `constrained` says more.
    """
    number = {name: place for place, name in enumerate(names)}
    requests = []
    for pair in pairs.tolist():
        others = tuple(name for place, name in enumerate(names) if place not in pair)
        requests.append(replace(next_request(pair, names), trie=others))
    answers = llm.generate(requests)
    return np.array([-1 if a.error is not None else number.get(a.text, -1) for a in answers], dtype=np.int32)


class TrieNextInterest:
    """Scores of the next interest by constrained decoding of a local model: log probabilities.

    Args:
        engine: The model, tuned (`TorchEngine(adapter=...)`) or not.
        names: Of the interests 0..C-1.
        best: Interests of a row whose probability must be exact; None: all.
        batch: Pairs computed together.
    """

    def __init__(
        self, engine: TorchEngine, names: Sequence[str], best: int | None = None, batch: int = 16, name: str = ""
    ) -> None:
        check_names(names)
        self.engine, self.names, self.best, self.batch = engine, tuple(names), best, batch
        self.name = name or engine.model

    def scores(self, pairs: Numbers) -> FloatArray:
        """[n, K] interests to [n, C]; a row's own interests are -inf, the others' probabilities sum to 1."""
        rows, place = np.unique(np.asarray(pairs), axis=0, return_inverse=True)
        if len(rows) == 0:
            return np.zeros((0, len(self.names)), dtype=np.float32)
        exact = None if self.best is None else self.best + rows.shape[1]
        requests = [next_request(row, self.names) for row in rows.tolist()]
        shares = trie_shares(self.engine, requests, self.names, exact, self.batch)
        np.put_along_axis(shares, rows.astype(np.int64), 0.0, axis=1)
        with np.errstate(divide="ignore"):
            logs = np.log(shares) - np.log(shares.sum(axis=1, keepdims=True))
        return np.asarray(logs[place.reshape(-1)], dtype=np.float32)


def constrained(
    engine: TorchEngine, pairs: Numbers, names: Sequence[str], n: int, batch: int = 16
) -> tuple[IntArray, FloatArray]:
    """The `n` likeliest next interests of each pair and their probabilities, both [n_pairs, n], best first.

    Where there are fewer others than `n`, the rest is -1 with probability 0.
    """
    logs = TrieNextInterest(engine, names, best=n, batch=batch).scores(pairs)
    return likeliest(logs, n)


def likeliest(logs: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """The `n` largest of each row of log probabilities, and their probabilities; -1 and 0 for want of others."""
    order = np.argsort(-logs, axis=1, kind="stable")[:, :n]
    shares = np.exp(np.take_along_axis(logs, order, axis=1))
    numbers = np.where(shares > 0, order, -1).astype(np.int32)
    missing = n - order.shape[1]
    return (
        np.pad(numbers, ((0, 0), (0, max(0, missing))), constant_values=-1),
        np.pad(shares, ((0, 0), (0, max(0, missing)))).astype(np.float32),
    )
