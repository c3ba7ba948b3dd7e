"""Labels a second of the embedded engine: three attributes of 200 real films, beside a chat completion for each.

    python benchmarks/llm_local.py [--items 200]

Both read the same prompts, those of `palate annotate` (instructions and item first, the question last), on the same
llama.cpp with the same threads. Ours reads the probabilities of the options off the tokens, what the questions about an
item share being read once. The baseline asks the same in-process server's OpenAI endpoint for one chat completion with
JSON output ({"label": ...}, an enum schema, greedy) per item and attribute:
- "stateless": each reads its whole prompt (`cache_prompt` off), as against a server that other callers use in between;
- "cached": with llama.cpp's own prompt cache, its default, and one caller: it reuses what the last prompt shared.
Labels are equal where both say the same option.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from machine import machine_facts

from palate.data.movielens import read_movielens
from palate.knowledge.annotate import questions
from palate.knowledge.attributes import load_attributes
from palate.llm.engines.llama import LlamaEngine
from palate.llm.request import ListedWork, Request

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = 3


def requests_of(items: int) -> list[Request]:
    dataset = read_movielens(ROOT / "data" / "ml-latest-small")
    most_rated = dataset.item_counts.argsort()[::-1][:items]
    attributes = load_attributes(ROOT / "examples" / "movielens" / "attributes")[:ATTRIBUTES]
    return [question.request for question in questions(dataset, most_rated, attributes)]


def ours(engine: LlamaEngine, requests: list[Request]) -> list[str]:
    answered = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer.text for _, answer in sorted(answered, key=lambda pair: pair[0])]


def completions(engine: LlamaEngine, requests: list[Request], cache: bool) -> list[str]:
    with httpx.Client(base_url=engine.address, timeout=120, trust_env=False) as http:
        return [_completion(http, request, cache) for request in requests]


def _completion(http: httpx.Client, request: Request, cache: bool) -> str:
    label = {"type": "string", "enum": list(request.options or ())}
    schema = {"type": "object", "properties": {"label": label}, "required": ["label"], "additionalProperties": False}
    body = {
        "messages": [{"role": message.role, "content": message.text} for message in request.messages],
        "max_tokens": 64,
        "temperature": 0,
        "cache_prompt": cache,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }
    reply = http.post("/v1/chat/completions", json=body).raise_for_status().json()
    return str(json.loads(reply["choices"][0]["message"]["content"])["label"])


def timed(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    start = time.perf_counter()
    labels = work()
    return time.perf_counter() - start, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    args = parser.parse_args()
    requests = requests_of(args.items)
    engine = LlamaEngine()
    ours(engine, requests[:1])  # loads the model
    seconds, labels = timed(lambda: ours(engine, requests))
    found = {"labels": len(requests), "palate": {"labels_per_second": len(requests) / seconds}}
    print(f"palate: {len(requests) / seconds:.2f} labels/s", flush=True)
    for name, cache in (("stateless", False), ("cached", True)):
        theirs, said = timed(lambda cache=cache: completions(engine, requests, cache))
        equal = sum(a == b for a, b in zip(labels, said, strict=True)) / len(labels)
        row = {"labels_per_second": len(requests) / theirs, "ratio": theirs / seconds, "equal_labels": equal}
        found[name] = row
        print(
            f"chat completions, {name}: {row['labels_per_second']:.2f} labels/s, {row['ratio']:.2f} times slower; "
            f"{equal:.1%} equal labels",
            flush=True,
        )
    engine.close()
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "llm_local.json").write_text(json.dumps({**found, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
