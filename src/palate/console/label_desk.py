"""What the labelling page shows and keeps: the queue, the questions, and each rater's own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.attributes import Attribute
from palate.knowledge.golden_set import UNSURE
from palate.knowledge.rater_labels import LONGEST_COMMENT, Label, RaterLabels, now, rater_name

View = dict[str, Any]
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_LARGEST = 20_000_000  # bytes of a picture


@dataclass(frozen=True)
class Desk:
    """`queue` (item_ids, in order) and `attributes` are what every rater is asked; labels go to `folder`.

    Pictures are shown where an item's `media` names one within `home`.
    """

    dataset: Dataset
    attributes: Sequence[Attribute]
    queue: Sequence[str]
    folder: Path
    home: Path

    def state(self, rater: str) -> View:
        """All that the page needs: questions, items, and what this rater said already."""
        said = RaterLabels(self.folder, rater_name(rater)).current()
        labels = [{"item_id": k[0], "attribute": k[1], **_view(label)} for k, label in said.items()]
        return {"rater": rater_name(rater), "attributes": self._questions, "items": self._items, "labels": labels}

    def say(self, said: View) -> View:
        """Keep one label; returns it as it is on the disk.

        Raises:
            InputError: naming the field that does not fit.
            ConflictError: Another window of this rater changed it meanwhile.
            StorageError: It could not be written.
        """
        item_id, name, option = (_text(said, field) for field in ("item_id", "attribute", "label"))
        if item_id not in self._wanted:
            raise InputError("This item is not queued.", where="item_id", got=item_id)
        attribute = next((each for each in self.attributes if each.name == name), None)
        if attribute is None:
            allowed = ", ".join(each.name for each in self.attributes)
            raise InputError("There is no such attribute.", where="attribute", got=name, allowed=allowed)
        if option not in (*attribute.options, UNSURE):
            allowed = ", ".join((*attribute.options, UNSURE))
            raise InputError("There is no such option.", where="label", got=option, allowed=allowed)
        comment = _text(said, "comment").strip() if said.get("comment") else None
        if comment and len(comment) > LONGEST_COMMENT:
            raise InputError("The comment is too long.", where="comment", allowed=f"{LONGEST_COMMENT} characters")
        seen = said.get("seen")
        label = Label(
            item_id, name, rater_name(_text(said, "rater")), option, comment or None, now(), attribute.version
        )
        RaterLabels(self.folder, label.rater).say(label, _seen(seen))
        return {"item_id": item_id, "attribute": name, **_view(label)}

    def undo(self, rater: str) -> View | None:
        """Take back the rater's newest label; which it was, and what holds there now."""
        undone = RaterLabels(self.folder, rater_name(rater)).undo()
        if undone is None:
            return None
        label, holds = undone
        return {"item_id": label.item_id, "attribute": label.attribute, "undone": label.label, **_view(holds)}

    def picture(self, item_id: str, number: int) -> tuple[bytes, str] | None:
        """Bytes and type of an item's picture."""
        files = self._pictures(item_id) if item_id in self._wanted else []
        if not 0 <= number < len(files):
            return None
        return files[number].read_bytes(), str(_picture_type(files[number]))

    @cached_property
    def _wanted(self) -> set[str]:
        return set(self.queue)

    @cached_property
    def _questions(self) -> list[View]:
        shown = ("name", "question", "options", "guidance", "edge_cases", "examples")
        return [each.model_dump(mode="json", include=set(shown)) for each in self.attributes]

    @cached_property
    def _items(self) -> list[View]:
        found = []
        for item_id in dict.fromkeys(self.queue):
            row = self.dataset.items.row(self.dataset.item_nums[item_id], named=True)
            text, categories = row["text"] or "", row["categories"] or []
            pictures = len(self._pictures(item_id))
            title = row["title"] or item_id
            found.append(
                {"item_id": item_id, "title": title, "text": text, "categories": categories, "pictures": pictures}
            )
        return found

    def _pictures(self, item_id: str) -> list[Path]:
        """The local pictures an item names; a path that leads out of the project is none."""
        if "media" not in self.dataset.items.columns:
            return []
        named = self.dataset.items.row(self.dataset.item_nums[item_id], named=True)["media"]
        names = named if isinstance(named, list) else [named]
        found = (self._picture(name) for name in names if isinstance(name, str))
        return [path for path in found if path is not None]

    def _picture(self, name: str) -> Path | None:
        home = self.home.resolve()
        try:
            address = urlparse(name)
            path = (home / (unquote(address.path) if address.scheme == "file" else name)).resolve()
            inside = path.is_relative_to(home) and path.is_file()
            return path if inside and _picture_type(path) else None
        except (OSError, ValueError):  # no name that a file can have
            return None


def _picture_type(path: Path) -> str | None:
    """By the first bytes: names lie."""
    with path.open("rb") as file:
        head = file.read(16)
    if path.stat().st_size > _LARGEST:
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _PICTURES.items() if head.startswith(magic)), None)


def _view(label: Label | None) -> View:
    return {"label": label and label.label, "comment": label and label.comment}


def _seen(value: Any) -> tuple[str, str | None] | None:
    if not isinstance(value, dict) or not isinstance(value.get("label"), str):
        return None
    comment = value.get("comment")
    return value["label"], comment if isinstance(comment, str) else None


def _text(said: View, field: str) -> str:
    value = said.get(field)
    if not isinstance(value, str) or value != value.encode(errors="ignore").decode():
        raise InputError("This must be a text.", where=field, got=type(value).__name__)
    return value
