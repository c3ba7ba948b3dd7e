"""Media of a project's items: read for annotation, shown to engines that take pictures, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from palate.data.dataset import IntArray
from palate.knowledge.media import ItemMedia, media_report
from palate.llm.images import reads_images
from palate.project.project import Project

_SHOWN = 20  # errors and notes that a report lists


def media_of(
    project: Project, items: IntArray, on_progress: Callable[[int, int], None] | None = None
) -> dict[int, ItemMedia]:
    """By item_num what is shown of `items` beside their texts; without pictures if the engine reads none.

    Raises:
        InputError: The items have media and PyAV is not installed.
    """
    return project.media.read_items(project.dataset, items, reads_images(project.engine), on_progress)


def media_key(project: Project, items: IntArray) -> dict[str, Any]:
    """What annotation rests on beside the tables; nothing for a catalogue without media."""
    if "media" not in project.dataset.items.columns:
        return {}
    return {"media": project.media.key(project.dataset, items), "media_config": project.config.media.model_dump()}


def media_detail(project: Project, media: Mapping[int, ItemMedia]) -> dict[str, Any]:
    """Facts for the step's report; nothing for a catalogue without media."""
    if not media:
        return {}
    facts = media_report(media)
    for name in ("skipped", "notes"):
        listed = facts.pop(name)
        facts |= {name: listed[:_SHOWN]} if listed else {}
    if not reads_images(project.engine):
        facts["note"] = (
            f"The engine {project.engine.name} reads no images: items are judged by their text, and by what is said in "
            "their films. Set llm.engine: openai in palate.yaml to show them to a model that does."
        )
    return {f"media_{name}": value for name, value in facts.items()}
