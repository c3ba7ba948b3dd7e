"""Of a few requests, what an answer does not tell: how narrow the restrict was, and whether retrieval was exact."""

from __future__ import annotations

import logging
import queue
import random
import threading

import numpy as np

from palate.data.dataset import FloatArray, IntArray
from palate.data.parse_expression import parse_expression
from palate.data.query import Query, Restrict
from palate.serving.metering import Meter
from palate.serving.observed import logger
from palate.serving.opened import Snapshot

_AT_ONCE = 2_000_000  # vectors beyond which brute force would hold a core for too long
_ROWS = 4096  # at a time: stay in a processor's cache
_K = 10


class Sampler:
    """Retrieves again, behind the answers, for a share of the requests, one at a time; those that come meanwhile are
    left out. Every allowed item is scored in float64, and the share of the ten best that the index finds is the recall.
    """

    def __init__(self, meter: Meter, share: float) -> None:
        self.meter, self.share = meter, share
        self._waiting: queue.Queue[tuple[Snapshot, str, str | None] | None] = queue.Queue(1)
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)

    def start(self) -> None:
        if self.share > 0:
            self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def offer(self, snapshot: Snapshot, user_id: str, restrict: str | None) -> None:
        """A request that was answered."""
        if self.share > 0 and random.random() < self.share and not self._waiting.full():
            self._waiting.put((snapshot, user_id, restrict))

    def look(self, snapshot: Snapshot, user_id: str, text: str | None) -> None:
        """Measure one request. New items beside the snapshot are not part of it."""
        index, history = snapshot.index.main, snapshot.history(user_id)
        restrict = Restrict(where=parse_expression(text)) if text and text.strip() else None
        sets = {"seen": history}
        allowed = index.allowed(restrict, sets)
        if restrict is not None:
            self.meter.selectivity.observe(len(allowed) / max(1, snapshot.n_built))
        if len(history) and 0 < len(allowed) <= _AT_ONCE:
            vectors = snapshot.encoder.encode([Query(user_id, history)])
            found, _ = index.search(vectors, restrict, _K, None, sets)
            best = self._best(snapshot, vectors[0], allowed)
            self.meter.recall.observe(len(np.intersect1d(found[0], best)) / len(best))

    def _best(self, snapshot: Snapshot, query: FloatArray, allowed: IntArray) -> IntArray:
        places, wide = snapshot.tree.position[allowed], query.astype(np.float64)
        blocks = [places[start : start + _ROWS] for start in range(0, len(places), _ROWS)]
        scores = np.concatenate([snapshot.vectors[block].astype(np.float64) @ wide for block in blocks])
        if len(scores) > _K:
            some = scores >= np.partition(scores, len(scores) - _K)[len(scores) - _K]
            allowed, scores = allowed[some], scores[some]
        best: IntArray = allowed[np.lexsort((allowed, -scores))[:_K]]
        return best

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None:
            try:
                self.look(*asked)
            except Exception:
                logger.log(logging.WARNING, "a sample failed", exc_info=True)
