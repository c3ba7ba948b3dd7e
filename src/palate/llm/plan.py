"""The plan of a run before anything is asked: calls, tokens, money, time."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from palate.errors import EngineError, InputError
from palate.llm.ledger import Ledger
from palate.llm.prices import Prices, TokenCounter, output_bound, turns
from palate.llm.request import Request
from palate.llm.seen import Seen

BYTES_PER_TOKEN = 4  # of English text; fewer in other languages and in code
_TEMPLATE = 5  # tokens a chat template adds to a message
_IMAGE = 1000  # tokens; providers count from 85 to 3,000 by size and detail
_READ = 1000


@dataclass(frozen=True)
class Plan:
    """What a run would come to. `calls` are those that the ledger does not spare.

    `tokens_in` are of these calls, `estimated` where no tokenizer was given. `tokens_out` and `money` are the most that
    they can come to, if no attempt has to be repeated. `seconds` is None where the ledger knows no call of the model.
    """

    requests: int
    cached: int
    calls: int
    tokens_in: int
    estimated: bool
    tokens_out: int
    money: float
    seconds: float | None


def plan(
    requests: Iterable[Request],
    ledger: Ledger | None,
    model: str,
    prices: Prices | None = None,
    count: TokenCounter | None = None,
    concurrency: int = 1,
) -> Plan:
    """Read all requests, ask none.

    Args:
        ledger: None: nothing has been asked before.
        count: The model's tokenizer; None: an estimate from the bytes of the text.
        concurrency: Calls in flight, for the time.
    """
    total = cached = tokens_in = tokens_out = calls = 0
    seen = Seen()
    waiting = iter(requests)
    while part := list(islice(waiting, _READ)):
        total += len(part)
        asked = {request.key(model): request for request in part}
        known = ledger.get(asked) if ledger is not None else {}
        for key, request in asked.items():
            if key not in known and seen.add(int(key[:16], 16)):
                calls += 1
                tokens_in += tokens_of(request, count)
                tokens_out += output_bound(request)
        cached = total - calls
    money = (prices or Prices()).cost(tokens_in, 0, tokens_out)
    each = seconds_per_call(ledger, model) if ledger is not None else None
    seconds = None if each is None else each * calls / max(min(concurrency, calls), 1)
    return Plan(total, cached, calls, tokens_in, count is None, tokens_out, money, seconds)


def tokens_of(request: Request, count: TokenCounter | None = None) -> int:
    """Prompt tokens of a request: exact for its texts with the model's tokenizer, its template and images estimated."""
    texts, messages, images = [], 0, 0
    for text, pictures in turns(request):
        texts.append(text)
        messages, images = messages + 1, images + pictures
    schema = request.json_schema
    if request.body is not None:
        held = (request.body.get("response_format") or {}).get("json_schema") or {}
        schema = held.get("schema")
    if schema is not None:
        texts.append(json.dumps(schema, ensure_ascii=False))
    texts += [*(request.trie or ()), *(request.options or ())]
    text = "\n".join(texts)
    tokens = -(-len(text.encode()) // BYTES_PER_TOKEN) if count is None else count(text)
    return tokens + messages * _TEMPLATE + images * _IMAGE


def seconds_per_call(ledger: Ledger, model: str) -> float | None:
    """What a call of `model` has taken so far, on average, retries within it included."""
    rows = [row for row in ledger.totals() if row["model"] == model]
    calls = sum(row["calls"] for row in rows)
    return sum(row["seconds"] for row in rows) / calls if calls else None


def tokenizer(path: Path) -> TokenCounter:
    """The counter of a model's `tokenizer.json`.

    Raises:
        InputError: No such file, or another format.
        EngineError: The package `tokenizers` is not there.
    """
    if not path.is_file():
        raise InputError("The tokenizer's file does not exist.", where=str(path))
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EngineError("Counting tokens needs tokenizers.", hint="pip install 'palate[serve]'") from error
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # what the package raises is a bare Exception
        raise InputError("This is not a tokenizer.", where=str(path), got=error, allowed="tokenizer.json") from error
    loaded.no_truncation()
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)
