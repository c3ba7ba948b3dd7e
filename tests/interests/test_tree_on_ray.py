"""A tree cut by the workers of a Ray cluster is the tree that one process cuts."""

import numpy as np
import pytest

from palate.interests.tree import TreeConfig, build_tree

pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_cuts_the_same_tree() -> None:
    import ray
    from ray.util.multiprocessing import Pool

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3000, 16)).astype(np.float32)
    traffic = np.floor(1000 / rng.permutation(np.arange(1, 3001)) ** 0.8)
    config = TreeConfig(branching=(4, 4, 4))
    alone = build_tree(vectors, traffic, config)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with Pool(2) as pool:
            together = build_tree(vectors, traffic, config, over=pool.map)
    finally:
        ray.shutdown()
    assert np.array_equal(alone.order, together.order)
    assert alone.nodes == together.nodes
