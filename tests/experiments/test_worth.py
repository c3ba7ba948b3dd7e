import numpy as np
import pytest

from palate.data.dataset import FloatArray
from palate.data.query import Query
from palate.data.splits import Holdout
from palate.experiments.controls import OFF, RAW, Arm
from palate.experiments.worth import worth


class Flat:
    """Knows nothing: each query likes all items a little differently, at random."""

    name = "flat"

    def score(self, queries: list[Query], items: object = None) -> FloatArray:
        rng = np.random.default_rng(len(queries))
        return rng.random((len(queries), 80), dtype=np.float32)


def world(seed: int) -> tuple[FloatArray, Holdout]:
    """80 items in four tastes; people stay within one."""
    taste = np.arange(80) % 4
    rng = np.random.default_rng(seed)
    queries, targets = [], []
    for user in range(120):
        items = rng.permutation(np.flatnonzero(taste == user % 4))[:6].astype(np.int32)
        queries.append(Query(f"u{user}", items[:5]))
        targets.append(items[5:])
    return np.eye(4, dtype=np.float32)[taste], Holdout(queries, targets)


def test_knowledge_of_taste_survives_and_its_controls_are_turned_down() -> None:
    tastes, validation = world(0)
    test = world(1)[1]
    noise = np.random.default_rng(2).standard_normal((80, 4)).astype(np.float32)
    found = worth(Flat(), validation, test, [Arm("tastes", item=tastes, tokens=7)], Arm(RAW, item=noise), seeds=3)  # type: ignore[arg-type]
    assert found.suite.survives == {"tastes": True}
    rows = {row["knowledge"]: row for row in found.rows()}
    assert list(rows) == [OFF, "noise", "permuted", RAW, "tastes"]
    assert found.weight["tastes"] > 0
    assert found.weight[OFF] == 0
    assert rows["tastes"]["tokens"] == 7
    assert rows["tastes"]["ndcg"].mean > rows[OFF]["ndcg"].mean + 0.1  # type: ignore[attr-defined]
    assert rows["tastes"]["recall"].mean == pytest.approx(found.recall["tastes"].mean)  # type: ignore[attr-defined]
    assert rows[OFF]["survives"] is None
