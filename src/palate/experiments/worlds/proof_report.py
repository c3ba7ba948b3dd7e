"""The rows of the proof's report, and what may be said of the published claims in these worlds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from palate.evaluation.bootstrap import Interval
from palate.experiments.worlds.lineup import BANDIT, BOOSTED, COUNTS, LLM, SEQUENCE, TOWERS, UCI
from palate.experiments.worlds.proof import ASSUMPTIONS, HEAD, Flip, Found, difference, mean_of, ordering

Row = dict[str, Any]
MAIN = ("novelty", "quality", "novel_quality", "returned", "discovered")


def cells(name: str, found: Interval) -> Row:
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def worlds_of(found: Found) -> list[str]:
    return list(dict.fromkeys(world for world, _ in found))


def policies_of(found: Found, world: str) -> list[str]:
    return [policy for name, policy in found if name == world]


def comparison_rows(found: Found) -> list[Row]:
    """Every policy in every world: the plane of novelty and quality, who comes back, and satisfaction beside SASRec."""
    rows = []
    for (world, policy), runs in found.items():
        row: Row = {"world": world, "policy": policy}
        for figure in MAIN:
            row |= cells(figure, mean_of([run[figure] for run in runs]))
        if (world, SEQUENCE) in found:
            row |= cells(f"satisfied, against {SEQUENCE}", difference(found, world, policy, SEQUENCE, "satisfied"))
        rows.append(row)
    return rows


def uci_rows(found: Found) -> list[Row]:
    """UCI@N of every policy, and the share that LLM exploration has more than the bandit."""
    rows = []
    for world in worlds_of(found):
        for n in UCI:
            row: Row = {"world": world, "N": n}
            for policy in policies_of(found, world):
                row[policy] = mean_of([run[f"uci@{n}"] for run in found[world, policy]]).mean
            if {LLM, BANDIT} <= set(policies_of(found, world)) and row[BANDIT]:
                row |= cells(f"{LLM} against {BANDIT}", difference(found, world, LLM, BANDIT, f"uci@{n}"))
            rows.append(row)
    return rows


def series_rows(found: Found, what: str, key: str) -> list[Row]:
    """`what@x` of every policy as points of lines, x in the column `key`."""
    rows = []
    for (world, policy), runs in found.items():
        for name in runs[0]:
            if name.startswith(f"{what}@"):
                row = {key: float(name.split("@")[1]), "line": _line(found, world, policy)}
                rows.append(row | cells(what, mean_of([run[name] for run in runs])))
    return rows


def plane_rows(found: Found) -> list[Row]:
    """Novelty and quality as points."""
    rows = []
    for (world, policy), runs in found.items():
        quality = cells("quality", mean_of([run["quality"] for run in runs]))
        novelty = mean_of([run["novelty"] for run in runs]).mean
        rows.append({"novelty": novelty, **quality, "line": _line(found, world, policy), "label": policy})
    return rows


def sensitivity_rows(found: Found, alone: str) -> list[Row]:
    """Each assumption's values: who is best, and LLM exploration against its rivals, relative, seed by seed."""
    rows = []
    for each in ASSUMPTIONS:
        for value in each.values:
            world = f"{each.name} {value:g}"
            if (world, LLM) not in found:
                continue
            row: Row = {"assumption": each.name, "value": value}
            for figure in ("satisfied", "discovered"):
                row[f"best by {figure}"] = ordering(found, world, figure)[0]
                for other in (alone, COUNTS, BANDIT):
                    row |= cells(f"{figure}, LLM against {other}", difference(found, world, LLM, other, figure))
            rows.append(row)
    return rows


def flip_rows(listed: Sequence[Flip]) -> list[Row]:
    return [
        {
            "assumption": flip.assumption,
            "figure": flip.figure,
            "ahead at first": flip.winner,
            "behind then": flip.loser,
            "from": flip.first,
            "to": flip.then,
            **cells("difference from", flip.ahead),
            **cells("difference to", flip.behind),
        }
        for flip in listed
    ]


def claims(found: Found) -> list[str]:
    """The published claims, each held against these worlds: a difference counts where its interval leaves 0 out."""
    said = []
    for world in worlds_of(found):
        if not {LLM, BANDIT, SEQUENCE, TOWERS, BOOSTED, COUNTS} <= set(policies_of(found, world)):
            continue
        seeds = len(found[world, LLM])
        for figure, rivals in (
            ("novelty", (BANDIT, BOOSTED, TOWERS, SEQUENCE)),
            ("quality", (BANDIT, BOOSTED, SEQUENCE)),
            ("satisfied", (BANDIT, COUNTS, SEQUENCE)),
            ("returned", (BANDIT, COUNTS, SEQUENCE)),
            ("discovered", (BANDIT, COUNTS, SEQUENCE)),
        ):
            words = [_against(found, world, rival, figure) for rival in rivals]
            said.append(f"{world} ({seeds} seeds), {LLM}, {figure}: {'; '.join(words)}.")
        more = [n for n in UCI if _uci_told(found, world, n) > 0]
        less = [n for n in UCI if _uci_told(found, world, n) < 0]
        nobody = [n for n in UCI if not sum(run[f"uci@{n}"] for run in [*found[world, LLM], *found[world, BANDIT]])]
        said.append(
            f"{world}: UCI@N of {LLM} above the {BANDIT}'s at N = {_listed(more)}, below at {_listed(less)}, not told "
            f"apart at the others; nobody got there at {_listed(nobody)}."
        )
    return said


def flips_by_chance(policies: int) -> float:
    """How many pairs would change places if no policy differed from another: 2.5% one way, and 2.5% the other way."""
    values = sum(len(each.values) * (len(each.values) - 1) for each in ASSUMPTIONS)
    return values * len(HEAD) * policies * (policies - 1) / 2 * 0.025**2


def flips_said(listed: Sequence[Flip], values: int) -> str:
    """Where the ordering hangs on an assumption, in one sentence."""
    if not listed:
        return f"No two policies that were told apart changed places over {values} variations of the assumptions."
    which = ", ".join(dict.fromkeys(f"{flip.assumption} ({flip.figure})" for flip in listed))
    return f"The order hangs on the assumptions: {len(listed)} changed places, each way beyond the interval: {which}."


def _against(found: Found, world: str, rival: str, figure: str) -> str:
    gap = difference(found, world, LLM, rival, figure)
    if len(found[world, LLM]) < 2:
        return f"{gap.mean:+.1%} against {rival} (one seed tells nothing apart)"
    told = "more than" if gap.low > 0 else "less than" if gap.high < 0 else "not told apart from"
    return f"{told} {rival} ({gap.mean:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}])"


def _uci_told(found: Found, world: str, n: int) -> int:
    gap = difference(found, world, LLM, BANDIT, f"uci@{n}")
    return int(gap.low > 0) - int(gap.high < 0)


def _line(found: Found, world: str, policy: str) -> str:
    return policy if len(worlds_of(found)) == 1 else f"{policy}, {world}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
