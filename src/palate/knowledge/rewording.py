"""Another wording for one entry of a YAML file that people wrote, with everything else left byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Edit = tuple[int, int, str]  # from, to (characters), what stands there instead


def reworded(folder: Path, name: str, wording: Mapping[str, Any]) -> tuple[Path, str] | None:
    """File and new text in which the entry `name` has the keys of `wording`.

    None: no entry has that name (a part of a `multi` has none), or a comment, an anchor or an entry beside it would
    be lost.
    """
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        text = file.read_bytes().decode()  # as it stands: newlines are not translated
        entry = _entry(yaml.compose(text, Loader=yaml.SafeLoader), name)
        if entry is not None:
            found = _edited(text, entry, wording)
            return (file, found) if found is not None and _as_meant(text, found, name, wording) else None
    return None


def _entry(root: yaml.Node | None, name: str) -> yaml.MappingNode | None:
    entries = root.value if isinstance(root, yaml.SequenceNode) else [root]
    for entry in entries:
        if isinstance(entry, yaml.MappingNode) and any(k.value == "name" and v.value == name for k, v in entry.value):
            return entry
    return None


def _edited(text: str, entry: yaml.MappingNode, wording: Mapping[str, Any]) -> str | None:
    present = {key.value: (key, value) for key, value in entry.value}
    standing = {k: yaml.SafeLoader("").construct_object(v, deep=True) for k, (_, v) in present.items() if k in wording}
    newline = "\r\n" if "\r\n" in text else "\n"
    edits: list[Edit] = []
    added = {}
    for key, wanted in wording.items():
        if standing.get(key, "" if isinstance(wanted, str) else []) == wanted:
            continue
        if key not in present:
            added[key] = wanted
            continue
        span = _span(text, *present[key])
        if span is None:
            return None
        edits.append((*span, _spelt(wanted, present[key][0].start_mark.column, bool(entry.flow_style))))
    if added:
        edits.append(_insertion(entry, added))
    for start, end, instead in sorted(edits, reverse=True):
        text = text[:start] + instead.replace("\n", newline) + text[end:]
    return text


def _span(text: str, key: yaml.Node, value: yaml.Node) -> tuple[int, int] | None:
    """Where the value of a key stands, from the colon on; None where more than the value would go."""
    start = text.find(":", key.end_mark.index) + 1
    leaves = list(_leaves(value))
    end = max([leaf.end_mark.index for leaf in leaves] or [value.end_mark.index])
    if isinstance(value, yaml.CollectionNode) and value.flow_style:
        end = value.end_mark.index
    elif leaves and getattr(leaves[-1], "style", None) in ("|", ">"):
        end -= len(text[:end]) - len(text[:end].rstrip())  # the newlines after it stay
    if not key.end_mark.index < start <= value.start_mark.index <= end:
        return None  # an alias: its value stands somewhere else
    between, at = "", start
    for leaf in leaves:
        first_line = text[leaf.start_mark.index :].split("\n", 1)[0] if leaf.style in ("|", ">") else ""
        between, at = between + text[at : leaf.start_mark.index] + first_line, leaf.end_mark.index
    return None if set("#&*!") & set(between + text[at:end]) else (start, end)


def _leaves(node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.SequenceNode) else []:
        yield from _leaves(child)


def _spelt(value: Any, column: int, flow: bool) -> str:
    """After the colon of a key at `column`: JSON is YAML; a list stands below its key, an item a line."""
    if isinstance(value, str) or flow or not value:
        return " " + json.dumps(value, ensure_ascii=False)
    return "".join(f"\n{' ' * (column + 2)}- {json.dumps(item, ensure_ascii=False)}" for item in value)


def _insertion(entry: yaml.MappingNode, added: Mapping[str, Any]) -> Edit:
    """New keys in front of the key that follows the question, or of the second."""
    key, value = entry.value[0]
    spelt = [f"{k}:{_spelt(v, key.start_mark.column, bool(entry.flow_style))}" for k, v in added.items()]
    if entry.flow_style:
        at = value.end_mark.index
        return at, at, "".join(f", {line}" for line in spelt)
    keys = [k.value for k, _ in entry.value]
    behind = keys.index("question") + 1 if "question" in keys[:-1] else 1
    at = entry.value[behind][0].start_mark.index
    return at, at, "".join(f"{line}\n{' ' * key.start_mark.column}" for line in spelt)


def _as_meant(before: str, after: str, name: str, wording: Mapping[str, Any]) -> bool:
    """Read again, the entry says what it should and every other entry what it said."""
    try:
        old, new = yaml.safe_load(before), yaml.safe_load(after)
    except yaml.YAMLError:
        return False
    for entry in old if isinstance(old, list) else [old]:
        if isinstance(entry, dict) and entry.get("name") == name:
            entry |= {key: value for key, value in wording.items() if value or key in entry}
    return bool(old == new)
