"""Who may do what: keys with scopes, kept as SHA-256 hashes, so that whoever reads the file can use none of them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from palate.errors import InputError

Scope = Literal["read", "events", "items", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PLAIN, TEXT = "PALATE_API_KEY", "PALATE_KEYS"  # of the environment
_PREFIX = "palate_"  # by which scanners find a key that was published


class Key(BaseModel):
    """`scopes`: read slates, items and people; send events; put and take items; admin is all of them and the state."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="for logs and metrics")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    rate: Annotated[float | None, Field(gt=0, description="requests a second; default: the server's")] = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class _Listed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: tuple[Key, ...]


class Keys:
    """Those that open the server; none: it is open."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        names = [key.name for key in keys]
        if len(set(names)) < len(names):
            raise InputError("Two keys have one name", where="keys", got=max(names, key=names.count))
        self.keys = tuple(keys)
        self._hashes = [(bytes.fromhex(key.sha256), key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self.keys)

    def find(self, given: str) -> Key | None:
        """All keys are compared, each in a time that does not tell where it differs."""
        digest, found = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest(), None
        for each, key in self._hashes:
            if hmac.compare_digest(digest, each):
                found = key
        return found


def keys_of(environment: Mapping[str, str] = os.environ) -> list[Key]:
    """Of `PALATE_KEYS` (what a key file holds, as text), and of `PALATE_API_KEY`, one plain key that may do all.

    Raises:
        InputError: as `parse_keys`.
    """
    found = parse_keys(environment[TEXT], TEXT) if environment.get(TEXT) else []
    return [*found, plain_key(environment[PLAIN])] if environment.get(PLAIN) else found


def read_keys(file: Path) -> list[Key]:
    """Of a key file.

    Raises:
        InputError: if it cannot be read; as `parse_keys`.
    """
    try:
        return parse_keys(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError("The key file cannot be read", where=str(file), got=got) from error


def parse_keys(text: str, where: str) -> list[Key]:
    """From YAML or JSON: `keys:` and a list of `name`, `sha256`, `scopes`, `rate`.

    Raises:
        InputError: naming the entry and field that does not fit, never what stands there.
    """
    try:
        return list(_Listed.model_validate(yaml.safe_load(text)).keys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError("The keys are not YAML", where=where + line, hint="palate keys new NAME") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(
            f"A key does not fit: {field}: {first['msg']}", where=where, hint="palate keys new NAME makes an entry."
        ) from None


def plain_key(key: str) -> Key:
    """One key that may do all."""
    return Key(
        name="default", sha256=hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest(), scopes=("admin",)
    )


def new_key(name: str, scopes: Sequence[Scope], rate: float | None = None) -> tuple[str, Key]:
    """A key of 256 random bits, to be handed out once, and its entry."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), scopes=tuple(scopes), rate=rate)
