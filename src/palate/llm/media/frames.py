"""A picture or film as the few frames that a model is shown, within a budget of frames and tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from palate.data.dataset import FloatArray
from palate.errors import InputError
from palate.llm.images import Image
from palate.llm.media.decode import Film, opened, picture, pixels_of, pyav, webp_frames
from palate.llm.media.files import STILL, Kind, digest_of, told
from palate.llm.media.shots import LOOK_SIDE, Pixels, chosen, distance, look_of, shot_starts

_LOOKS = 10  # frames a second that are looked at: a shot of a tenth of a second says nothing
_CANDIDATES = 48  # frames held while the rest of a film is decoded
_MOST_CANDIDATES = 2 * _CANDIDATES
_SUSPECT = 0.10  # a frame so far from the one before may begin a shot, and is held whatever comes
_PATCH = 28  # pixels a side that make a token (Qwen2-VL, arXiv 2409.12191; others take about as many)
_LEAST_SIDE = 112  # smaller pictures show nothing: rather fewer
_KEEP_BYTES = 400_000  # a picture of this size is sent as it is
_STILL_BYTES = 64 * 2**20  # a still picture is held whole while it is decoded


class FrameLimits(BaseModel):
    """What a model is shown at most, and what decoding may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: int = Field(default=6, ge=1, le=100)
    """Pictures of an item."""
    side: int = Field(default=512, ge=32, le=4096)
    """Pixels of the longer side; larger pictures are scaled down."""
    tokens: int = Field(default=1500, ge=16)
    """Of all pictures of an item, a token for each 28 x 28 pixels: first they shrink, then there are fewer."""
    decoded: int = Field(default=900, ge=1)
    """Frames that are decoded of one film; of a longer film only key frames at even distances are."""
    probes: int = Field(default=48, ge=1)
    """Those key frames."""
    seconds: float = Field(default=30.0, gt=0)
    """To decode one file."""
    pixels: int = Field(default=50_000_000, ge=1)
    """Of one frame: a small file can claim a huge picture."""
    bytes: int = Field(default=2**30, ge=1)
    """Of one file."""


@dataclass(frozen=True)
class Frame:
    """`pixels` upright, at most `FrameLimits.side` a side, and the moment in `seconds`."""

    pixels: Pixels
    seconds: float = 0.0

    def image(self, side: int) -> Image:
        """As JPEG, at most `side` a side."""
        return Image(jpeg(self.pixels, side), "image/jpeg")


@dataclass(frozen=True)
class Clip:
    """What is kept of one file."""

    kind: str  # "image", "animation" or "video"
    frames: tuple[Frame, ...]  # in time order, no two alike
    width: int  # of the file's pictures, upright
    height: int
    seconds: float = 0.0
    cuts: tuple[float, ...] = ()  # moments at which a new shot begins
    motion: float = 0.0  # change within shots a second; 0 where it was not measured
    note: str = ""  # what could not be decoded, of a file of which enough could
    digest: str = ""  # of the file's bytes
    original: Image | None = field(default=None, repr=False)  # a still picture that can be sent as it is

    def images(self, side: int) -> Iterator[Image]:
        for frame in self.frames:
            fits = self.original is not None and max(self.width, self.height) <= side
            yield self.original if fits and self.original is not None else frame.image(side)


def read_clip(path: Path, limits: FrameLimits | None = None, where: str | None = None) -> Clip:
    """Decode what is needed of a picture, an animation or a film. The same file gives the same frames.

    Args:
        where: How errors name the file; its path by default.

    Raises:
        InputError: Missing, empty, of an unknown kind, damaged, without a frame, or over one of the limits.
    """
    limits, where = limits or FrameLimits(), where or str(path)
    kind, digest = told(path, limits.bytes, where), digest_of(path)
    if kind.what == STILL:
        return _still(_whole(path, where), kind, limits, where, digest)
    if kind.demuxer == "webp_pipe":
        gathered = _Gathered(limits)
        found = webp_frames(_whole(path, where), where, limits.pixels, limits.seconds)
        for moment, frame in islice(found, limits.decoded):
            gathered.look_at(frame, moment)
        return gathered.clip(kind, where, digest, 0.0, "")
    with opened(path, kind, where, limits.pixels, limits.seconds) as film:
        return _film(film, kind, limits, digest)


