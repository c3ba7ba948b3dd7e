"""Options of the commands that ask language models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import typer

LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="File of kept answers; by default .palate/ledger.sqlite of the project.")
]
FolderOption = Annotated[Path, typer.Option("--project", "-p", help="Folder whose .palate/ledger.sqlite is meant.")]
SourceArgument = Annotated[Path, typer.Argument(metavar="IN.jsonl", help="OpenAI-batch lines, one request each.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="Ask this model in all lines, whatever they name.")
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", metavar="OUT.jsonl", help="Where the answers go.")]
UrlOption = Annotated[
    str | None, typer.Option("--base-url", help="An OpenAI-compatible server, such as http://127.0.0.1:8080/v1.")
]
OrderedOption = Annotated[bool, typer.Option("--ordered", help="Answers in the order of the input, not as they come.")]
RunOption = Annotated[
    str | None, typer.Option("--run", help="Name of the budget, shared by all that name it; by default IN and OUT.")
]
MaxCallsOption = Annotated[int | None, typer.Option(help="The most calls, repeated attempts included.")]
MaxTokensOption = Annotated[int | None, typer.Option(help="The most tokens, read and written.")]
MaxMoneyOption = Annotated[float | None, typer.Option(help="The most money; needs prices.")]
PriceInOption = Annotated[float, typer.Option(min=0, help="Money for a million tokens read.")]
PriceOutOption = Annotated[float, typer.Option(min=0, help="Money for a million tokens written.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="The most requests in flight.")]
RpmOption = Annotated[int | None, typer.Option(min=1, help="The most requests a minute.")]
TpmOption = Annotated[int | None, typer.Option(min=1, help="The most tokens a minute.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds for one attempt.")]
TotalTimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds for one request, all attempts together.")]
AttemptsOption = Annotated[int, typer.Option(min=1, help="The most attempts of one request.")]
PlanOption = Annotated[bool, typer.Option("--plan", help="Say what it would ask, cost and take; ask nothing.")]
TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", help="The model's tokenizer.json, to count tokens for --plan instead of estimating."),
]
OnOption = Annotated[Literal["ray"] | None, typer.Option("--on", help="Spread over workers on a Ray cluster.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Workers, with --on ray.")]
KeyOption = Annotated[str, typer.Option("--api-key-variable", help="Environment variable that holds the server's key.")]


def ledger_path(ledger: Path | None, project: Path) -> Path:
    return ledger or project / ".palate" / "ledger.sqlite"


def run_name(source: Path, out: Path) -> str:
    """The name of a run's budget, if it is given none: the same run started again has the same."""
    return "batch " + hashlib.sha256(f"{source.resolve()}\0{out.resolve()}".encode()).hexdigest()[:16]
