"""What was written before, as tokens, and where each short run of tokens occurs in it: the pool that drafts come from.

The trie forest of DARE/LASER (arXiv 2408.05676) and the suffix trees of SuffixDecoding (arXiv 2411.04975) answer one
question: what came after this run of tokens, and how often? Here the answers lie one behind the other in one array, and
beside it stands, sorted, a key of the run before each token: 16 bits each of a hash of its last one, two, four and
eight tokens. Runs that end alike lie side by side, so that a look-up of any of these lengths is two bisections, a count
is the width of what they find, and a stored token takes 16 bytes instead of an object per node. New answers are sorted
in small segments that are merged when there are too many of a size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from palate.data.whole_file import replace_file
from palate.errors import InputError, StorageError

Tokens = npt.NDArray[np.int32]
Places = npt.NDArray[np.int32]
Keys = npt.NDArray[np.uint64]
ORDERS = (1, 2, 4, 8)  # lengths of runs that a key is made of; the longest that occurs decides
_BITS = 16  # of each in a key
_MAGIC = b"palate drafts 1\n"
_BREAK = -1  # stands before each answer
_START = np.array([_BREAK], dtype=np.int32)
_FRESH = 32_768  # tokens that are not sorted yet
_CHUNK = 1_000_000  # tokens whose keys are made at a time
_MATCH = 8  # tokens behind a place that are compared
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Found:
    """What came after runs like the one asked about: `following` [m, length] tokens, -1 beyond the end of an answer.

    `matched` [m]: how many tokens before agree, at most eight.
    """

    following: Tokens
    matched: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.matched)


NOTHING = Found(np.zeros((0, 0), np.int32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class _Segment:
    """Keys ascending, and the place of the token that followed."""

    keys: Keys
    places: Places


class DraftStore:
    """Answers of one model, of one group of users or items.

    Args:
        tokenizer: Names the tokenizer (`tokenizer_digest`): tokens of another one mean something else.
        most_tokens: The oldest quarter of the answers is dropped where there are more.
    """

    def __init__(self, tokenizer: str = "", most_tokens: int = 50_000_000) -> None:
        self.tokenizer, self.most_tokens = tokenizer, most_tokens
        self._tokens = np.full(1024, _BREAK, dtype=np.int32)
        self._n = 0
        self._sorted_to = 0
        self._segments: list[_Segment] = []
        self._fresh = np.zeros(0, np.uint64)

    def __len__(self) -> int:
        """Tokens held, one a break included."""
        return self._n

    @property
    def nbytes(self) -> int:
        """Of the arrays: bounded by some 20 bytes a token."""
        held = self._tokens.nbytes + self._fresh.nbytes
        return held + sum(segment.keys.nbytes + segment.places.nbytes for segment in self._segments)

    def add(self, answers: Sequence[Sequence[int] | Tokens]) -> None:
        """Keep answers, their end tokens included, the oldest first."""
        kept = [np.asarray(answer, dtype=np.int32) for answer in answers if len(answer)]
        if not kept:
            return
        new = np.concatenate([part for answer in kept for part in (_START, answer)])
        if self._n + len(new) > len(self._tokens):
            room = max(2 * len(self._tokens), self._n + len(new))
            self._tokens = np.concatenate([self._tokens[: self._n], np.empty(room - self._n, np.int32)])
        self._tokens[self._n : self._n + len(new)] = new
        self._n += len(new)
        if self._n > self.most_tokens:
            self.shrink(3 * self.most_tokens // 4)
        elif self._n - self._sorted_to > _FRESH:
            self._sort()
        self._hash_fresh()

    def after(self, context: Sequence[int], length: int = 12, samples: int = 48) -> Found:
        """What followed the last tokens of `context` (the answer so far, without its prompt) in earlier answers.

        The longest run that occurs decides; of many places, `samples` are taken evenly over the time they were kept.
        """
        key = _key(np.array([self._own(context)]))[0]
        for order in range(len(ORDERS), 0, -1):
            places = self._places(key, order, samples)
            if len(places):
                found = self._read(places, context, length, ORDERS[order - 1])
                if len(found):
                    return found
        return NOTHING

    def shrink(self, most: int) -> None:
        """Keep the newest answers, `most` tokens of them at most."""
        breaks = np.flatnonzero(self._tokens[: self._n] == _BREAK)
        fits = breaks[breaks >= self._n - most]
        self._take_over(self._tokens[fits[0] if len(fits) else self._n : self._n])

    def save(self, path: Path) -> None:
        """Tokens alone: what is sorted is sorted again. Atomic.

        Raises:
            StorageError: It cannot be written.
        """
        body = self._tokens[: self._n].tobytes()
        facts = {"tokenizer": self.tokenizer, "tokens": self._n, "sha256": hashlib.sha256(body).hexdigest()}
        replace_file(path, _MAGIC + json.dumps(facts).encode() + b"\n" + body, "The drafts")

    @classmethod
    def load(cls, path: Path, tokenizer: str, most_tokens: int = 50_000_000) -> DraftStore:
        """What `save` wrote.

        Raises:
            StorageError: It cannot be read, or is damaged.
            InputError: It is of another tokenizer.
        """
        hint = "Delete it: drafts only make generation faster."
        try:
            magic, head, body = path.read_bytes().split(b"\n", 2)
            facts = json.loads(head)
            whole = magic + b"\n" == _MAGIC and hashlib.sha256(body).hexdigest() == facts["sha256"]
            if not whole or len(body) != 4 * facts["tokens"]:
                raise ValueError("its checksum does not fit")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError("The drafts cannot be read.", where=str(path), got=error, hint=hint) from error
        if facts["tokenizer"] != tokenizer:
            raise InputError(
                "The drafts are of another tokenizer.",
                where=str(path),
                got=facts["tokenizer"],
                allowed=tokenizer,
                hint=hint,
            )
        store = cls(tokenizer, most_tokens)
        store._take_over(np.frombuffer(body, dtype=np.int32))
        return store

    def _take_over(self, tokens: Tokens) -> None:
        self._tokens, self._n, self._sorted_to = tokens.copy(), len(tokens), 0
        self._segments = []
        self._sort()
        self._hash_fresh()

    def _sort(self) -> None:
        segments = [*self._segments, _sorted(*self._keys(self._sorted_to, self._n))]
        while len(segments) > 1 and len(segments[-2].keys) < 2 * len(segments[-1].keys):
            last, before = segments.pop(), segments.pop()
            segments.append(_merged(before, last))
        self._segments = segments
        self._sorted_to = self._n

    def _hash_fresh(self) -> None:
        self._fresh, _ = self._keys(self._sorted_to, self._n)

    def _keys(self, start: int, stop: int) -> tuple[Keys, Places]:
        """The key of each token from `start` on; 0 where it is a break, which continues nothing."""
        places, keys = np.arange(start, stop, dtype=np.int32), np.zeros(stop - start, np.uint64)
        for first in range(0, stop - start, _CHUNK):
            some = places[first : first + _CHUNK]
            keys[first : first + _CHUNK] = np.where(
                self._tokens[some] == _BREAK, np.uint64(0), _key(self._before(some))
            )
        return keys, places

    def _before(self, places: Places) -> Tokens:
        """[n, eight]: the tokens before each place, the nearest first; breaks from the answer's beginning on."""
        back = np.arange(1, _MATCH + 1, dtype=np.int32)
        before = self._tokens[np.maximum(places[:, None] - back, 0)]
        ended = np.logical_or.accumulate((before == _BREAK) | (places[:, None] < back), axis=1)
        return np.where(ended, np.int32(_BREAK), before)

    def _own(self, context: Sequence[int]) -> Tokens:
        own = np.full(_MATCH, _BREAK, dtype=np.int32)
        tail = np.asarray(context[-_MATCH:], dtype=np.int32)[::-1]
        own[: len(tail)] = tail
        return own

    def _places(self, key: np.uint64, order: int, samples: int) -> Places:
        """Of runs whose keys begin alike, evenly over the time they were kept."""
        free = np.uint64(_BITS * (len(ORDERS) - order))
        least = (key >> free) << free
        most = least | ((np.uint64(1) << free) - np.uint64(1))
        parts = []
        for segment in self._segments:
            first, last = segment.keys.searchsorted(least, "left"), segment.keys.searchsorted(most, "right")
            if last > first:
                parts.append(segment.places[np.unique(np.linspace(first, last - 1, samples).astype(np.int64))])
        fresh = np.flatnonzero((self._fresh >= least) & (self._fresh <= most))[-samples:]
        parts.append((fresh + self._sorted_to).astype(np.int32))
        places = np.concatenate(parts)
        if len(places) > samples:
            places = places[np.unique(np.linspace(0, len(places) - 1, samples).astype(np.int64))]
        return places

    def _read(self, places: Places, context: Sequence[int], length: int, order: int) -> Found:
        matched = np.logical_and.accumulate(self._before(places) == self._own(context), axis=1).sum(axis=1)
        ahead = places[:, None].astype(np.int64) + np.arange(length)
        following = self._tokens[np.minimum(ahead, self._n - 1)]
        ended = np.logical_or.accumulate((following == _BREAK) | (ahead >= self._n), axis=1)
        following = np.where(ended, _BREAK, following)
        keep = (matched >= order) & (following[:, 0] != _BREAK)  # else two hashes were the same by chance
        return Found(following[keep], matched[keep])


