"""What was written before, as tokens, and where each short run of tokens occurs in it: the pool that drafts come from.

The trie forest of DARE/LASER (arXiv 2408.05676) and the suffix trees of SuffixDecoding (arXiv 2411.04975) answer one
question: what came after this run of tokens, and how often? Here the answers lie one behind the other in one array, and
beside it, for runs of two lengths, stand a hash of the run before each token and the token's place, sorted by hash: a
look-up is two bisections, a count is the width of what they find, and a stored token takes 20 bytes instead of an
object per node. New answers are sorted in small segments that are merged when there are too many of a size.
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
ORDERS = (4, 2)  # lengths of runs that are looked up, the longest first
_MAGIC = b"palate drafts 1\n"
_BREAK = -1  # stands before each answer
_FRESH = 32_768  # tokens that are not sorted yet
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
    """Of one order: hashes ascending, and the place of the token that followed."""

    keys: npt.NDArray[np.uint32]
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
        self._segments: dict[int, list[_Segment]] = {order: [] for order in ORDERS}
        self._fresh: dict[int, npt.NDArray[np.uint32]] = {order: np.zeros(0, np.uint32) for order in ORDERS}

    def __len__(self) -> int:
        """Tokens held, one a break included."""
        return self._n

    @property
    def nbytes(self) -> int:
        """Of the arrays: bounded by some 24 bytes a token."""
        held = self._tokens.nbytes + sum(keys.nbytes for keys in self._fresh.values())
        return held + sum(s.keys.nbytes + s.places.nbytes for row in self._segments.values() for s in row)

    def add(self, answers: Sequence[Sequence[int]]) -> None:
        """Keep answers, their end tokens included, the oldest first."""
        for answer in answers:
            if not len(answer):
                continue
            new = np.concatenate([[_BREAK], np.asarray(answer, dtype=np.int32)])
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
        for order in ORDERS:
            places = self._places(order, context, samples)
            if len(places):
                found = self._read(places, context, length)
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
        self._segments = {order: [] for order in ORDERS}
        self._sort()
        self._hash_fresh()

    def _sort(self) -> None:
        for order in ORDERS:
            keys, places = self._keys(order, self._sorted_to, self._n)
            row = [*self._segments[order], _sorted(keys, places)]
            while len(row) > 1 and len(row[-2].keys) < 2 * len(row[-1].keys):
                last, before = row.pop(), row.pop()
                row.append(_merged(before, last))
            self._segments[order] = row
        self._sorted_to = self._n

    def _hash_fresh(self) -> None:
        for order in ORDERS:
            self._fresh[order] = self._keys(order, self._sorted_to, self._n)[0]

    def _keys(self, order: int, start: int, stop: int) -> tuple[npt.NDArray[np.uint32], Places]:
        """A hash of the `order` tokens before each token from `start` on; before an answer there are only breaks."""
        places = np.arange(start, stop, dtype=np.int32)
        mixed = np.zeros(len(places), np.uint64)
        open_ = self._tokens[start:stop] != _BREAK
        dead = np.zeros(len(places), dtype=bool)
        for back in range(1, order + 1):
            token = self._tokens[np.maximum(places - back, 0)]
            dead |= (token == _BREAK) | (places < back)
            mixed = _mix(mixed, np.where(dead, _BREAK, token))
        # A break is no continuation: its key is one that no look-up asks for with a chance worth speaking of.
        return np.where(open_, _short(mixed), np.uint32(0)), places

    def _places(self, order: int, context: Sequence[int], samples: int) -> Places:
        mixed = np.zeros(1, np.uint64)
        for back in range(1, order + 1):
            token = context[-back] if back <= len(context) else _BREAK
            mixed = _mix(mixed, np.array([token]))
        key = _short(mixed)[0]
        parts = []
        for segment in self._segments[order]:
            first, last = (int(np.searchsorted(segment.keys, key, side)) for side in ("left", "right"))
            if last > first:
                parts.append(segment.places[np.unique(np.linspace(first, last - 1, samples).astype(np.int64))])
        fresh = np.flatnonzero(self._fresh[order] == key)[-samples:]
        parts.append((fresh + self._sorted_to).astype(np.int32))
        places = np.concatenate(parts)
        if len(places) > samples:
            places = places[np.unique(np.linspace(0, len(places) - 1, samples).astype(np.int64))]
        return places

    def _read(self, places: Places, context: Sequence[int], length: int) -> Found:
        tokens = self._tokens
        back = np.arange(1, _MATCH + 1)
        before = tokens[np.maximum(places[:, None] - back, 0)]
        before = np.where(
            np.logical_or.accumulate((before == _BREAK) | (places[:, None] < back), axis=1), _BREAK, before
        )
        own = np.full(_MATCH, _BREAK, dtype=np.int32)
        tail = np.asarray(context[-_MATCH:], dtype=np.int32)[::-1]
        own[: len(tail)] = tail
        matched = np.logical_and.accumulate(before == own, axis=1).sum(axis=1)
        ahead = places[:, None].astype(np.int64) + np.arange(length)
        following = tokens[np.minimum(ahead, self._n - 1)]
        ended = np.logical_or.accumulate((following == _BREAK) | (ahead >= self._n), axis=1)
        following = np.where(ended, _BREAK, following)
        keep = (matched >= min(ORDERS)) & (following[:, 0] != _BREAK)  # else two hashes were the same by chance
        return Found(following[keep], matched[keep])


def tokenizer_digest(tokenizer: object) -> str:
    """16 hex digits of a transformers tokenizer's vocabulary."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()  # type: ignore[attr-defined]
    text = json.dumps(sorted(vocabulary.items()), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _mix(mixed: npt.NDArray[np.uint64], token: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    value = (mixed ^ (token.astype(np.int64) + 2).astype(np.uint64)) * _MIX
    return value ^ (value >> np.uint64(29))


def _short(mixed: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    return ((mixed >> np.uint64(32)).astype(np.uint32)) | np.uint32(1)


def _sorted(keys: npt.NDArray[np.uint32], places: Places) -> _Segment:
    known = np.flatnonzero(keys)  # 0: breaks
    order = known[np.argsort(keys[known], kind="stable")]
    return _Segment(keys[order], places[order])


def _merged(first: _Segment, second: _Segment) -> _Segment:
    keys = np.concatenate([first.keys, second.keys])
    order = np.argsort(keys, kind="stable")
    return _Segment(keys[order], np.concatenate([first.places, second.places])[order])