def fitting(clips: Sequence[Clip], limits: FrameLimits) -> tuple[Image, ...]:
    """The pictures of an item's files within the limits of frames, side and tokens."""
    sizes = [(f.pixels.shape[1], f.pixels.shape[0]) for clip in clips for f in clip.frames]
    side = limits.side
    while side > _LEAST_SIDE and sum(tokens_of(*size, side) for size in sizes) > limits.tokens:
        side = max(_LEAST_SIDE, round(side * 0.95))
    images = [image for clip in clips for image in clip.images(side)]
    most = max((tokens_of(*size, side) for size in sizes), default=1)
    n = min(len(images), limits.frames, max(1, limits.tokens // most))
    return tuple(images[len(images) * k // n] for k in range(n)) if n else ()


def tokens_of(width: int, height: int, side: int) -> int:
    """Tokens of a picture that is scaled down to at most `side` a side: one for each patch of 28 x 28 pixels."""
    scale = min(1.0, side / max(width, height))
    return math.ceil(width * scale / _PATCH) * math.ceil(height * scale / _PATCH)


def jpeg(pixels: Pixels, side: int, quality: int = 3) -> bytes:
    """Encoded, at most `side` a side. `quality`: quantiser, 2 (best) to 31."""
    av = pyav()
    scale = min(1.0, side / max(pixels.shape[:2]))
    height, width = (max(1, round(n * scale)) for n in pixels.shape[:2])
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = frame.reformat(width=width, height=height, format="yuvj420p", interpolation="AREA")
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    encoder.options = {"qmin": str(quality), "qmax": str(quality), "flags": "+bitexact"}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _whole(path: Path, where: str) -> bytes:
    size = path.stat().st_size
    if size > _STILL_BYTES:
        got, allowed = f"{size:,} bytes", f"{_STILL_BYTES:,}"
        raise InputError("The picture's file is too large.", where=where, got=got, allowed=allowed)
    return path.read_bytes()


def _still(data: bytes, kind: Kind, limits: FrameLimits, where: str, digest: str) -> Clip:
    frame = picture(data, kind, where, limits.pixels)
    pixels = pixels_of(frame, limits.side)
    turned = frame.rotation % 180 != 0
    width, height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    # EXIF turns pictures in ways that not every server follows, and may hold the place where one was taken.
    private = any(mark in data for mark in (b"Exif\0", b"eXIf", b"EXIF"))
    as_it_is = len(data) <= _KEEP_BYTES and not private and not frame.rotation
    original = Image.of(data, where) if as_it_is else None
    return Clip(STILL, (Frame(pixels),), width, height, digest=digest, original=original)


def _film(film: Film, kind: Kind, limits: FrameLimits, digest: str) -> Clip:
    """A short film frame by frame, a long one by key frames."""
    step = max(1, round(film.rate / _LOOKS))
    short = film.count <= limits.decoded
    expected = film.count // step if short else limits.probes
    gathered = _Gathered(limits, max(1, expected // _CANDIDATES))
    frames = islice(film.frames(), 0, limits.decoded, step) if short else film.probes(limits.probes)
    for moment, frame in frames:
        gathered.look_at(frame, moment)
    reached = gathered.times[-1] + step / (film.rate or 1.0) if gathered.times else 0.0
    notes = [f"damaged parts passed over: {film.damaged}"] if film.damaged else []
    if short and film.seconds - reached > 1.0:
        notes.append(f"only {reached:.1f} of {film.seconds:.1f} s can be decoded")
    clip = gathered.clip(kind, film.where, digest, film.seconds, ", ".join(notes))
    return clip if short else replace(clip, motion=0.0)  # neighbours are too far apart to tell motion


class _Gathered:
    """What was seen of a film: how each frame differs from the one before, and some frames to choose from.

    Args:
        stride: Of the frames looked at, each so many-th is held; more seldom once there are too many.
    """

    def __init__(self, limits: FrameLimits, stride: int = 1) -> None:
        self.limits, self.stride = limits, stride
        self.times: list[float] = []
        self.distances: list[float] = []
        self.held: list[tuple[int, Pixels, FloatArray]] = []  # number, pixels, look
        self._last: FloatArray | None = None
        self._start: float | None = None
        self._size = (0, 0)

    def look_at(self, frame: Any, moment: float | None) -> None:
        number, look = len(self.times), look_of(pixels_of(frame, LOOK_SIDE, exact=True))
        if moment is not None and self._start is None:
            self._start = moment  # some containers count from another moment than 0
        place = None if moment is None or self._start is None else moment - self._start
        last = self.times[-1] if self.times else -1 / _LOOKS
        self.times.append(last + 1 / _LOOKS if place is None or place <= last else place)
        gap = 0.0 if self._last is None else distance(look, self._last)
        if self._last is not None:
            self.distances.append(gap)
        self._last = look
        if number % self.stride == 0 or gap >= _SUSPECT:
            self.held.append((number, pixels_of(frame, self.limits.side), look))
            turned = round(frame.rotation / 90) % 2
            self._size = (frame.height, frame.width) if turned else (frame.width, frame.height)
        if len(self.held) > _MOST_CANDIDATES:
            self.stride *= 2
            del self.held[1::2]

    def clip(self, kind: Kind, where: str, digest: str, seconds: float, note: str) -> Clip:
        if not self.held:
            raise InputError("No frame of the film can be decoded.", where=where, got=note or None)
        starts = shot_starts(self.distances)
        numbers = [number for number, _, _ in self.held]
        shots = np.searchsorted(starts, numbers, side="right").tolist()
        moments = [self.times[number] for number in numbers]
        picked = chosen(moments, shots, [look for _, _, look in self.held], self.limits.frames)
        frames = tuple(Frame(self.held[k][1], moments[k]) for k in picked)
        span = self.times[-1] - self.times[0]
        within_shots = [d for at, d in enumerate(self.distances, start=1) if at not in starts]
        motion = sum(within_shots) / span if span > 0 else 0.0
        cuts = tuple(self.times[start] for start in starts[1:])
        return Clip(kind.what, frames, *self._size, seconds or span, cuts, motion, note, digest)
