"""Clusters by who met what; one call for each; newcomers get a place without any."""

from __future__ import annotations

import numpy as np
import pytest
from profile_data import FACTORS, Echo, log

from palate.knowledge.clusters import kmeans, nearest, soft_assignment
from palate.knowledge.collective import (
    CollectiveConfig,
    ask_clusters,
    cluster_ids,
    item_titles,
    make_clusters,
    seen_only,
    user_titles,
)
from palate.knowledge.profiles import Interview, ProfileConfig, seen_first


@pytest.fixture(scope="module")
def data():
    return log(n_users=40, n_items=30, n_events=14)


def test_people_of_one_taste_share_a_cluster(data):
    seen = seen_only(data, np.ones(data.events.height, bool))
    clusters = make_clusters(seen, CollectiveConfig(clusters=2, titles=5))
    shares = clusters.user_shares(seen_first(data), data.n_users)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    side = shares.argmax(1)
    odd = np.arange(data.n_users) % 2
    assert max((side == odd).mean(), (side != odd).mean()) > 0.9
    for titles in user_titles(seen, clusters):
        assert len(set((titles % 2).tolist())) == 1  # what lifts a cluster is of its taste
    assert all(len(titles) for titles in item_titles(clusters))


def test_one_call_for_a_cluster_and_none_for_a_newcomer(data):
    train = data.events["user_num"].to_numpy() < 30
    seen, llm = seen_only(data, train), Echo()
    clusters = make_clusters(seen, CollectiveConfig(clusters=3))
    users, _ = ask_clusters(seen, clusters, Interview(FACTORS, llm, ProfileConfig()))
    assert len(llm.asked) == 6
    assert users["entity"].to_list() == cluster_ids("user", 3)
    assert users["as_of"].dtype.time_unit == "us"
    assert int(users["as_of"].to_physical()[0]) == seen.histories.times.max()
    shares = clusters.user_shares(seen_first(data), data.n_users)
    assert shares[30:].any(axis=1).all()
    assert len(llm.asked) == 6


def test_an_item_that_nobody_met_belongs_nowhere(data):
    seen = seen_only(data, np.zeros(data.events.height, bool))
    clusters = make_clusters(seen, CollectiveConfig(clusters=3))
    assert not clusters.item_shares().any()
    assert not clusters.user_shares(seen_first(data), data.n_users).any()


def test_membership_is_a_softmax_over_the_nearest():
    centres = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    shares = soft_assignment(np.array([[2, 1], [0, 0]], np.float32), centres, top=2, temperature=0.5)
    cosines = np.array([2, 1]) / np.sqrt(5) / 0.5
    wanted = np.exp(cosines) / np.exp(cosines).sum()
    np.testing.assert_allclose(shares[0], [*wanted, 0, 0], atol=1e-6)
    assert not shares[1].any()


def test_kmeans_finds_what_is_apart_and_survives_little():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.standard_normal((20, 2)) * 0.1 + centre for centre in ([0, 0], [5, 0], [0, 5])])
    centres = kmeans(rows, 3, np.random.default_rng(1))
    owners = nearest(rows, centres).reshape(3, 20)
    assert [len(set(group.tolist())) for group in owners] == [1, 1, 1]
    assert len(set(owners[:, 0].tolist())) == 3
    assert kmeans(rows[:1], 4, rng).shape == (4, 2)  # fewer rows than clusters
    assert kmeans(rows[:0], 2, rng).shape == (2, 2)
