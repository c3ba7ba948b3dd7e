"""Hierarchical contextual bandit: LinUCB (Li et al. 2010, arXiv 1003.0146) walking down the interest tree.

The baseline of LLMs for User Interest Exploration (Wang et al. 2024, arXiv 2405.16363): each node has a linear model
of its reward; from the root the walk takes the child of the largest upper bound. Here it is taught offline by replay of
the training meetings in time order: the reward of a walk is whether it leads to the interest that was met next, and
only nodes on the walk learn of it (supervised replay under bandit feedback, Dudík et al. 2014, arXiv 1103.4601).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palate.data.dataset import FloatArray, IntArray
from palate.interests.meetings import Flags, Meetings
from palate.interests.next_interest import reciprocal_rank, without_own
from palate.interests.tree import InterestTree

ALPHAS = (0.0, 0.1, 0.3, 1.0)  # searched on validation
Floats = npt.NDArray[np.float64]


class _Arm:
    """Ridge regression of one node's reward, its inverse kept up to date (Sherman & Morrison)."""

    def __init__(self, width: int, ridge: float) -> None:
        self.inverse = np.eye(width) / ridge
        self.sums = np.zeros(width)

    @property
    def weights(self) -> Floats:
        return self.inverse @ self.sums

    def bound(self, x: Floats, alpha: float) -> float:
        seen = self.inverse @ x
        return float(seen @ self.sums + alpha * np.sqrt(max(0.0, float(x @ seen))))

    def learn(self, x: Floats, reward: float) -> None:
        seen = self.inverse @ x
        self.inverse -= np.outer(seen, seen) / (1 + x @ seen)
        self.sums += reward * x

    def bounds(self, x: Floats, alpha: float) -> Floats:
        """`bound` of each row of `x` [n, width]."""
        seen = x @ self.inverse
        return np.asarray(seen @ self.sums + alpha * np.sqrt(np.maximum(0.0, (seen * x).sum(axis=1))))

    def learn_all(self, x: Floats, rewards: Floats) -> None:
        """`learn` of each row of `x` [n, width] at once."""
        self.inverse = np.asarray(np.linalg.inv(np.linalg.inv(self.inverse) + x.T @ x), dtype=np.float64)
        self.sums += rewards @ x


