"""Decoding with PyAV under limits: every frame of a short film, some of a long one, the one of a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from palate.errors import InputError
from palate.llm.media.files import Bounded, Kind, ends, picture_size
from palate.llm.media.shots import Pixels
from palate.llm.media.webp import sheets

_PROBE = {"probesize": "5000000", "analyzeduration": "5000000"}  # bytes and microseconds read to learn what it is


def pyav() -> Any:
    """The package `av`.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError("Pictures and films need PyAV.", hint='pip install "palate[media]"') from None
    return av


class Film:
    """An opened film or animation. `seconds`, `rate` and `count` are what it claims, 0 where it claims nothing."""

    def __init__(self, container: Any, source: Bounded, where: str, max_pixels: int) -> None:
        self._container, self._source, self.where = container, source, where
        self._stream = container.streams.best("video")
        if self._stream is None:
            raise InputError("The film has no pictures, sound at most.", where=where)
        context = self._stream.codec_context
        within(context.width, context.height, max_pixels, where)
        context.options = {"max_pixels": str(max_pixels)}
        self.rate = float(self._stream.average_rate or 0)
        span = self._stream.duration and float(self._stream.duration * self._stream.time_base)
        self.seconds = max(0.0, span or (container.duration or 0) / 1e6)
        self.count = self._stream.frames or round(self.seconds * self.rate)
        self.damaged = 0  # packets that could not be decoded

    def frames(self) -> Iterator[tuple[float | None, Any]]:
        """Moment (None: unknown) and frame of all that can be decoded, in order; damaged parts are counted."""
        av = pyav()
        try:
            for packet in self._container.demux(self._stream):
                self._source.check()
                try:
                    found = packet.decode()
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                yield from ((frame.time, frame) for frame in found)
        except av.FFmpegError:
            if self._source.late:
                raise TimeoutError from None
            self.damaged += 1

    def probes(self, n: int) -> Iterator[tuple[float | None, Any]]:
        """As `frames`, of the key frames before `n` evenly spaced moments, each once."""
        av, context, seen = pyav(), self._stream.codec_context, set[int]()
        start = self._stream.start_time or 0
        for k in range(n):
            self._source.check()
            place = start + int(self.seconds * (k + 0.5) / n / self._stream.time_base)
            try:
                self._container.seek(place, stream=self._stream)
                packet = next((p for p in self._container.demux(self._stream) if p.is_keyframe and p.size), None)
                if packet is None or packet.pts in seen:
                    continue
                seen.add(packet.pts)
                moment = None if packet.pts is None else float(packet.pts * self._stream.time_base)
                yield from [(moment, frame) for frame in (*context.decode(packet), *context.decode(None))][:1]
            except av.FFmpegError:
                if self._source.late:
                    raise TimeoutError from None
                self.damaged += 1


@contextmanager
def opened(path: Path, kind: Kind, where: str, max_pixels: int, seconds: float) -> Iterator[Film]:
    """The film at `path`.

    Raises:
        InputError: Broken, without pictures, with frames over `max_pixels`, or not decoded within `seconds`.
    """
    av = pyav()
    with path.open("rb") as file:
        size = picture_size(file.read(64)) if kind.demuxer in ("gif", "apng") else None
        if size is not None:
            within(*size, max_pixels, where)
        file.seek(0)
        source = Bounded(file, seconds)
        try:
            with _container(source, kind, max_pixels) as container:
                yield Film(container, source, where, max_pixels)
        except TimeoutError:
            raise _late(where, seconds) from None
        except av.FFmpegError as error:
            if source.late:
                raise _late(where, seconds) from None
            raise _broken(kind, where, error) from None


def picture(data: bytes, kind: Kind, where: str, max_pixels: int) -> Any:
    """The frame of a still picture.

    Raises:
        InputError: Truncated or damaged, or over `max_pixels`.
    """
    av = pyav()
    size = picture_size(data)
    if size is not None:
        within(*size, max_pixels, where)
    if not ends(data):
        raise _broken(kind, where, "its end is missing")
    strict = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(max_pixels)}
    try:
        with _container(io.BytesIO(data), kind, max_pixels) as container:
            container.streams.video[0].codec_context.options = strict
            return next(container.decode(video=0))
    except (av.FFmpegError, StopIteration, IndexError) as error:
        raise _broken(kind, where, error) from None


def webp_frames(data: bytes, where: str, max_pixels: int, seconds: float) -> Iterator[tuple[float, Any]]:
    """Moment and frame of each picture of an animated WebP, on its canvas.

    Raises:
        InputError: A canvas or frame over `max_pixels`, a damaged frame, or not decoded within `seconds`.
    """
    bounded = Bounded(io.BytesIO(data), seconds)
    size = picture_size(data)
    if size is None:
        raise _broken(Kind("WebP", "", ""), where, "no header")
    within(*size, max_pixels, where)
    av, kind = pyav(), Kind("WebP", "", "webp_pipe")
    canvas: Pixels = np.zeros((size[1], size[0], 4), dtype=np.uint8)
    moment = 0.0
    for sheet in sheets(data):
        if bounded.is_late():
            raise _late(where, seconds)
        drawn = picture(sheet.data, kind, where, max_pixels).to_ndarray(format="rgba")
        place = canvas[sheet.top : sheet.top + sheet.height, sheet.left : sheet.left + sheet.width]
        drawn = drawn[: place.shape[0], : place.shape[1]]
        place = place[: drawn.shape[0], : drawn.shape[1]]
        place[...] = np.where(drawn[..., 3:] >= 128, drawn, place) if sheet.blend else drawn
        yield moment, av.VideoFrame.from_ndarray(canvas, format="rgba")
        moment += sheet.seconds
        if sheet.clear:
            place[...] = 0


def pixels_of(frame: Any, side: int, exact: bool = False) -> Pixels:
    """Upright sRGB on white, at most `side` a side; `exact`: squeezed to `side` by `side`."""
    scale = min(1.0, side / max(frame.width, frame.height))
    width, height = (side, side) if exact else (max(1, round(n * scale)) for n in (frame.width, frame.height))
    clear = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
    form = "rgba" if clear else "rgb24"
    found = frame.reformat(width=width, height=height, format=form, interpolation="AREA").to_ndarray()
    if clear:
        share = found[..., 3:].astype(np.uint16)
        found = ((found[..., :3] * share + 255 * (255 - share)) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(found, round(frame.rotation / 90)))


def within(width: int, height: int, max_pixels: int, where: str) -> None:
    """Raises `InputError` if a picture of this size is too large to decode."""
    if width * height > max_pixels:
        got, allowed = f"{width:,} x {height:,} pixels", f"{max_pixels:,} pixels in all"
        raise InputError("The picture is too large to decode.", where=where, got=got, allowed=allowed)


def _container(source: Any, kind: Kind, max_pixels: int) -> Any:
    options = {**_PROBE, "max_pixels": str(max_pixels)}
    return pyav().open(source, format=kind.demuxer, options=options, metadata_errors="replace")


def _late(where: str, seconds: float) -> InputError:
    return InputError("The film takes too long to decode.", where=where, allowed=f"{seconds:g} seconds")


def _broken(kind: Kind, where: str, error: object) -> InputError:
    what = "The media file is damaged or cut short."
    return InputError(what, where=where, got=f"{kind.name}: {error or 'no picture in it'}", hint="Export it again.")
