"""`palate llm run`: a batch file through ledger and runner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import typer
from rich.console import Console

from palate.cli import llm_options as o
from palate.cli.llm_progress import AskingBar, stopping
from palate.cli.options import JsonOption, say
from palate.errors import InputError, printable
from palate.llm.batch_files import BatchFile, request_of
from palate.llm.batch_lines import BadLine, Line, first_model, lines_of_one_model
from palate.llm.budget import Budget, forget
from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.ledger import Ledger
from palate.llm.plan import plan as plan_of
from palate.llm.plan import tokenizer
from palate.llm.prices import Prices, TokenCounter
from palate.llm.ray_run import RayRun, kept
from palate.llm.request import Engine, Request
from palate.llm.runner import Runner, Spent

_SHOWN = 10  # bad lines


def run(
    source: o.SourceArgument,
    out: o.OutOption = None,
    base_url: o.UrlOption = None,
    model: o.ModelOption = None,
    ordered: o.OrderedOption = False,
    ledger: o.LedgerOption = None,
    project: o.FolderOption = Path(),
    run: o.RunOption = None,
    max_calls: o.MaxCallsOption = None,
    max_tokens: o.MaxTokensOption = None,
    max_money: o.MaxMoneyOption = None,
    price_in: o.PriceInOption = 0.0,
    price_out: o.PriceOutOption = 0.0,
    concurrency: o.ConcurrencyOption = 64,
    rpm: o.RpmOption = None,
    tpm: o.TpmOption = None,
    timeout: o.TimeoutOption = 120.0,
    total_timeout: o.TotalTimeoutOption = 600.0,
    attempts: o.AttemptsOption = 5,
    plan: o.PlanOption = False,
    tokenizer_file: o.TokenizerOption = None,
    on: o.OnOption = None,
    workers: o.WorkersOption = 2,
    api_key_variable: o.KeyOption = "OPENAI_API_KEY",
    as_json: JsonOption = False,
) -> None:
    """Ask every line of an OpenAI-batch file and write each answer once.

    Answers are kept in the ledger as they come: a run that was stopped or killed is started again with the same
    command and asks only what is missing. Exit code 1 if there were dead letters, 2 if there were bad lines; both are
    listed in OUT.errors.jsonl.

    Example: `palate llm run in.jsonl -o out.jsonl --base-url http://127.0.0.1:8080/v1 --max-calls 1000`
    """
    if not source.is_file():
        raise InputError("The file of requests does not exist.", where=str(source))
    # No line names a model: all of them are bad, and the run says so of each.
    asked = model or first_model(source) or "none"
    prices, path = Prices(price_in, price_out), o.ledger_path(ledger, project)
    count = None if tokenizer_file is None else tokenizer(tokenizer_file)
    if plan:
        raise typer.Exit(_plan(source, asked, model is not None, path, prices, count, concurrency, as_json))
    if out is None or base_url is None:
        missing = "-o OUT.jsonl" if out is None else "--base-url URL"
        raise InputError("A run needs an output and a server.", where="palate llm run", allowed=missing)
    if max_money is not None and prices == Prices():
        raise InputError("A budget of money needs prices.", where="--max-money", hint="--price-in and --price-out.")
    budget = Budget(run or o.run_name(source, out), max_calls, max_tokens, max_money)
    share = workers if on else 1  # what the server is to bear is divided among workers
    engine = partial(
        OpenAIEngine,
        base_url,
        asked,
        api_key_variable,
        max(concurrency // share, 1),
        attempts=attempts,
        timeout=timeout,
        total_timeout=total_timeout,
        requests_per_minute=rpm and rpm / share,
        tokens_per_minute=tpm and tpm / share,
        prices=prices,
        counter=count,
    )
    job = _Job(source, out, asked, model is not None, ordered, path, budget, engine, workers if on else 0)
    raise typer.Exit(job.run(forgetting=run is None, as_json=as_json))


def _plan(
    source: Path,
    model: str,
    override: bool,
    path: Path,
    prices: Prices,
    count: TokenCounter | None,
    concurrency: int,
    as_json: bool,
) -> int:
    bad: list[BadLine] = []
    requests = good_requests(lines_of_one_model(source, model, override), bad)
    with Ledger(path) if path.exists() else nullcontext() as ledger:
        facts = asdict(plan_of(requests, ledger, model, prices, count, concurrency))
    if facts["seconds"] is None and not as_json:
        facts["seconds"] = "unknown: the ledger has no call of this model"
    counted = "an estimate: 4 bytes a token" if facts.pop("estimated") else f"counted with {model}'s tokenizer"
    say({"model": model, **facts, "tokens_are": counted, "bad_lines": len(bad)}, as_json)
    tell_bad(bad)
    return 2 if bad else 0


def good_requests(lines: Iterable[Line | BadLine], bad: list[BadLine]) -> Iterator[Request]:
    """The good lines as requests; the others go to `bad`."""
    for line in lines:
        if isinstance(line, BadLine):
            bad.append(line)
        else:
            yield request_of(line)


def tell_bad(bad: Sequence[object]) -> None:
    """The first few of them on stderr."""
    console = Console(stderr=True, highlight=False)
    for line in bad[:_SHOWN]:
        console.print(printable(line), soft_wrap=True, markup=False)
    if len(bad) > _SHOWN:
        console.print(f"and {len(bad) - _SHOWN:,} more", markup=False)


@dataclass(frozen=True)
class _Job:
    """One file of requests on its way to one file of answers."""

    source: Path
    out: Path
    model: str
    override: bool
    ordered: bool
    ledger: Path
    budget: Budget
    engine: Callable[[], Engine]
    workers: int  # on Ray; 0: here

    def run(self, forgetting: bool, as_json: bool) -> int:
        """Ask, write, say. Returns the exit code."""
        began = time.monotonic()
        with closing(self.engine()) as engine, closing(self._file()) as batch, Ledger(self.ledger) as ledger:
            spent = (self._on_ray if self.workers else self._here)(batch, ledger, engine, as_json)
            if not batch.complete:
                _tell_stopped()
                return 130
            batch.finish()
        if forgetting and not batch.dead:
            forget(self.ledger, self.budget.name)
        lines = batch.answered + batch.dead + batch.bad
        facts: dict[str, object] = {"requests": lines, "answered": batch.answered, "failed": batch.dead}
        facts |= {"bad_lines": batch.bad, "cached": spent.cached, "calls": spent.calls, "tokens_in": spent.tokens_in}
        facts |= {"tokens_out": spent.tokens_out, "cost": round(spent.cost, 9)}
        facts |= {"seconds": round(time.monotonic() - began, 3), "output": str(self.out)}
        if batch.dead or batch.bad:
            facts["errors"] = str(batch.errors)
        say(facts, as_json)
        return 2 if batch.bad else 1 if batch.dead else 0

    def _file(self) -> BatchFile:
        return BatchFile(self.source, self.out, self.model, override=self.override, ordered=self.ordered)

    def _here(self, batch: BatchFile, ledger: Ledger, engine: Engine, quiet: bool) -> Spent:
        bar = AskingBar(quiet)
        runner = Runner(engine, ledger, self.budget, ordered=self.ordered, window=batch.window, on_progress=bar)
        with stopping(runner.stop), bar.shown():
            for outcome in runner.run(batch.requests(), batch.lines):
                batch.write(outcome)
        return runner.spent

    def _on_ray(self, batch: BatchFile, ledger: Ledger, engine: Engine, quiet: bool) -> Spent:
        """The workers fill the ledger; the output is then written from it."""
        ray = RayRun(self.engine, self.model, ledger, self.budget, self.workers)
        with stopping(ray.stop):
            lines = lines_of_one_model(self.source, self.model, self.override)
            asked = ray.ask(good_requests(lines, []))
        if not asked.stopped:
            for outcome in kept(batch.requests(), ledger, self.model, asked.errors):
                batch.write(outcome)
        return asked.spent


def _tell_stopped() -> None:
    said = "Stopped. Every answer is kept: the same command goes on from here."
    Console(stderr=True, highlight=False).print(said, soft_wrap=True)
