"""How a server is run, beside what it answers."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from palate.errors import InputError
from palate.serving.keys import Key

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Operations(BaseModel):
    """Its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[Key, ...] = ()
    keys_file: Path | None = Field(default=None, description="read again when it changes; adds to `keys`")
    rate: float | None = Field(default=None, gt=0, description="requests a second of a key or address, each worker")
    max_body: int = Field(default=8 * 2**20, ge=1024, description="bytes of a request's body")
    origins: tuple[str, ...] = Field(
        default=(), description="of pages elsewhere that may call, as https://shop.example"
    )
    watch: float | None = Field(default=None, gt=0, description="seconds between looks for another snapshot")
    drain: float = Field(default=0.0, ge=0, description="seconds of answering after SIGTERM, while not ready")
    sample: float = Field(default=0.001, ge=0, le=1, description="share of requests whose retrieval is checked")


def may_listen(host: str, keys: bool, writes: bool, opened: bool) -> None:
    """Whether a server without keys may be reached from elsewhere.

    Raises:
        InputError: where whoever reaches it could write, and nobody said that this is meant.
    """
    if host in LOOPBACK or keys or not writes or opened:
        return
    raise InputError(
        "Without a key whoever reaches this address reads people's histories and changes what is shown",
        where=f"host {host}",
        hint="Make a key: palate keys new NAME --scope read --file FILE, then --keys FILE (or set PALATE_API_KEY); or "
        "--state none to only read, or --open if something in front of the server asks for one.",
    )
