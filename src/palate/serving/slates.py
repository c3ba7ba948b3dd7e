"""What the API answers with a slate: variant, seed, state, the pipeline, and the log of what was shown."""

from __future__ import annotations

import hashlib
import time
import uuid
from typing import Any

import numpy as np

from palate.data.dataset import IntArray
from palate.data.parse_expression import parse_expression
from palate.data.query import Restrict
from palate.serving import describe
from palate.serving.live import Live, Past
from palate.serving.metering import Meter
from palate.serving.opened import Snapshot
from palate.serving.pipeline import Slate, slate_steps
from palate.serving.stages import Steps
from palate.serving.state import Impression
from palate.serving.variants import Variants


def parse_restrict(text: str | None, snapshot: Snapshot) -> Restrict | None:
    """An expression as `palate.data.parse_expression` reads it; None for nothing.

    Raises:
        InputError: naming the place in the text, for one that cannot be read, is too large, or names a field,
            value, interest or set that the snapshot does not have.
    """
    if text is None or not text.strip():
        return None
    expression = parse_expression(text)
    snapshot.index.main.restricts.check(expression, ("seen",))
    return Restrict(where=expression)


class Slates:
    """Slates of what is live, by the variant that each person has; `meter` counts stages and what was gone without."""

    def __init__(self, live: Live, variants: Variants, meter: Meter) -> None:
        self.live, self.variants, self.meter = live, variants, meter

    def answer(
        self,
        snapshot: Snapshot,
        who: str | IntArray,
        n: int,
        restrict: str | None,
        explain: bool,
        request_id: str | None = None,
        variant: str | None = None,
        past: Past | None = None,
    ) -> Steps[dict[str, Any]]:
        """For a user, or for a history of item_nums; another snapshot may be live before the answer is made.

        The same request id, person, variant and snapshot give the same slate, but for what is explored until a refresh.

        Raises:
            InputError: for a restrict or a variant that cannot be.
        """
        live, request_id = self.live, request_id or uuid.uuid4().hex
        user_id = who if isinstance(who, str) else ""
        label, config = self.variants.of(user_id or request_id, variant)
        asked_for = who.encode() if isinstance(who, str) else who.tobytes()
        seed = hashlib.sha256(asked_for + f"|{request_id}".encode()).digest()[:8]
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        now, asked = time.time_ns() // 1000, parse_restrict(restrict, snapshot)
        since, rejected = (None, None) if past is None else (past.since, past.rejected)
        encode = None if past is None else live.encoding(user_id, snapshot, past)
        with self.meter.stage("slate"):
            slate = yield from slate_steps(snapshot, who, n, asked, explain, rng, config, now, since, rejected, encode)
        live.show(_shown(slate, label, request_id, user_id, now, snapshot))
        self.meter.timed(slate.seconds, (each.part for each in slate.fallbacks))
        return {
            "request_id": request_id,
            "snapshot": snapshot.name,
            "variant": label,
            "fallbacks": [str(each) for each in slate.fallbacks],
            "items": [describe.recommendation(each, explain) for each in slate],
        }


def _shown(slate: Slate, label: str, request_id: str, user_id: str, now: int, snapshot: Snapshot) -> list[Impression]:
    return [
        Impression(
            request_id,
            user_id,
            each.item_id,
            now,
            place,
            each.source,
            each.score,
            label,
            each.propensity,
            snapshot.name,
        )
        for place, each in enumerate(slate)
    ]
