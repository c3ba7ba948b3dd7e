"""Policies find what is planted, through nothing but what a recommender sees."""

from __future__ import annotations

import numpy as np
import pytest

from palate.errors import InputError
from palate.evaluation.off_policy import Replay, doubly_robust, ips, snips
from palate.experiments.worlds.config import WorldConfig
from palate.experiments.worlds.explorers import (
    AnyInterest,
    Banded,
    Counted,
    Explorer,
    Looked,
    drawn_pairs,
    explored_places,
    woven,
)
from palate.experiments.worlds.lineup import Trial, policy_of
from palate.experiments.worlds.policies import Explored, PopularItems, RandomItems
from palate.experiments.worlds.rankers import ContentRanker, Ranked
from palate.experiments.worlds.simulate import simulate
from palate.experiments.worlds.tables import by_meaning, meant_by, planted_table
from palate.experiments.worlds.truth import stream
from palate.experiments.worlds.world import Asked, SyntheticWorld
from palate.interests.bandit import TreeBandit
from palate.interests.meetings import first_meetings
from palate.interests.next_interest import reciprocal_rank

CONFIG = WorldConfig(people=200, items=400, interests=36, themes=6, dimensions=12, places=12, view_noise=0.2, tastes=8)


@pytest.fixture(scope="module")
def world():
    return SyntheticWorld(CONFIG, 0, 14)


def test_what_is_seen_tells_much_of_what_is_planted_and_not_all(world):
    purity = (meant_by(world)[world.catalogue.cluster_of] == world.truth.items.nearest[:, 0]).mean()
    assert 0.6 < purity < 1
    cosines = (world.catalogue.vectors * world.truth.items.vectors).sum(axis=1)
    assert 0.8 < cosines.mean() < 0.999


def test_the_likes_of_people_beat_popularity_and_popularity_beats_chance(world):
    runs = [simulate(world, policy) for policy in (RandomItems(), PopularItems(), Ranked(ContentRanker()))]
    assert runs[0].quality < runs[1].quality < runs[2].quality
    assert runs[0].novelty > runs[2].novelty


@pytest.mark.slow
def test_a_right_table_discovers_more_than_a_wrong_one_and_than_no_exploration():
    world = SyntheticWorld(CONFIG.model_copy(update={"interests": 120, "items": 1200, "people": 300}), 0, 5)
    chosen = {
        "right": Looked(planted_table(world, 0.0)),
        "wrong": Looked(planted_table(world, 1.0)),
        "any": AnyInterest(),
    }
    runs = {name: simulate(world, Explorer(ContentRanker(), chooser)) for name, chooser in chosen.items()}
    alone = simulate(world, Ranked(ContentRanker()))
    assert runs["right"].discovered > 1.2 * runs["wrong"].discovered
    assert runs["right"].discovered > 1.2 * runs["any"].discovered
    assert runs["right"].discovered > 1.2 * alone.discovered
    assert all(run.novelty > alone.novelty for run in runs.values())


@pytest.mark.parametrize("chooser", [AnyInterest(), Counted(), Banded()], ids=lambda chooser: chooser.name)
def test_explorers_lead_to_what_is_new_to_the_person(world, chooser):
    policy = Explorer(ContentRanker(), chooser, share=0.25)
    policy.begin(world.catalogue, len(world.truth.people.arrives), 0)
    log = world.log()
    policy.learn(log, 0)
    people = np.unique(log.before.person)
    asked = Asked(people, world.crowd().histories(people), 0)
    slates = policy.slates(asked, 12, stream(0, "test"))
    clusters, chosen = world.catalogue.cluster_of[slates.items], policy._chosen
    assert (chosen >= 0).mean() > 0.9
    met = np.zeros((len(world.truth.people.arrives), world.catalogue.n_clusters), bool)
    met[log.before.person, world.catalogue.cluster_of[log.before.item]] = True
    assert not met[people[chosen >= 0], chosen[chosen >= 0]].any()
    led = chosen >= 0
    assert (clusters[led][:, explored_places(12, 0.25)] == chosen[led, None])[:, 0].all()
    assert all(len(set(row)) == 12 for row in slates.items.tolist())
    policy.hear(asked, slates, np.zeros(slates.items.shape, bool), np.zeros(slates.items.shape, bool))


