"""Golden labels in and out: CSV, and the JSON of Label Studio (labelstud.io/guide/task_format)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import COLUMNS, OPTIONAL, UNSURE, Skipped
from palate.knowledge.rater_labels import Label, RaterLabels

FORMATS = ("csv", "label-studio")
_OBJECT, _RATER = "item", "rater"  # names of Label Studio's tags
Found = tuple[str, Label | Skipped]  # where in the file, and the label or what is wrong with it


@dataclass(frozen=True)
class Imported:
    """What an import did: labels new to the golden set, changed, there already; and what was left out."""

    new: int
    changed: int
    same: int
    raters: dict[str, str]  # name to file
    skipped: list[Skipped]


def import_labels(path: Path, folder: Path, item_ids: Sequence[str], attributes: Sequence[Attribute]) -> Imported:
    """Put the labels of a file into the golden folder, each rater's into their own file, behind what is there.

    Rows that name an unknown item, attribute or option are left out and reported.

    Raises:
        InputError: The file cannot be read, or is of neither format.
        StorageError: A rater's file could not be written; those named before it are whole.
    """
    found = list(read_labels(path))
    labels, skipped = _fitting(found, set(item_ids), attributes)
    counts = {"new": 0, "changed": 0, "same": 0}
    files = {}
    for rater in dict.fromkeys(label.rater for label in labels):
        mine = RaterLabels(folder, rater)
        known = mine.current()
        news = []
        for label in {label.key: label for label in labels if label.rater == rater}.values():
            old = known.get(label.key)
            state = "new" if old is None else "same" if old.said == label.said else "changed"
            counts[state] += 1
            news += [] if state == "same" else [label]
        if news:
            mine.add(news)
        files[rater] = str(mine.path)
    return Imported(**counts, raters=files, skipped=skipped)


def read_labels(path: Path) -> Iterator[Found]:
    """The labels of a CSV or a Label Studio export, unchecked, each with its place in the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # read as text, ends of lines within a comment would change
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("The file could not be read as UTF-8 text.", where=str(path), got=error) from error
    if text.lstrip()[:1] in ("[", "{"):
        return _from_label_studio(path, text)
    return _from_csv(path, text)


def to_csv(labels: Sequence[Label]) -> str:
    columns = (*COLUMNS, *OPTIONAL)
    rows = [[getattr(label, column) for column in columns] for label in labels]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").write_csv()


def to_label_studio(labels: Sequence[Label], items: Mapping[str, Mapping[str, Any]]) -> str:
    """A task for each item, an annotation for each rater, a `choices` result for each label.

    `items`: further data of each item to show (title, text). The rater is a `textarea` result, since Label Studio
    accepts no `completed_by` that is not one of its users; a comment is the result's note (`meta.text`).
    """
    tasks: dict[str, dict[str, list[Label]]] = {}
    for label in labels:
        tasks.setdefault(label.item_id, {}).setdefault(label.rater, []).append(label)
    return json.dumps(
        [
            {
                "data": {**items.get(item_id, {}), "item_id": item_id},
                "annotations": [{"result": [_text(rater), *map(_choice, said)]} for rater, said in raters.items()],
            }
            for item_id, raters in tasks.items()
        ],
        indent=1,
    )


def label_studio_config(attributes: Sequence[Attribute]) -> str:
    """The labelling interface (XML) that such tasks belong to."""
    from xml.sax.saxutils import quoteattr

    lines = ["<View>", f'  <Header value="$title"/><Text name="{_OBJECT}" value="$text"/>']
    for each in attributes:
        choices = "".join(f"<Choice value={quoteattr(option)}/>" for option in (*each.options, UNSURE))
        lines.append(f"  <Header value={quoteattr(each.question)}/>")
        lines.append(f'  <Choices name={quoteattr(each.name)} toName="{_OBJECT}">{choices}</Choices>')
    return "\n".join([*lines, f'  <TextArea name="{_RATER}" toName="{_OBJECT}"/>', "</View>"]) + "\n"


def _text(rater: str) -> dict[str, Any]:
    return {"from_name": _RATER, "to_name": _OBJECT, "type": "textarea", "value": {"text": [rater]}}


def _choice(label: Label) -> dict[str, Any]:
    notes = {"text": None if label.comment is None else [label.comment], "at": label.at, "version": label.version}
    meta = {key: value for key, value in notes.items() if value is not None}
    made = {"from_name": label.attribute, "to_name": _OBJECT, "type": "choices", "value": {"choices": [label.label]}}
    return {**made, "meta": meta} if meta else made


