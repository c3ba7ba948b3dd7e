"""Every adapter in a ranking model: it learns 32 rows by heart, and what has a time is not read before it."""

from __future__ import annotations

import numpy as np
import pytest
from ranking_data import prepared

torch = pytest.importorskip("torch")
from palate.evaluation.rating import auc  # noqa: E402
from palate.knowledge.as_of import Versions  # noqa: E402
from palate.models.adapters.as_of import AsOfVectors  # noqa: E402
from palate.models.adapters.registry import fitted  # noqa: E402
from palate.models.ranking.ranker import Ranker, RankerConfig, SideVectors  # noqa: E402
from palate.models.ranking.registry import BACKBONES  # noqa: E402

NAMES = ("hybrid-expert", "mlp", "contrastive", "similarity", "discrete", "cold-gate")
HARD = RankerConfig(
    width=8, batch=32, epochs=60, patience=60, learning_rate=0.03, warmup=5, average=0.0, weight_decay=0.0, threads=1
)


def knowledge(n_users: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((n, 6)).astype(np.float32) for n in (n_users, n_items))


@pytest.mark.parametrize("name", NAMES)
def test_learns_32_rows_by_heart(name):
    dataset, samples, features = prepared()
    rows = samples.train.take(np.arange(32))
    make, users, items = fitted(name, *knowledge(dataset.n_users, dataset.n_items), np.arange(dataset.n_items))
    params = {"hidden": (16,), "dropout": 0.0}
    ranker = Ranker("deepfm", HARD, params=params, adapter=make, vectors=SideVectors(users, items))
    assert auc(rows.labels[:, 0], ranker.fit(features, rows).predict(rows)) > 0.99


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in ("mmoe", "stem")])
def test_every_backbone_takes_the_fields(backbone):
    dataset, samples, features = prepared()
    rows = samples.train.take(np.arange(64))
    make, users, items = fitted("hybrid-expert", *knowledge(dataset.n_users, dataset.n_items), np.arange(30))
    config = HARD.model_copy(update={"epochs": 1})
    found = {}
    for given in ((users, items), (users[::-1].copy(), items)):
        ranker = Ranker(backbone, config, params={"hidden": (8,)}, adapter=make, vectors=SideVectors(*given))
        found[len(found)] = ranker.fit(features, rows).predict(rows)
    assert not np.allclose(found[0], found[1])  # what is known of users is read


def test_a_profile_from_the_future_is_never_read():
    dataset, samples, features = prepared()
    users, items = knowledge(dataset.n_users, dataset.n_items)
    times = samples.times
    early, late = int(np.quantile(times, 0.3)), int(np.quantile(times, 0.7))
    owners = np.repeat(np.arange(dataset.n_users), 2)
    versions, order = Versions.of(owners, np.tile([early, late], dataset.n_users))
    table = np.concatenate([users, users + 1])[np.argsort(np.tile([0, 1], dataset.n_users), kind="stable").argsort()]
    make, _, _ = fitted("mlp", users, items, np.arange(30))

    def said(rows: np.ndarray) -> np.ndarray:
        config = HARD.model_copy(update={"epochs": 1})
        vectors = AsOfVectors(rows[order], items, versions)
        ranker = Ranker("deepfm", config, params={"hidden": (8,)}, adapter=make, vectors=vectors)
        before = samples.take(times <= late)
        return ranker.fit(features, before.take(np.arange(200))).predict(before)

    future = table.copy()
    future[1::2] = 99.0  # the later version of everybody
    np.testing.assert_array_equal(said(table), said(future))
    past = table.copy()
    past[0::2] = 99.0
    assert not np.array_equal(said(table), said(past))
    rows = AsOfVectors(table[order], items, versions).rows(samples)[0]
    assert (rows[times <= early] == -1).all()
    assert (versions.since[rows[times > late]] == late).all()