def test_who_is_led_in_vain_is_led_elsewhere(world):
    policy = Explorer(ContentRanker(), Looked(planted_table(world, 0.0)), patience=1)
    policy.begin(world.catalogue, len(world.truth.people.arrives), 0)
    policy.learn(world.log(), 0)
    people = np.arange(50)
    asked, led = Asked(people, world.crowd().histories(people), 0), set()
    for turn in range(4):
        slates = policy.slates(asked, 12, stream(turn, "test"))
        pairs = {(person, cluster) for person, cluster in enumerate(policy._chosen.tolist()) if cluster >= 0}
        assert not pairs & led
        led |= pairs
        policy.hear(asked, slates, np.zeros(slates.items.shape, bool), np.zeros(slates.items.shape, bool))


def test_the_bandit_learns_from_rewards_alone(world):
    catalogue = world.catalogue
    contexts = np.eye(catalogue.n_clusters, dtype=np.float32)
    bandit = TreeBandit(catalogue.tree, catalogue.level, contexts, alpha=0.5)
    rng, known = np.random.default_rng(0), np.zeros((300, catalogue.n_clusters), bool)
    good = 7
    for _ in range(25):
        pairs = rng.integers(0, catalogue.n_clusters, (300, 2)).astype(np.int32)
        walked = bandit.walk(pairs, known)
        bandit.reward(pairs, walked, (walked == good).astype(float))
    assert (bandit.walk(pairs, known) == good).mean() > 0.9
    known[:, good] = True
    assert not (bandit.walk(pairs, known) == good).any()
    known[:] = True
    assert (bandit.walk(pairs, known) == -1).all()
    bandit.reward(pairs[:0], walked[:0], np.zeros(0))


def test_replaying_in_batches_ranks_about_as_replaying_one_by_one(world):
    catalogue, log = world.catalogue, world.log()
    meetings = first_meetings(log.dataset(), catalogue.cluster_of)
    known = np.zeros((len(meetings), catalogue.n_clusters), bool)
    contexts = world.catalogue.vectors[:1].repeat(catalogue.n_clusters, axis=0)
    contexts = np.array([catalogue.vectors[catalogue.cluster_of == c].mean(axis=0) for c in range(len(contexts))])
    made = [TreeBandit(catalogue.tree, catalogue.level, contexts, 0.3) for _ in range(3)]
    ranks = [
        reciprocal_rank(bandit.scores(meetings.pair), meetings.label)
        for bandit in (made[0].learn(meetings, known), made[1].replay(meetings, known, 64), made[2])
    ]
    assert ranks[1] > ranks[2] * 1.5  # one that has learnt nothing
    assert ranks[1] > ranks[0] * 0.7


def test_pairs_are_drawn_by_recency_and_distinct():
    cluster_of = np.array([0, 1, 2, 2])
    histories = np.tile(np.array([-1, 0, 1, 2, 3], np.int32), (4000, 1))
    pairs = drawn_pairs(histories, cluster_of, np.random.default_rng(0))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    has = [(pairs == cluster).any(axis=1).mean() for cluster in range(3)]
    assert has[2] > has[1] > has[0]
    alone = drawn_pairs(np.array([[-1, 2, 3]], np.int32), cluster_of, np.random.default_rng(0))
    np.testing.assert_array_equal(alone, [[2, 2]])


def test_explored_places_are_woven_in():
    places = explored_places(6, 0.34)
    assert places.sum() == 2
    base, new = np.array([[1, 2, 3, 4, 5, 6]] * 2, np.int32), np.array([[10, 11], [10, -1]], np.int32)
    woven_in = woven(base, new, places)
    np.testing.assert_array_equal(woven_in, [[1, 2, 10, 3, 4, 11], [1, 2, 10, 3, 4, 5]])