class TreeBandit:
    """A `NextInterest`: LinUCB over the nodes down to `level`.

    Args:
        tree, level: Interests are the nodes of this level, in order.
        contexts: What is known of each interest, [n_interests, d]; the context of a pair is their mean and a 1.
        alpha: Width of the upper bound while it learns: how much it explores.
        ridge: Of the regression.
    """

    name = "hierarchical bandit"

    def __init__(
        self, tree: InterestTree, level: int, contexts: FloatArray, alpha: float = 0.3, ridge: float = 1.0
    ) -> None:
        self.tree, self.level, self.alpha = tree, level, alpha
        self.contexts = contexts.astype(np.float64)
        self.first = tree.at_level(level)[0].node
        below = [node.node for node in tree.nodes if 0 < node.level <= level]
        self.paths = {leaf.node: _path(tree, leaf.node) for leaf in tree.at_level(level)}
        self.arms = {node: _Arm(contexts.shape[1] + 1, ridge) for node in below}

    def learn(self, meetings: Meetings, known: Flags) -> TreeBandit:
        """Replay `meetings` once, in their order; what was `known` [n, n_interests] before is not proposed."""
        contexts = self._contexts(meetings.pair)
        for x, own, label in zip(contexts, known, meetings.label.tolist(), strict=True):
            self._replay(x, self._left(own), self.first + label)
        return self

    def _left(self, known: Flags) -> set[int]:
        """The nodes that lead to an interest not yet known."""
        leaves = (self.first + np.flatnonzero(~known)).tolist()
        return {node for leaf in leaves for node in self.paths[leaf]}

    def _replay(self, x: Floats, left: set[int], label: int) -> None:
        node, goal = 0, set(self.paths[label])
        while self.tree.nodes[node].level < self.level:
            children = [c.node for c in self.tree.children(node) if c.node in left]
            node = max(children, key=lambda child: self.arms[child].bound(x, self.alpha))
            reward = float(node in goal)
            self.arms[node].learn(x, reward)
            if not reward:
                return  # what lies below a wrong node could not have been rewarded

    def walk(self, pairs: IntArray, known: Flags) -> IntArray:
        """The interest that each of `pairs` [n, 2] is led to, [n], -1 where all are `known` [n, n_interests].

        As online: nothing is learnt of it before `reward` says what came of it.
        """
        return self._walked(pairs, known)[:, -1]

    def reward(self, pairs: IntArray, interests: IntArray, rewards: npt.NDArray[np.floating]) -> None:
        """Teach every node on the way to `interests` [n] what came of it, all rows at once (bandit feedback)."""
        ways = np.array([self.paths[self.first + number] for number in range(len(self.paths))])[interests]
        contexts = self._contexts(pairs)
        for way in ways.reshape(len(pairs), self.level).T:
            self._learn_at(way, contexts, np.asarray(rewards, dtype=np.float64))

    def replay(self, meetings: Meetings, known: Flags, batch: int = 512) -> TreeBandit:
        """`learn`, where the rows of a batch are walked before any of them is learnt of: faster by far, less fresh."""
        ways = np.array([self.paths[self.first + number] for number in range(len(self.paths))])
        for start in range(0, len(meetings), batch):
            rows = slice(start, start + batch)
            pairs, goal = meetings.pair[rows], ways[meetings.label[rows]]
            walked = self._walked(pairs, known[rows], as_nodes=True)
            contexts, open_ = self._contexts(pairs), walked[:, 0] >= 0
            for way, right in zip(walked.T, goal.T, strict=True):
                hit = way == right
                self._learn_at(way[open_], contexts[open_], hit[open_].astype(np.float64))
                open_ = open_ & hit  # what lies below a wrong node could not have been rewarded
        return self

    def _walked(self, pairs: IntArray, known: Flags, as_nodes: bool = False) -> IntArray:
        """The nodes that each row walks over, one a level, [n, level]; the last as interests if not `as_nodes`."""
        contexts, leads = self._contexts(pairs), self._leads(known)
        here = np.zeros(len(pairs), dtype=np.int32)
        walked = np.full((len(pairs), self.level), -1, dtype=np.int32)
        some = np.flatnonzero(~known.all(axis=1))
        for level in range(self.level):
            for node in np.unique(here[some]):
                rows = some[here[some] == node]
                children = np.array([child.node for child in self.tree.children(int(node))])
                bounds = np.column_stack([self.arms[c].bounds(contexts[rows], self.alpha) for c in children.tolist()])
                walked[rows, level] = children[np.where(leads[rows][:, children], bounds, -np.inf).argmax(axis=1)]
            here[some] = walked[some, level]
        if not as_nodes:
            walked[some, -1] -= self.first
        return walked

    def _leads(self, known: Flags) -> Flags:
        """Whether a node leads to an interest that is not known, [n, nodes]."""
        below = np.zeros((known.shape[1], len(self.tree.nodes)), dtype=np.float32)
        for number in range(known.shape[1]):
            below[number, self.paths[self.first + number]] = 1
        return np.asarray((~known).astype(np.float32) @ below > 0)

    def _learn_at(self, nodes: IntArray, contexts: Floats, rewards: Floats) -> None:
        for node in np.unique(nodes):
            rows = nodes == node
            self.arms[int(node)].learn_all(contexts[rows], rewards[rows])

    def scores(self, pairs: IntArray) -> FloatArray:
        """The product of the expected rewards on the way to each interest."""
        contexts = self._contexts(pairs)
        expected = {node: np.clip(contexts @ arm.weights, 1e-6, 1.0) for node, arm in self.arms.items()}
        leaves = [
            np.prod([expected[node] for node in self.paths[leaf.node]], axis=0)
            for leaf in self.tree.at_level(self.level)
        ]
        return without_own(np.column_stack(leaves).astype(np.float32), pairs)

    def _contexts(self, pairs: IntArray) -> Floats:
        return np.column_stack([self.contexts[pairs].mean(axis=1), np.ones(len(pairs))])


def chosen_bandit(
    tree: InterestTree,
    level: int,
    contexts: FloatArray,
    train: Meetings,
    known: Flags,
    validation: Meetings,
    alphas: Sequence[float] = ALPHAS,
) -> TreeBandit:
    """The bandit whose `alpha` ranks the interests met in validation the highest (mean reciprocal rank)."""
    bandits = [TreeBandit(tree, level, contexts, alpha).learn(train, known) for alpha in alphas]
    if not len(validation):
        return bandits[0]
    return max(bandits, key=lambda bandit: reciprocal_rank(bandit.scores(validation.pair), validation.label))


def _path(tree: InterestTree, node: int) -> list[int]:
    """The nodes from below the root down to `node`."""
    path: list[int] = []
    while (parent := tree.nodes[node].parent) is not None:
        path.append(node)
        node = parent
    return path[::-1]
