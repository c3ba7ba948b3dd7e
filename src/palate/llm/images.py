"""Images as parts of a request: read and checked before anything is asked."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from palate.errors import InputError

MAX_BYTES = 20 * 2**20  # what the large providers take at most
_BEGINNINGS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}


@dataclass(frozen=True)
class Image:
    """The bytes of one image file. Equal bytes are the same image, wherever they lay."""

    data: bytes
    media_type: str

    @classmethod
    def of(cls, data: bytes, where: str = "image", max_bytes: int = MAX_BYTES) -> Image:
        """Told by its first bytes, never by its name.

        Raises:
            InputError: Empty, over `max_bytes`, or neither JPEG, PNG, GIF nor WebP.
        """
        if len(data) > max_bytes:
            raise InputError(
                "The image is too large.", where=where, got=f"{len(data):,} bytes", allowed=f"{max_bytes:,}"
            )
        kind = next((kind for begin, kind in _BEGINNINGS.items() if data.startswith(begin)), None)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            kind = "image/webp"
        if kind is None:
            raise InputError("This is not an image.", where=where, got=data[:12], allowed="JPEG, PNG, GIF or WebP")
        return cls(data, kind)

    @classmethod
    def read(cls, path: str | Path, max_bytes: int = MAX_BYTES) -> Image:
        """From a file.

        Raises:
            InputError: No such file, or as `of`.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError("The image file does not exist.", where=str(path))
        if path.stat().st_size > max_bytes:
            raise InputError(
                "The image is too large.",
                where=str(path),
                got=f"{path.stat().st_size:,} bytes",
                allowed=f"{max_bytes:,}",
            )
        return cls.of(path.read_bytes(), str(path), max_bytes)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()[:32]

    @property
    def data_url(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


def reads_images(engine: object) -> bool:
    """Whether an engine takes images at all: it says so by an attribute of this name."""
    return bool(getattr(engine, "reads_images", False))
