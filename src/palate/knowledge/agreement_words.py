"""What the figures of an agreement report say, in words: a line for each attribute, and the first line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Part = Mapping[str, Any]
CHANCE, WORSE, AS_GOOD, UNTESTED, UNKNOWN = "chance", "worse", "as good", "untested", "unknown"


def standing(source: Part) -> str:
    """Where a source stands on one attribute."""
    row, test = source.get("measured"), source.get("test")
    if not row or math.isnan(row["auc"]):
        return UNKNOWN
    if not row["auc_low"] > 0.5:
        return CHANCE
    if test is None:
        return UNTESTED
    return AS_GOOD if test["passed"] else WORSE


def attribute_verdict(part: Part) -> str:
    """One line: who is as good as a person, who is not, who is no better than chance, of whom nothing can be said."""
    said = []
    for state, words, figures in (
        (AS_GOOD, "as good as a person", _against_people),
        (WORSE, "better than chance, not shown as good as a person", _against_people),
        (UNTESTED, "better than chance, people cannot be compared", _auc),
        (CHANCE, "no better than chance", _auc),
    ):
        found = [f"{name} ({figures(source)})" for name, source in part["sources"].items() if standing(source) == state]
        if found:
            said.append(f"{words}: {', '.join(found)}")
    unknown = [f"{name} ({_heard(s)})" for name, s in part["sources"].items() if standing(s) == UNKNOWN]
    if unknown:
        said.append(f"cannot be said: {', '.join(unknown)}")
    return f"{part['attribute']}: {'; '.join(said) or 'no source of labels'}."


def overall_verdict(parts: Sequence[Part], rows: Sequence[Part]) -> str:
    """Is a source as good as a person, on which attributes, how sure; first of all, which are no better than chance."""
    sources = list(dict.fromkeys(name for part in parts for name in part["sources"]))
    if not sources:
        return "There is no source of labels to measure."
    chance = [line for line in (_chance(source, parts, rows) for source in sources) if line]
    silent = [name for name in sources if set(_states(name, parts).values()) == {UNKNOWN}]
    known = [(source, _tested(source, parts)) for source in sources]
    tested = [line for _, line in known if line]
    said = [*chance, *(f"{name} cannot be measured: {_most_heard(name, parts)}." for name in silent), *tested]
    if not tested:
        said.append("Whether any source is as good as a person cannot be said: " + _why_not(parts) + ".")
    return " ".join(said)


def _chance(source: str, parts: Sequence[Part], rows: Sequence[Part]) -> str:
    states = _states(source, parts)
    measured = [name for name, state in states.items() if state != UNKNOWN]
    at_chance = [name for name in measured if states[name] == CHANCE]
    if not at_chance:
        return ""
    mean = next((row for row in rows if row["attribute"] == "all" and row["source"] == source), None)
    if len(at_chance) == len(measured) or (mean and not mean["auc_low"] > 0.5):
        figure = f"mean AUC {_figure(mean, 'auc')}; " if mean else ""
        one_by_one = f"one by one, no better on {len(at_chance)} of {len(measured)} attributes"
        return f"{source} is no better than chance ({figure}{one_by_one})."
    return f"{source} is no better than chance on {len(at_chance)} of {len(measured)} attributes ({_names(at_chance)})."


def _tested(source: str, parts: Sequence[Part]) -> str:
    good, tested, wins, people = [], 0, 0, 0
    for part in parts:
        found = part["sources"].get(source, {})
        if found.get("test") is None or standing(found) == UNKNOWN:
            continue
        tested += 1
        wins, people = wins + len(found["test"]["rejected"]), people + len(found["test"]["p_values"])
        good += [part["attribute"]] if standing(found) == AS_GOOD else []
    if not tested:
        return ""
    sure = f"stands in for {wins} of {people} raters tested"
    if not good:
        return f"{source} is not shown to be as good as a person on any of {tested} attributes ({sure})."
    return f"{source} is as good as a person on {len(good)} of {tested} attributes ({_names(good)}; {sure})."


def _states(source: str, parts: Sequence[Part]) -> dict[str, str]:
    return {part["attribute"]: standing(part["sources"][source]) for part in parts if source in part["sources"]}


def _why_not(parts: Sequence[Part]) -> str:
    raters = {name for part in parts for name in part["raters"]}
    if len(raters) < 2:
        return f"the held-out labels are of {len(raters)} rater(s)"
    if all(part["alpha"] is None for part in parts):
        return "no held-out item was rated by two people"
    return "too few items were rated by several people"


def _against_people(source: Part) -> str:
    test, ceiling = source["test"], source["ceiling"]
    wins = f"stands in for {len(test['rejected'])} of {len(test['p_values'])} raters"
    near = f"at least as near to the others {test['advantage_probability']:.0%} of the time"
    lead, people = ceiling["f1_lead"], ceiling["people_f1"]["mean"]
    sign = f"{lead['mean']:+.2f} [{lead['low']:+.2f}, {lead['high']:+.2f}]"
    return f"{wins}, {near}, F1 {sign} to their {people:.2f}"


def _heard(source: Part) -> str:
    return f"{source['heard_yes']} yes of the {source['heard']} held-out items it spoke of"


def _most_heard(name: str, parts: Sequence[Part]) -> str:
    found = [part["sources"][name] for part in parts if name in part["sources"]]
    return "at most " + _heard(max(found, key=lambda source: int(source["heard_yes"])))


def _auc(source: Part) -> str:
    return f"AUC {_figure(source['measured'], 'auc')}"


def _figure(row: Part, name: str) -> str:
    return f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"


def _names(names: Sequence[str], shown: int = 4) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
