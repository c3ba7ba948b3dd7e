"""Labels a second of the embedded engine: three attributes of 200 real films, beside a chat completion for each.

    python benchmarks/llm_local.py [--items 200]

All run on the same llama.cpp with the same threads, on the prompts of `palate annotate` (instructions and item first,
the question last) with one more line in the instructions, which says how JSON is to be written. The baseline asks the
in-process server's OpenAI endpoint for one chat completion with JSON output ({"label": ...}, an enum schema, greedy)
per item and attribute:
- "stateless": each reads its whole prompt (`cache_prompt` off), as against a server that others use in between;
- "cached": with llama.cpp's own prompt cache, its default, and one caller: it reuses what the last prompt shared;
- "begun": as "cached", but its answer is begun for it with the same forced tokens and held to options. Left to itself
  under a JSON Schema this model writes blanks and splits the brace from the quotation mark as it likes, and what it
  says then hangs on that: equal labels are to be looked for here.
Ours reads the probabilities of the options off the tokens, what the questions about an item share being read once:
- "palate": at the place where the JSON has its label, after the forced beginning of the answer `{"label": "`;
- "palate, plain": the prompts as `palate annotate` sends them, with no JSON in them.
The ratio that counts is "palate" to "stateless", in wall time; processor time stands beside it, for busy machines.
Labels are equal where both say the same option.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
from machine import machine_facts

from palate.data.movielens import read_movielens
from palate.knowledge.annotate import questions
from palate.knowledge.attributes import load_attributes
from palate.llm.engines.llama import LlamaEngine
from palate.llm.request import ListedWork, Message, Request

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = 3
AS_JSON = '\nAnswer with JSON: {"label": "<option>"}'
OPENED = '{"label": "'


def requests_of(items: int) -> list[Request]:
    dataset = read_movielens(ROOT / "data" / "ml-latest-small")
    most_rated = dataset.item_counts.argsort()[::-1][:items]
    attributes = load_attributes(ROOT / "examples" / "movielens" / "attributes")[:ATTRIBUTES]
    return [question.request for question in questions(dataset, most_rated, attributes)]


def as_json(request: Request) -> Request:
    system, *rest = request.messages
    return replace(request, messages=(Message("system", system.text + AS_JSON), *rest))


def opened(request: Request) -> Request:
    return replace(request, messages=(*request.messages, Message("assistant", OPENED)))


def ours(engine: LlamaEngine, requests: list[Request]) -> list[str]:
    answered = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer.text for _, answer in sorted(answered, key=lambda pair: pair[0])]


def completions(engine: LlamaEngine, requests: list[Request], cache: bool) -> list[str]:
    return _asked(engine, requests, lambda request: {"cache_prompt": cache, "response_format": _schema(request)})


def begun(engine: LlamaEngine, requests: list[Request]) -> list[str]:
    begin = [opened(request) for request in requests]
    return _asked(engine, begin, lambda request: {"cache_prompt": True, "grammar": _grammar(request)})


def _asked(engine: LlamaEngine, requests: list[Request], held: Callable[[Request], dict[str, object]]) -> list[str]:
    with httpx.Client(base_url=engine.address, timeout=120, trust_env=False) as http:
        return [_completion(http, request, held(request)) for request in requests]


def _schema(request: Request) -> dict[str, object]:
    label = {"type": "string", "enum": list(request.options or ())}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def _grammar(request: Request) -> str:
    said = " | ".join(json.dumps(json.dumps(option)[1:] + "}") for option in request.options or ())
    return f"root ::= {said}"


def _completion(http: httpx.Client, request: Request, held: dict[str, object]) -> str:
    body = {
        "messages": [{"role": message.role, "content": message.text} for message in request.messages],
        "max_tokens": 64,
        "temperature": 0,
        **held,
    }
    reply = http.post("/v1/chat/completions", json=body).raise_for_status().json()
    said = reply["choices"][0]["message"]["content"]
    return str(json.loads(said if said.startswith("{") else OPENED + said)["label"])


def measured(name: str, work: Callable[[], list[str]], n: int) -> tuple[dict[str, float], list[str]]:
    wall, processor = time.perf_counter(), time.process_time()
    labels = work()
    row = {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
    print(f"{name}: {n / row['seconds']:.2f} labels/s; {dict(Counter(labels))}", flush=True)
    return {"labels_per_second": n / row["seconds"], **row}, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    args = parser.parse_args()
    plain = requests_of(args.items)
    asked = [as_json(request) for request in plain]
    engine = LlamaEngine()
    ours(engine, plain[:1])  # loads the model
    runs: dict[str, Callable[[], list[str]]] = {
        "palate": lambda: ours(engine, [opened(request) for request in asked]),
        "palate, plain": lambda: ours(engine, plain),
        "stateless": lambda: completions(engine, asked, cache=False),
        "cached": lambda: completions(engine, asked, cache=True),
        "begun": lambda: begun(engine, asked),
    }
    done = {name: measured(name, work, len(plain)) for name, work in runs.items()}
    engine.close()
    found: dict[str, object] = {name: row for name, (row, _) in done.items()}
    for mine in ("palate", "palate, plain"):
        for theirs in ("stateless", "cached", "begun"):
            (a, said), (b, told) = done[mine], done[theirs]
            ratios = {f"{kind}_ratio": b[kind] / a[kind] for kind in ("seconds", "processor_seconds")}
            equal = sum(x == y for x, y in zip(said, told, strict=True)) / len(plain)
            found[f"{mine} beside {theirs}"] = {**ratios, "equal_labels": equal}
            figures = (
                f"{ratios['seconds_ratio']:.2f}x by the clock, {ratios['processor_seconds_ratio']:.2f}x by processor"
            )
            print(f"{mine} beside {theirs}: {figures}; {equal:.1%} equal labels")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "llm_local.json").write_text(json.dumps({**found, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
