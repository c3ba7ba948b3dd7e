"""`palate llm export` and `import`: the way through a provider's batch service."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from palate.cli import llm_options as o
from palate.cli.llm_run import good_requests, tell_bad
from palate.cli.options import JsonOption, say
from palate.errors import InputError
from palate.llm.batch_lines import BadLine, read_lines
from palate.llm.ledger import Ledger
from palate.llm.prices import Prices
from palate.llm.provider_files import export_requests
from palate.llm.provider_results import ExportedFolder, import_results


def export(
    source: o.SourceArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the files.")],
    model: o.ModelOption = None,
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write what the ledger lacks as files for a provider's batch service.

    One model a file, at most 50,000 lines and 200 MB; `custom_id` is the request's key in the ledger, so that `import`
    knows what each result belongs to. Exit code 2 if there were bad lines.

    Example: `palate llm export in.jsonl -o batch`
    """
    if not source.is_file():
        raise InputError("The file of requests does not exist.", where=str(source))
    path, bad = o.ledger_path(ledger, project), list[BadLine]()
    with Ledger(path) if path.exists() else nullcontext() as kept:
        done = export_requests(good_requests(read_lines(source, model), bad), out, kept)
    facts = {"requests": done.requests, "not_to_be_asked": done.spared, "lines": done.lines, "bad_lines": len(bad)}
    files = [str(file) for file in done.files]
    say({**facts, "files": files if as_json else ", ".join(files)}, as_json)
    tell_bad(bad)
    raise typer.Exit(2 if bad else 0)


def import_files(
    results: Annotated[list[Path], typer.Argument(help="Result files of the service, in any order.")],
    requests: Annotated[Path, typer.Option("--requests", help="Folder that `palate llm export` wrote.")],
    errors: Annotated[list[Path] | None, typer.Option("--errors", help="Error files of the service.")] = None,
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    price_in: o.PriceInOption = 0.0,
    price_out: o.PriceOutOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Keep the results of a batch service in the ledger, each with the request it belongs to.

    Answers are checked against the schemas of their requests. Afterwards `palate llm run` with the same requests
    writes the output and asks only what failed or is missing. Exit code 1 if anything did, 2 if there were bad lines.

    Example: `palate llm import results.jsonl --errors errors.jsonl --requests batch`
    """
    with closing(ExportedFolder(requests)) as wanted, Ledger(o.ledger_path(ledger, project)) as kept:
        done = import_results([*results, *(errors or ())], wanted, kept, Prices(price_in, price_out))
    say({**asdict(done), "requests": len(wanted), "bad": len(done.bad)}, as_json)
    tell_bad(done.bad)
    raise typer.Exit(2 if done.bad else 1 if done.failed or done.missing else 0)
