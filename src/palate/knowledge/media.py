"""Pictures and films of items: read safely, shown to a model beside the text, and part of what makes an item itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from palate.data.dataset import Dataset, FloatArray
from palate.errors import InputError, printable
from palate.knowledge.visual import describe
from palate.llm.images import Image
from palate.llm.media.files import VIDEO, digest_of, told
from palate.llm.media.frames import Clip, FrameLimits, fitting, read_clip
from palate.llm.media.transcripts import Transcriber, captions_beside, clipped, spoken
from palate.llm.request import Part


class MediaConfig(FrameLimits):
    """What is shown of an item's media, and which files may be read."""

    transcript: int = Field(default=600, ge=0)
    """Characters of what is said in an item's films; 0: no captions are read."""
    outside: bool = False
    """May paths be absolute or leave the data's folder? A catalogue can come from strangers."""


@dataclass(frozen=True)
class ItemMedia:
    """What is known of an item's media. Empty for an item without."""

    images: tuple[Image, ...] = ()  # to be shown, within the limits
    transcript: str = ""
    digest: str = ""  # of the bytes of its files, in order
    features: FloatArray | None = None  # as `palate.knowledge.visual.describe`
    errors: tuple[InputError, ...] = ()  # one for each file that was skipped
    notes: tuple[str, ...] = ()  # files that are shown in part
    left_out: int = 0  # good files beyond the limit of frames


def item_media(dataset: Dataset, item_num: int) -> list[str]:
    """The item's paths, as the catalogue gives them."""
    if "media" not in dataset.items.columns:
        return []
    listed = dataset.items["media"][item_num]
    return [] if listed is None else [path for path in listed if path and path.strip()]


def item_parts(text: str, images: Sequence[Image]) -> str | tuple[Part, ...]:
    """A message's content: pictures first, so that what is asked about an item begins alike and is read once."""
    return (*images, text) if images else text


def item_words(text: str, media: ItemMedia) -> str:
    """The item's text with what is said in its films."""
    return f"{text}\nTranscript: {media.transcript}" if media.transcript else text


class MediaReader:
    """Reads the media of items.

    Args:
        folder: Paths are relative to it, and stay within it unless `config.outside`.
        transcriber: Asked about films without captions beside them.

    Addresses (http, https, s3, ...) are refused one by one: nothing is downloaded, and a server is not told to fetch
    what a catalogue names, since the item's hash could then not cover what the model saw.
    """

    def __init__(self, folder: Path, config: MediaConfig | None = None, transcriber: Transcriber | None = None) -> None:
        self.folder = folder.resolve()
        self.config = config or MediaConfig()
        self._transcriber = transcriber

    def read(self, item_id: str, paths: Sequence[str], pictures: bool = True) -> ItemMedia:
        """Every file that can be read; the others are in `errors`, each with item and path.

        Args:
            pictures: False: nothing is decoded; transcript and digest alone, for who reads no images.

        Raises:
            InputError: PyAV is not installed.
        """
        clips: list[Clip] = []
        said: list[str] = []
        errors: list[InputError] = []
        left_out = 0
        for given in dict.fromkeys(paths):
            where = f"item {item_id}, {given}"
            try:
                path = self.path(given, where)
                if len(clips) >= self.config.frames:
                    left_out += 1
                    continue
                clips.append(self._clip(path, len(paths), where, pictures))
                said.append(self._said(path, clips[-1], where))
            except InputError as error:
                if error.where is None:  # no file's fault
                    raise
                errors.append(error)
        return ItemMedia(
            fitting(clips, self.config),
            clipped(" ".join(filter(None, said)), self.config.transcript) if any(said) else "",
            hashlib.sha256("".join(clip.digest for clip in clips).encode()).hexdigest()[:32] if clips else "",
            describe(clips),
            tuple(errors),
            tuple(f"item {printable(item_id)}: {clip.note}" for clip in clips if clip.note),
            left_out,
        )

    def read_items(
        self,
        dataset: Dataset,
        items: Iterable[int],
        pictures: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, ItemMedia]:
        """By item_num, for those of `items` that name media: as `read`."""
        named = [(num, paths) for num in map(int, items) if (paths := item_media(dataset, num))]
        found = {}
        for done, (num, paths) in enumerate(named, start=1):
            found[num] = self.read(dataset.item_ids[num], paths, pictures)
            if on_progress is not None:
                on_progress(done, len(named))
        return found

    def key(self, dataset: Dataset, items: Iterable[int]) -> str:
        """Hash of the media files of `items` as they are now, of their absence too: what a run's result rests on."""
        found = hashlib.sha256()
        for num in map(int, items):
            for given in item_media(dataset, num):
                try:
                    path = self.path(given, given)
                    captions = captions_beside(path)
                    files = [file for file in (path, captions) if file is not None and file.is_file()]
                    found.update("".join(digest_of(file) for file in files).encode())
                except (InputError, OSError):
                    pass  # it is named when it is read
                found.update(b"\0")
        return found.hexdigest()[:32]

    def path(self, given: str, where: str) -> Path:
        """The file that a catalogue's path means.

        Raises:
            InputError: An address, or a path that leaves the folder (by `..`, from the root, or over a link).
        """
        parts = urlsplit(given)
        if parts.scheme == "file":
            given = unquote(parts.path)
        elif "://" in given or given[:5].lower() == "data:":
            raise InputError(
                "Media at an address are not fetched.",
                where=where,
                allowed="a path within the data's folder",
                hint="Download the file beside the data and name its path.",
            )
        try:
            path = (self.folder / given.strip()).resolve()
            inside = path.is_relative_to(self.folder) and path != self.folder
            path.is_file()
        except (OSError, ValueError, RuntimeError) as error:  # a name too long, a null byte, a circle of links
            raise InputError("This is no path.", where=where, got=error) from None
        if not inside and not self.config.outside:
            raise InputError(
                "The path leaves the data's folder.",
                where=where,
                allowed="a relative path within it",
                hint="Set media.outside in palate.yaml if the catalogue is trusted.",
            )
        return path

    def _clip(self, path: Path, n_files: int, where: str, pictures: bool) -> Clip:
        """Several files share the item's frames."""
        if pictures:
            limits = self.config.model_copy(update={"frames": max(1, self.config.frames // n_files)})
            return read_clip(path, limits, where)
        return Clip(told(path, self.config.bytes, where).what, (), 0, 0, digest=digest_of(path))

    def _said(self, path: Path, clip: Clip, where: str) -> str:
        if clip.kind != VIDEO or not self.config.transcript:
            return ""
        captions = captions_beside(path)
        if captions is not None:
            if not captions.resolve().is_relative_to(self.folder) and not self.config.outside:
                raise InputError("The captions' path leaves the data's folder.", where=f"{where}, {captions.name}")
            return spoken(captions, self.config.transcript)
        return clipped(self._transcriber(path), self.config.transcript) if self._transcriber else ""


def media_report(media: Mapping[int, ItemMedia]) -> dict[str, Any]:
    """Counts of what was read, and what was skipped and why: for a step's report."""
    errors = [error for item in media.values() for error in item.errors]
    return {
        "items": len(media),
        "pictures": sum(len(item.images) for item in media.values()),
        "transcripts": sum(bool(item.transcript) for item in media.values()),
        "files_skipped": len(errors),
        "files_left_out": sum(item.left_out for item in media.values()),
        "skipped": [" ".join(str(error).split()) for error in errors],
        "notes": [note for item in media.values() for note in item.notes],
    }
