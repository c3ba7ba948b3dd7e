"""Animated WebP, which FFmpeg does not decode: its frames as single pictures, and the canvas they are laid on.

The container: https://developers.google.com/speed/webp/docs/riff_container
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """One frame: a WebP file of its own, and how it is laid on the canvas."""

    data: bytes
    left: int
    top: int
    width: int
    height: int
    seconds: float  # how long it is shown
    blend: bool  # over what is there; else in its place
    clear: bool  # its rectangle is emptied afterwards


def sheets(data: bytes) -> Iterator[Sheet]:
    """The frames (ANMF chunks) of an animated WebP in order; a cut-off last one is left out."""
    for name, body in _chunks(data, 12):
        if name != b"ANMF" or len(body) < 24:
            continue
        left, top, width, height, milliseconds = (int.from_bytes(body[i : i + 3], "little") for i in range(0, 15, 3))
        inner = [chunk for chunk in _chunks(body, 16) if chunk[0] in (b"ALPH", b"VP8 ", b"VP8L")]
        whole = _file(inner, width + 1, height + 1)
        yield Sheet(
            whole,
            2 * left,
            2 * top,
            width + 1,
            height + 1,
            milliseconds / 1000,
            blend=not body[15] & 2,
            clear=bool(body[15] & 1),
        )


def _chunks(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if start + 8 + size > len(data):
            return
        yield data[start : start + 4], data[start + 8 : start + 8 + size]
        start += 8 + size + size % 2


def _file(chunks: list[tuple[bytes, bytes]], width: int, height: int) -> bytes:
    if any(name == b"ALPH" for name, _ in chunks):
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = [(b"VP8X", b"\x10\0\0\0" + size), *chunks]
    body = b"".join(n + len(b).to_bytes(4, "little") + b + b"\0" * (len(b) % 2) for n, b in chunks)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body
