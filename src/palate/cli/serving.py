"""`palate serve` and `palate snapshot`: what answers."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.cli.options import JsonOption, ProjectOption, open_run, say
from palate.cli.server import Served, run_server
from palate.errors import InputError
from palate.serving import describe
from palate.serving.keys import keys_of, read_keys
from palate.serving.load import load_snapshot
from palate.serving.operations import Operations, may_listen
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.versions import current, list_snapshots, rollback, use

if TYPE_CHECKING:
    from palate.experiments.declare import Experiment

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

SnapshotsOption = Annotated[
    str | None,
    typer.Option(
        envvar="PALATE_SNAPSHOTS",
        help="Where the snapshots are: a folder, or an fsspec address such as s3://BUCKET/FOLDER, from which the "
        "current one is fetched into .palate/fetched, now and whenever another is chosen there. Default: "
        ".palate/snapshots of the project.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    int,
    typer.Option(envvar="PALATE_WORKERS", help="Processes that share the port, snapshot and counts.", min=1, max=64),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        envvar="PALATE_KEYS_FILE",
        help="Key file (`palate keys new`); it is read again when it changes.",
        show_default=False,
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        envvar="PALATE_RATE",
        help="Requests a second that a key, or an address without one, may send to each worker; 429 beyond.",
        min=0.001,
        show_default=False,
    ),
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="PALATE_ALLOW_ORIGIN",
        help="Origin of pages elsewhere that may call the API, as https://shop.example. Default: none may.",
        show_default=False,
    ),
]
KafkaOption = Annotated[
    str | None,
    typer.Option(
        envvar="PALATE_KAFKA",
        help="Kafka servers, HOST:PORT,…: events and impressions go to the topics palate.events and "
        "palate.impressions, too. Other settings from PALATE_KAFKA_SASL_PASSWORD and the like.",
        show_default=False,
    ),
]
OpenOption = Annotated[bool, typer.Option("--open", help="Serve and take writes without a key on any address.")]
DrainOption = Annotated[
    float,
    typer.Option(
        envvar="PALATE_DRAIN", help="Seconds of answering after SIGTERM, while /health/ready says 503.", min=0, max=600
    ),
]
LogOption = Annotated[bool, typer.Option("--log/--no-log", help="A line of JSON for each request, on stderr.")]

group = typer.Typer(no_args_is_help=True, help="The immutable folders that servers answer from.")


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
    app.add_typer(group, name="snapshot")


def serve(
    project: ProjectOption = Path(),
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    state: StateOption = None,
    snapshots: SnapshotsOption = None,
    workers: WorkersOption = 1,
    keys: KeysOption = None,
    rate: RateOption = None,
    allow_origin: OriginOption = None,
    open_to_all: OpenOption = False,
    drain: DrainOption = 0.0,
    log: LogOption = True,
    kafka: KafkaOption = None,
) -> None:
    """Serve the current snapshot: the API at /v1 (documented at /docs) and the console at /console.

    What slates are made of stands in palate.yaml under `serving`, what is tried on people under `experiments`.
    Keys are asked for as X-API-Key: those of --keys, of PALATE_KEYS (a key file's text), and PALATE_API_KEY, which may
    do all. Another snapshot that becomes current is served within a second or so, at once on SIGHUP.

    POST /v1/events and PUT /v1/items change what is served next; both are kept in the state, and events and
    impressions land as Parquet in .palate/landing for the next training.

    Example: `palate serve --project palate-demo --port 8080`
    """
    if keys is not None:
        read_keys(keys)
    operations = Operations(
        keys=tuple(keys_of()), keys_file=keys, rate=rate, origins=tuple(allow_origin or ()), drain=drain, watch=1.0
    )
    pipeline, experiments = _declared(project)
    check_address(host, port, operations, state, open_to_all)
    folder = local_snapshots(project, snapshots)
    start_server(folder, host, port, pipeline, state, operations, workers, log, kafka, experiments)


def _declared(project: Path) -> tuple[PipelineConfig | None, tuple[Experiment, ...]]:
    """The pipeline of a project and its experiments, checked: what cannot be is said before a worker begins."""
    if not (project / "palate.yaml").exists():
        return None, ()
    from palate.project.config import load_config

    config = load_config(project)
    if not config.experiments and not (project / "experiments").is_dir():
        return config.serving, ()
    from palate.project.assigning import Assigner
    from palate.project.project import Project
    from palate.project.trials import Trials

    experiments = Trials(Project(project, config)).start(datetime.now(UTC))
    Assigner(experiments, config.serving)
    return config.serving, experiments


def check_address(
    host: str, port: int, operations: Operations | None = None, state: str | None = None, open_to_all: bool = False
) -> None:
    """Before any work is done.

    Raises:
        InputError: if nothing can listen there, or people elsewhere could write without a key.
    """
    keys = bool(keys_of()) if operations is None else bool(operations.keys or operations.keys_file)
    may_listen(host, keys, state != "none", open_to_all)
    check_port(host, port)


def local_snapshots(project: Path, address: str | None) -> Path:
    """The folder that is served from; that of an fsspec address follows it from now on.

    Raises:
        PalateError: Nothing can be fetched, and nothing was before.
    """
    if address is None or "://" not in address:
        return project / ".palate" / "snapshots" if address is None else Path(address)
    from palate.serving.remote import Follower, RemoteSnapshots

    return Follower(RemoteSnapshots(address), project / ".palate" / "fetched").start().folder


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
    snapshots: Path,
    host: str,
    port: int,
    pipeline: PipelineConfig | None = None,
    state: str | None = None,
    operations: Operations | None = None,
    workers: int = 1,
    log: bool = True,
    kafka: str | None = None,
    experiments: tuple[Experiment, ...] = (),
) -> None:
    """Serve until stopped. What happened is kept beside the snapshots, or at the address `state`; "none": nowhere."""
    kept = None if state == "none" else state or f"sqlite:{snapshots.parent / 'state.sqlite'}"
    operations = operations or Operations(keys=tuple(keys_of()), watch=1.0)
    current(snapshots)  # where there is none, no state is made either
    typer.echo(f"console  http://{host}:{port}/console", err=True)
    typer.echo(f"API      http://{host}:{port}/docs", err=True)
    typer.echo("Stop with Ctrl-C.", err=True)
    run_server(Served(snapshots, host, pipeline, kept, operations, kafka, experiments), port, workers, log)


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

    Servers that run answer from it within a second or so.
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
