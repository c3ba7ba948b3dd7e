"""Two towers: the contract, and that taste is learnt from what goes together."""

from __future__ import annotations

import numpy as np
from recommender_contract import RecommenderContract, dataset_of, query_of

from palate.data.splits import split_global_time
from palate.models.two_tower import TwoTower, TwoTowerConfig

CONFIG = TwoTowerConfig(dimensions=16, epochs=3, warmup=0)


class TestTwoTower(RecommenderContract):
    @classmethod
    def model(cls) -> TwoTower:
        return TwoTower(CONFIG)


def test_it_learns_two_tastes_and_stops_on_validation() -> None:
    rng = np.random.default_rng(0)
    data = dataset_of([(10 * (u % 2) + rng.permutation(10)).tolist() for u in range(80)], 20)
    split = split_global_time(data, 0.2, 0.2)
    config = TwoTowerConfig(dimensions=16, epochs=40, warmup=0, learning_rate=0.01, batch=64, dropout=0.0)
    model = TwoTower(config).fit(split.train, validation=split.validation)
    scores = model.score([query_of(1, 2, 3), query_of(11, 12, 13)])
    assert scores[0, :10].mean() > scores[0, 10:].mean()
    assert scores[1, 10:].mean() > scores[1, :10].mean()
