"""`palate snapshot push` and `pull`: snapshots on object storage or any other fsspec address."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption, say
from palate.cli.serving import group
from palate.serving.remote import RemoteSnapshots
from palate.serving.versions import current

UrlArgument = Annotated[str, typer.Argument(help="An fsspec address, such as s3://BUCKET/FOLDER or file:///mnt/share.")]


def add_to(app: typer.Typer) -> None:
    group.command()(push)
    group.command()(pull)


def push(
    url: UrlArgument,
    name: Annotated[str | None, typer.Argument(help="Default: the current one.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy a snapshot to an address and make it the current one there; what is there already is not sent again.

    Servers that were started with `--snapshots URL` fetch it, check it and take it over by themselves.

    Example: `palate snapshot push s3://my-bucket/feed --project my-feed`
    """
    folder = project / ".palate" / "snapshots"
    sent = RemoteSnapshots(url).push(folder / name if name else current(folder))
    say({"snapshot": sent, "at": url}, as_json)


def pull(
    url: UrlArgument,
    name: Annotated[str | None, typer.Argument(help="Default: the one in use there.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Fetch a snapshot, check every file of it, and make it the current one here. One that came in part is refused.

    Example: `palate snapshot pull s3://my-bucket/feed --project my-feed`
    """
    say({"snapshot": RemoteSnapshots(url).pull(project / ".palate" / "snapshots", name), "from": url}, as_json)