def _from_csv(path: Path, text: str) -> Iterator[Found]:
    try:
        table = pl.read_csv(text.encode(), infer_schema=False)
    except pl.exceptions.NoDataError:
        return
    except pl.exceptions.PolarsError as error:
        raise InputError("The golden labels are not a readable CSV.", where=str(path), got=error) from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        where = f"{path}, column {missing[0]}"
        raise InputError("A column is missing.", where=where, got=", ".join(table.columns), allowed=COLUMNS)
    named = [column for column in (*COLUMNS, *OPTIONAL) if column in table.columns]
    for number, row in enumerate(table.select(named).iter_rows(named=True), start=2):
        empty = next((column for column in COLUMNS if row[column] is None), None)
        if empty is None:
            yield f"row {number}", Label(**row)
        else:
            yield f"row {number}", Skipped("a cell is empty", f"{path}, row {number}, column {empty}", "", "a text", 1)


def _from_label_studio(path: Path, text: str) -> Iterator[Found]:
    try:
        tasks = json.loads(text)
    except ValueError as error:
        raise InputError("This is not valid JSON.", where=str(path), got=error) from error
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], start=1):
        place = f"task {number}"
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("item_id"), str | int):
            yield place, Skipped("no item is named", f"{path}, {place}, data.item_id", "", "an item's id", 1)
            continue
        for annotation in _maps(task.get("annotations")):
            if annotation.get("was_cancelled"):
                yield place, Skipped("skipped in Label Studio", f"{path}, {place}", "was_cancelled", "annotations", 1)
                continue
            yield from _annotation(path, place, str(data["item_id"]), annotation)


def _annotation(path: Path, place: str, item_id: str, annotation: Mapping[str, Any]) -> Iterator[Found]:
    results = _maps(annotation.get("result"))
    rater = _rater(results, annotation.get("completed_by"))
    for result in results:
        if result.get("type") != "choices":
            continue
        chosen = _map(result.get("value")).get("choices")
        if not isinstance(chosen, list) or len(chosen) != 1 or not rater:
            allowed = "one choice, by a rater"
            yield place, Skipped("not one label", f"{path}, {place}", str(chosen or rater), allowed, 1)
            continue
        meta = _map(result.get("meta"))
        note = meta.get("text")
        comment = "\n".join(map(str, note)) if isinstance(note, list) else note
        at = meta.get("at", annotation.get("updated_at", annotation.get("created_at")))
        more = (None if value is None else str(value) for value in (comment, at, meta.get("version")))
        yield place, Label(item_id, str(result.get("from_name")), rater, str(chosen[0]), *more)


def _rater(results: Sequence[Mapping[str, Any]], completed_by: Any) -> str:
    """Our own text result; else Label Studio's user: e-mail, or number."""
    for result in results:
        if result.get("type") == "textarea" and result.get("from_name") == _RATER:
            said = _map(result.get("value")).get("text")
            return str(said[0] if isinstance(said, list) and said else said or "")
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by.get("id") or "")
    return "" if completed_by is None else str(completed_by)


def _fitting(
    found: Sequence[Found], item_ids: set[str], attributes: Sequence[Attribute]
) -> tuple[list[Label], list[Skipped]]:
    """Labels of known items, attributes and options; the others, alike ones counted together."""
    options = {attribute.name: {*attribute.options, "1", "0", UNSURE} for attribute in attributes}
    tests: tuple[tuple[str, Callable[[Label], bool], str, str], ...] = (
        ("rater", lambda each: _is_text(each.rater), "not a name", "text"),
        ("comment", lambda each: _is_text(each.comment or ""), "not a text", "text"),
        ("item_id", lambda each: each.item_id in item_ids, "no such item", "ids of the catalogue"),
        ("attribute", lambda each: each.attribute in options, "no such attribute", ", ".join(sorted(options))),
        ("label", lambda each: each.label in options[each.attribute], "no such option", f"an option, 1, 0, {UNSURE}"),
    )
    labels, skipped = [], list[Skipped]()
    for place, each in found:
        if isinstance(each, Skipped):
            skipped.append(each)
            continue
        bad = next((test for test in tests if not test[1](each)), None)
        if bad is None:
            labels.append(each)
        else:
            field, _, what, allowed = bad
            skipped.append(Skipped(what, f"{place}, column {field}", str(getattr(each, field)), allowed, 1))
    return labels, _counted(skipped)


def _counted(skipped: Sequence[Skipped]) -> list[Skipped]:
    alike: dict[str, Skipped] = {}
    for each in skipped:
        first = alike.setdefault(each.what, replace(each, count=0))
        alike[each.what] = replace(first, count=first.count + each.count)
    return list(alike.values())


def _is_text(value: str) -> bool:
    """JSON can hold halves of characters, which no file can."""
    return value == value.encode(errors="ignore").decode()


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