def tokenizer_digest(tokenizer: object) -> str:
    """16 hex digits of a transformers tokenizer's vocabulary."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()  # type: ignore[attr-defined]
    text = json.dumps(sorted(vocabulary.items()), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _key(before: Tokens) -> Keys:
    """Of the tokens before each place, [n, eight], the nearest first: hashes of 1, 2, 4 and 8 of them, 16 bits each.

    The lowest bit is set: 0 is the key of breaks.
    """
    mixed, key = np.zeros(len(before), np.uint64), np.zeros(len(before), np.uint64)
    for place in range(_MATCH):
        value = (mixed ^ (before[:, place].astype(np.int64) + 2).astype(np.uint64)) * _MIX
        mixed = value ^ (value >> np.uint64(29))
        if place + 1 in ORDERS:
            key = (key << np.uint64(_BITS)) | ((mixed * _MIX) >> np.uint64(64 - _BITS))
    return key | np.uint64(1)


def _sorted(keys: Keys, places: Places) -> _Segment:
    known = np.flatnonzero(keys)  # 0: breaks
    order = known[np.argsort(keys[known], kind="stable")]
    return _Segment(keys[order], places[order])


def _merged(first: _Segment, second: _Segment) -> _Segment:
    keys = np.concatenate([first.keys, second.keys])
    order = np.argsort(keys, kind="stable")
    return _Segment(keys[order], np.concatenate([first.places, second.places])[order])
