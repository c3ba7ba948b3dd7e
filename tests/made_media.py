"""Pictures and films made for tests: known scenes in any container that PyAV writes, and files that lie."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs the extra `media`")

RED, BLUE, GREEN = (200, 40, 40), (30, 60, 180), (40, 160, 60)
CONTAINERS = {
    "mp4": ("libx264", "yuv420p"),
    "matroska": ("mpeg4", "yuv420p"),
    "avi": ("mjpeg", "yuvj420p"),
    "mpegts": ("libx264", "yuv420p"),
    "flv": ("flv", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "webp": ("libwebp_anim", "yuv420p"),
    "apng": ("apng", "rgb24"),
}


def scene(colour: Sequence[int], n: int, size=(96, 128)) -> list[np.ndarray]:
    """`n` frames of one colour in which a box of the opposite colour moves."""
    frames = []
    for number in range(n):
        frame = np.full((*size, 3), colour, dtype=np.uint8)
        left = (10 + 4 * number) % (size[1] - 30)
        frame[size[0] // 4 : size[0] // 2, left : left + size[1] // 4] = 255 - np.array(colour, dtype=np.uint8)
        frames.append(frame)
    return frames


def film(frames: Sequence[np.ndarray], container: str = "mp4", rate: int = 10, **options: str) -> bytes:
    codec, pixels = CONTAINERS[container]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)))
        output.mux(stream.encode())
    return file.getvalue()


def sound() -> bytes:
    """An MP4 with a sound track alone."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def png(width: int, height: int, rgb: bytes | None = None, claimed: tuple[int, int] | None = None) -> bytes:
    """A PNG of `rgb` (black by default); `claimed`: the size that its header tells."""
    lines = rgb if rgb is not None else bytes(3 * width * height)
    rows = b"".join(b"\0" + lines[3 * width * y : 3 * width * (y + 1)] for y in range(height))
    head = struct.pack(">IIBBBBB", *(claimed or (width, height)), 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def rgba_png(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def jpeg(pixels: np.ndarray) -> bytes:
    from palate.llm.media.frames import jpeg as encoded

    return encoded(pixels, max(pixels.shape))


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A JPEG whose EXIF says how it is to be turned."""
    entry = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
