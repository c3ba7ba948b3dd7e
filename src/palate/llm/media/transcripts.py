"""What is said in a film: captions beside it, or a transcriber of one's own."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Protocol

ENDINGS = (".vtt", ".srt", ".txt")
_MOST = 4 * 2**20  # bytes of captions that are read; a film of a day has fewer
_TIMES = re.compile(r"^\s*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-->")
_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_NOT_SAID = ("WEBVTT", "NOTE", "STYLE", "REGION")  # blocks of a WebVTT file that are no captions


class Transcriber(Protocol):
    """Speech to text. It is called once for each film that has no captions beside it."""

    def __call__(self, path: Path) -> str: ...


def captions_beside(path: Path) -> Path | None:
    """`clip.vtt`, `clip.srt` or `clip.txt` beside `clip.mp4` (also `clip.mp4.vtt`); the first one there is."""
    beside = (name for ending in ENDINGS for name in (path.with_suffix(ending), path.with_name(path.name + ending)))
    return next((name for name in beside if name != path and name.is_file()), None)


def spoken(path: Path, limit: int = 1000) -> str:
    """The words of a caption file without times, tags and repetitions, at most `limit` characters.

    Bytes that are no UTF-8 become question marks: captions are shown to a model, never decided upon.
    """
    with path.open("rb") as file:
        text = file.read(_MOST).decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    if path.suffix.lower() == ".txt":
        return clipped(text, limit)
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        rows = block.strip().split("\n")
        if rows[0].startswith(_NOT_SAID):
            continue
        at = next((k for k, row in enumerate(rows) if _TIMES.match(row)), None)
        said = rows[at + 1 :] if at is not None else []
        for row in said:
            plain = html.unescape(_TAG.sub("", row)).strip()
            if plain and plain not in lines[-2:]:  # captions that roll say each line twice
                lines.append(plain)
    return clipped(" ".join(lines), limit)


def clipped(text: str, limit: int) -> str:
    """On one line, cut at a word where there is one."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    return (cut.rsplit(" ", 1)[0] if " " in cut[limit // 2 :] else cut) + "…"
