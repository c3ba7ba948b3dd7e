"""Probabilities of options from those of their tokens, for engines that see tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Tokens = tuple[int, ...]


def option_probabilities(
    paths: Sequence[Tokens], shares: Callable[[Tokens, list[int]], dict[int, float]]
) -> tuple[float, ...]:
    """Chain rule over the tokens of the options, wherever they branch: what sampling held to the options would draw.

    Args:
        paths: Tokens of each option.
        shares: From the tokens so far and the tokens that may follow to the share of each of these, summing to 1.

    Raises:
        ValueError: if two options are the same tokens, or one begins another: there the branches would not sum to 1.
    """
    if len(set(paths)) < len(paths):
        raise ValueError("two options have the same tokens")
    if any(a != b and b[: len(a)] == a for a in paths for b in paths):
        raise ValueError("one option begins another: word the options differently")
    probabilities = [1.0] * len(paths)
    frontier: list[Tokens] = [()]
    while frontier:
        prefix = frontier.pop()
        inside = [i for i, path in enumerate(paths) if path[: len(prefix)] == prefix]
        branches = sorted({paths[i][len(prefix)] for i in inside}) if len(inside) > 1 else []
        if len(branches) > 1:
            found = shares(prefix, branches)
            for i in inside:
                probabilities[i] *= found[paths[i][len(prefix)]]
        frontier += [(*prefix, token) for token in branches]
    return tuple(probabilities)