def test_a_planted_table_is_as_wrong_as_stated(world):
    right, wrong = planted_table(world, 0.0), planted_table(world, 0.25)
    assert len(right.next) == 36 * 37 // 2
    there = right.next < 65_535
    assert (right.next != wrong.next)[there].mean() == pytest.approx(0.25 * 35 / 36, abs=0.02)
    pair = np.array([[3, 9]])
    links = world.truth.interests.related[meant_by(world)[[3, 9]]].sum(axis=0)
    first = right.look_up(pair)[0][0, 0]
    assert links[meant_by(world)[first]] == pytest.approx(
        max(links[meant_by(world)[c]] for c in range(36) if c not in (3, 9))
    )
    with pytest.raises(InputError, match="error rate"):
        planted_table(world, 1.5)


def test_off_policy_estimates_cover_the_worlds_true_value(world):
    """Logged with random places; the target explores less. The truth is known from the world's own chances.

    The model of rewards that doubly robust estimates lean on is wrong on purpose.
    """
    people = np.unique(world.log().before.person)
    asked = Asked(people, world.crowd().histories(people), 0)
    policy = Explored(Ranked(ContentRanker()), 0.5)
    policy.begin(world.catalogue, len(world.truth.people.arrives), 0)
    policy.learn(world.log(), 0)
    base = policy.base.slates(asked, 12, stream(0, "base")).items
    size, crowd = int(world.catalogue.sizes[0]), world.crowd()
    looks = crowd.look_chance(12)
    every = crowd.chances(people, np.tile(np.arange(size, dtype=np.int32), (len(people), 1)), 0)[0]
    own = np.take_along_axis(every, base.astype(np.int64), axis=1)
    truth = ((0.9 * own + 0.1 * every.mean(axis=1, keepdims=True)) * looks).sum(axis=1).mean()
    target, covered = Explored(policy.base, 0.1), {"ips": [], "snips": [], "dr": []}
    widths: dict[str, list[float]] = {name: [] for name in covered}
    expected = 0.6 * every + 0.1
    own_expected = np.take_along_axis(expected, base.astype(np.int64), axis=1)
    under_target = (0.9 * own_expected + 0.1 * expected.mean(axis=1, keepdims=True)) * looks
    target.catalogue = world.catalogue
    rng, n = np.random.default_rng(1), len(people)
    for run in range(600):
        who = rng.integers(0, n, n)  # people are drawn anew: the interval is for a population
        drawn, own_base = rng.integers(0, size, base.shape, dtype=np.int32), base[who]
        shown = np.where(rng.random(base.shape) < 0.5, drawn, own_base)
        looked = crowd.looked(np.arange(n), 12, 0, run)
        taken = looked & (rng.random(base.shape) < every[who[:, None], shown])
        replay = Replay(taken, target.chance(own_base, shown, 0), policy.chance(own_base, shown, 0))
        logged = expected[who[:, None], shown] * looks
        found = {"ips": ips(replay), "snips": snips(replay), "dr": doubly_robust(replay, logged, under_target[who])}
        for name, estimate in found.items():
            covered[name].append(estimate.value.low <= truth <= estimate.value.high)
            widths[name].append(estimate.value.high - estimate.value.low)
    for name, hits in covered.items():
        assert 0.93 <= np.mean(hits) <= 0.97, (name, np.mean(hits))
    assert np.mean(widths["dr"]) < np.mean(widths["ips"])


def test_a_table_of_meanings_becomes_one_of_clusters(world):
    interests = planted_table(world, 0.0)
    found = by_meaning(world, interests)
    assert found.n_interests == world.catalogue.n_clusters


def test_unknown_names_are_said():
    with pytest.raises(InputError, match="no such policy"):
        policy_of(Trial("w", CONFIG, 0, 7, "telepathy"), None)
    with pytest.raises(InputError, match="no such ranker"):
        policy_of(Trial("w", CONFIG, 0, 7, "random", ranker="telepathy"), None)
