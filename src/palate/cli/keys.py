"""`palate keys`: who may ask a server what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError

from palate.cli.options import JsonOption, say
from palate.data.whole_file import replace_file
from palate.errors import InputError
from palate.serving.keys import SCOPES, Key, Keys, new_key, read_keys

group = typer.Typer(no_args_is_help=True, help="Keys of the API, kept as hashes.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="keys")


@group.callback()
def keys() -> None:
    """Keys of the API, kept as hashes."""


@group.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose it is: for logs and metrics.")],
    scope: Annotated[list[str], typer.Option(help="What it may do; several times for several.")],
    file: Annotated[Path | None, typer.Option(help="Key file that the entry is added to.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second.", min=0.001, show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once; the file keeps its SHA-256 alone.

    read: slates, items, people, the console. events: POST /v1/events. items: PUT /v1/items. admin: all of it, and
    /v1/state. A server that runs with `--keys FILE` takes the new key within a second or so.

    Example: `palate keys new shop --scope read --scope events --file keys.yaml`
    """
    found = read_keys(file) if file is not None and file.exists() else []
    key, entry = _made(name, scope, rate)
    Keys([*found, entry])  # no two of one name
    if file is not None:
        content = {"keys": [each.model_dump(mode="json", exclude_none=True) for each in [*found, entry]]}
        replace_file(file, yaml.safe_dump(content, sort_keys=False), "The key file")
    say({"key": key, "entry": entry.model_dump(mode="json", exclude_none=True)}, as_json)


def _made(name: str, scopes: list[str], rate: float | None) -> tuple[str, Key]:
    unknown = set(scopes) - set(SCOPES)
    if unknown:
        raise InputError("There is no such scope", where="--scope", got=", ".join(unknown), allowed=", ".join(SCOPES))
    try:
        return new_key(name, [each for each in SCOPES if each in scopes], rate)
    except ValidationError as error:
        allowed = "up to 64 letters, digits, dots, _ and -"
        raise InputError("The key's name does not fit", where="NAME", got=name, allowed=allowed) from error
