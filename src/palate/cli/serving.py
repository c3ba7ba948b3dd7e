"""`palate serve` and `palate snapshot`: what answers."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.errors import InputError
from palate.project.config import load_config
from palate.serving import describe
from palate.serving.load import load_snapshot
from palate.serving.pipeline import BlendConfig
from palate.serving.state import open_state
from palate.serving.versions import current, list_snapshots, rollback, use

HostOption = Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")]
PortOption = Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)]

StateOption = Annotated[
    str | None,
    typer.Option(
        envvar="PALATE_STATE",
        help="Where events, histories and new items are kept: sqlite:FILE, or redis://HOST:PORT/DB for several "
        "hosts (rediss:// with TLS), or none, to only read. Default: .palate/state.sqlite of the project.",
        show_default=False,
    ),
]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

group = typer.Typer(no_args_is_help=True, help="The immutable folders that servers answer from.")


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    app.add_typer(group, name="snapshot")


def serve(
    project: ProjectOption = Path(),
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    state: StateOption = None,
) -> None:
    """Serve the current snapshot: the API at /v1 (documented at /docs) and the console at /console.

    What slates are mixed of, and how new interests are drawn, stands in palate.yaml under `serving`.
    PALATE_API_KEY, if set, is asked for as X-API-Key.

    POST /v1/events and PUT /v1/items change what is served next; both are kept in the state, and events and
    impressions land as Parquet in .palate/landing for the next training.

    Example: `palate serve --project palate-demo --port 8080`
    """
    check_port(host, port)
    blend = load_config(project).serving if (project / "palate.yaml").exists() else None
    start_server(project / ".palate" / "snapshots", host, port, blend, state)


def check_port(host: str, port: int) -> None:
    """Before any work is done.

    Raises:
        InputError: if nothing can listen there.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            "The server cannot listen there.",
            where=f"{host}:{port}",
            got=error.strerror or error,
            hint="Is another server running? Choose another port: --port 8080.",
        ) from error


def start_server(
    snapshots: Path, host: str, port: int, blend: BlendConfig | None = None, state: str | None = None
) -> None:
    """Serve until stopped. What happened is kept beside the snapshots, or at the address `state`; "none": nowhere."""
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from threadpoolctl import threadpool_limits

    from palate.console.pages import add_console
    from palate.serving.api import create_app

    current(snapshots)  # where there is none, no state is made either
    kept = None if state == "none" else open_state(state or f"sqlite:{snapshots.parent / 'state.sqlite'}")
    app = create_app(snapshots, os.environ.get("PALATE_API_KEY"), blend, kept, snapshots.parent / "landing")
    add_console(app, app.state.snapshot, snapshots.parent / "experiments")
    if host in _LOOPBACK:
        # A page elsewhere whose name is re-bound to this machine must not read people's histories.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOOPBACK, "[::1]"])
    typer.echo(f"console  http://{host}:{port}/console", err=True)
    typer.echo(f"API      http://{host}:{port}/docs", err=True)
    typer.echo("Stop with Ctrl-C.", err=True)
    # One request is a few small products: more BLAS threads only wake each other up.
    with threadpool_limits(1):
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False)
    if kept is not None:
        kept.close()


@group.command("build")
def build(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Run whatever is missing and build the snapshot.

    Example: `palate snapshot build --project my-feed`
    """
    with open_run(project, as_json) as run:
        made = run.all()
    say(made.snapshot.detail, as_json)


@group.command("list")
def list_all(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Snapshots, oldest first, and which one is served."""
    folder = project / ".palate" / "snapshots"
    names = list_snapshots(folder)
    say({"snapshots": names, "current": current(folder).name if names else None}, as_json)


@group.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="Default: the current one.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check every file of a snapshot against its checksum. Exit code 2 if one is damaged."""
    folder = project / ".palate" / "snapshots"
    snapshot = load_snapshot(folder / name if name else current(folder))
    say({"snapshot": snapshot.name, "ok": True}, as_json)


@group.command("use")
def use_one(name: str, project: ProjectOption = Path()) -> None:
    """Make a snapshot the current one, once every file of it is checked: a damaged one is refused, the old one stays.

    Servers started from now on answer from it.
    """
    use(project / ".palate" / "snapshots", name, load_snapshot)
    typer.echo(f"current: {name}")


@group.command("rollback")
def roll_back(project: ProjectOption = Path()) -> None:
    """Go back to the snapshot that was served before this one; again goes one further back."""
    typer.echo(f"current: {rollback(project / '.palate' / 'snapshots', load_snapshot)}")


@group.command()
def restrict(
    expression: Annotated[str | None, typer.Argument(help="Default: what there is to ask for.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Try a restrict on the current snapshot: how many items it allows, and the most popular of them.

    A restrict is made of tests joined by and, or, not and brackets:

    attr:calm, attr:calm >= 0.8 (its probability), category = "Film noir", category in (Drama, War), year >= 1990,
    node in (3, 7) (interests, any level), leaf = 40, seen (items of the person's history, only when serving).

    Example: `palate snapshot restrict 'attr:calm and not category = War and year >= 1990'`
    """
    snapshot = load_snapshot(current(project / ".palate" / "snapshots"))
    say(describe.restrict(snapshot, expression) if expression else describe.fields(snapshot), as_json)
