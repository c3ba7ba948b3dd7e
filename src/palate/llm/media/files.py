"""Files of pictures and films, told by what they hold and never by their names, and bounded before they are decoded."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from palate.errors import InputError

STILL, ANIMATION, VIDEO = "image", "animation", "video"
READ = "JPEG, PNG, GIF, WebP, MP4/MOV, WebM/Matroska, AVI, Ogg, FLV or MPEG-TS"
_HEAD = 1 << 16  # bytes that tell what a file is


@dataclass(frozen=True)
class Kind:
    """`name` for people, `what` it is (image, animation or video), `demuxer`: the only one of FFmpeg that is tried.

    Naming the demuxer is what keeps playlists and other files that point at files from being followed.
    """

    name: str
    what: str
    demuxer: str


def kind_of(head: bytes) -> Kind | None:
    """What the first bytes of a file (64 KiB are enough) say that it is; None: nothing that is read."""
    beginnings: tuple[tuple[bytes, Kind], ...] = (
        (b"\xff\xd8\xff", Kind("JPEG", STILL, "jpeg_pipe")),
        (b"GIF87a", Kind("GIF", ANIMATION, "gif")),
        (b"GIF89a", Kind("GIF", ANIMATION, "gif")),
        (b"\x1aE\xdf\xa3", Kind("Matroska", VIDEO, "matroska")),
        (b"OggS", Kind("Ogg", VIDEO, "ogg")),
        (b"FLV\x01", Kind("FLV", VIDEO, "flv")),
    )
    plain = next((kind for begin, kind in beginnings if head.startswith(begin)), None)
    return plain or _by_more_than_its_beginning(head)


def _by_more_than_its_beginning(head: bytes) -> Kind | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Kind("PNG", ANIMATION, "apng") if b"acTL" in head else Kind("PNG", STILL, "png_pipe")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        moves = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
        return Kind("WebP", ANIMATION if moves else STILL, "webp_pipe")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Kind("AVI", VIDEO, "avi")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return Kind("MP4/MOV", VIDEO, "mov")
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return Kind("MPEG-TS", VIDEO, "mpegts")
    return None


def told(path: Path, max_bytes: int, where: str) -> Kind:
    """What kind of file lies at `path`, checked before more of it is read.

    Raises:
        InputError: No regular file, empty, over `max_bytes`, or of no kind that is read.
    """
    if not path.is_file():  # a pipe or device would be endless
        raise InputError("There is no such media file.", where=where, hint="Paths are relative to the data's folder.")
    size = path.stat().st_size
    if size == 0:
        raise InputError("The media file is empty.", where=where)
    if size > max_bytes:
        raise InputError("The media file is too large.", where=where, got=f"{size:,} bytes", allowed=f"{max_bytes:,}")
    with path.open("rb") as file:
        head = file.read(_HEAD)
    kind = kind_of(head)
    if kind is None:
        raise InputError("This is neither a picture nor a film.", where=where, got=head[:16], allowed=READ)
    return kind


def digest_of(path: Path) -> str:
    """32 hex digits of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a picture's header claims, before anything is decoded; None: no such header."""
    readers: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
        b"\x89PNG": lambda d: struct.unpack(">II", d[16:24]) if len(d) >= 24 else None,
        b"GIF8": lambda d: struct.unpack("<HH", d[6:10]) if len(d) >= 10 else None,
        b"RIFF": _webp_size,
    }
    return readers.get(data[:4], _jpeg_size)(data)


def ends(data: bytes) -> bool:
    """Whether a picture's file is there to its end: decoders fill in what is missing with grey."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data
    if data.startswith(b"\xff\xd8"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # end of image after the last start of scan
    if data.startswith(b"RIFF"):
        return 8 + int.from_bytes(data[4:8], "little") <= len(data)
    return True


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    form, body = data[12:16], data[20:30]
    if form == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if form == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walks the segments to the start of frame."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:  # padding
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        else:
            place += 2 + length
    return None


class Bounded:
    """A file that stops being read after `seconds`: no demuxer can search in it for ever."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file, self._end = file, time.monotonic() + seconds
        self.late = False  # as of the last look: a codec library may turn the exception into one of its own

    def is_late(self) -> bool:
        self.late = time.monotonic() > self._end
        return self.late

    def check(self) -> None:
        """Raises `TimeoutError` once the time is up."""
        if self.is_late():
            raise TimeoutError

    def read(self, size: int = -1) -> bytes:
        self.check()
        return self._file.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        self.check()
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()
