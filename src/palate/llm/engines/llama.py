"""The embedded engine: a GGUF file read by llama.cpp in this process (`xllamacpp`), no key and no download.

Three ways to hold the model to an answer: a JSON Schema (llama.cpp turns it into a grammar), a list of
strings (a grammar whose language is exactly that list), and `options`, whose probabilities are read off the
tokens: option tokens are lifted by one common bias, so that the softmax over them keeps their ratios.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from palate.errors import EngineError, InputError
from palate.llm.packaged import default_model_path
from palate.llm.prices import Prices, bound_of
from palate.llm.prompts import defused
from palate.llm.request import Answer, Bound, Request, Work

_LIFT = 60.0  # a common logit bias: far above any other token, equal for all options


class LlamaEngine:
    """SmolLM2 or any other GGUF chat model, one request at a time on the CPU.

    Requests that share the beginning of a prompt should follow each other: what was read once is not read
    again (`Answer.tokens_cached`).

    Args:
        path: The GGUF file; None for the packaged SmolLM2-135M-Instruct.
        context: Longest prompt plus answer, in tokens.
        threads: CPU threads; None for all that this process may use.
    """

    name = "llama.cpp"

    def __init__(self, path: Path | str | None = None, context: int = 4096, threads: int | None = None) -> None:
        self.path = Path(path) if path is not None else default_model_path()
        if not self.path.is_file():
            raise InputError(
                "The language model's file does not exist.",
                where=str(self.path),
                hint="Check llm.model in palate.yaml, or remove it to use the embedded SmolLM2-135M-Instruct.",
            )
        self.model = self.path.stem
        self._context = context
        self._threads = threads or len(os.sched_getaffinity(0))
        self._server: Any = None
        self._http: httpx.Client | None = None
        self._option_tokens: dict[str, tuple[int, ...]] = {}

    @property
    def address(self) -> str:
        """Where the in-process server listens on loopback: it speaks the OpenAI protocol too."""
        self._start()
        return str(self._server.listening_address)

    def close(self) -> None:
        """Give the model's memory back. A later ask loads it again."""
        if self._http is not None:
            self._http.close()
        self._server = self._http = None

    def bound(self, request: Request) -> Bound:
        return bound_of(request, Prices())

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        while taken := work.take(1):
            for number, request in taken:
                yield [(number, self._one(request))]

    def _one(self, request: Request) -> Answer:
        started = time.perf_counter()
        try:
            found = self._choose(request) if request.options else self._generate(request)
        except (RuntimeError, ValueError, KeyError, httpx.HTTPError) as error:
            found = {"error": f"{type(error).__name__}: {error}", "free": True}
        seconds = time.perf_counter() - started
        return Answer(**found, seconds=seconds, model=self.model, engine=self.name)

    def _generate(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt": self._render(request),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.schema is not None:
            body["json_schema"] = request.json_schema
        if request.trie is not None:
            body["grammar"] = grammar_of(request.trie)
        reply = self._complete(body)
        choice = reply["choices"][0]
        return {"text": choice["text"], "finish_reason": choice["finish_reason"], **_tokens(reply)}

    def _choose(self, request: Request) -> dict[str, Any]:
        """Chain rule over the tokens of the options: one call wherever the options' tokens branch."""
        assert request.options is not None
        prompt = self._render(request)
        paths = _prefix_free([self._tokens_of(option) for option in request.options])
        probabilities = [1.0] * len(paths)
        totals = {"tokens_in": 0, "tokens_cached": 0, "tokens_out": 0}
        frontier: list[tuple[int, ...]] = [()]
        while frontier:
            prefix = frontier.pop()
            inside = [i for i, path in enumerate(paths) if path[: len(prefix)] == prefix]
            branches = sorted({paths[i][len(prefix)] for i in inside if len(paths[i]) > len(prefix)})
            if len(branches) > 1:
                shares, tokens = self._branch(prompt, prefix, branches)
                for i in inside:
                    probabilities[i] *= shares[paths[i][len(prefix)]]
                totals = {name: totals[name] + tokens[name] for name in totals}
            frontier += [(*prefix, token) for token in branches if len(inside) > 1]
        best = max(range(len(paths)), key=lambda i: probabilities[i])
        return {"text": request.options[best], "probabilities": tuple(probabilities), "method": "exact", **totals}

    def _branch(
        self, prompt: str, prefix: tuple[int, ...], tokens: list[int]
    ) -> tuple[dict[int, float], dict[str, int]]:
        reply = self._complete(
            {
                "prompt": [prompt, *prefix] if prefix else prompt,
                "max_tokens": 1,
                "temperature": 1.0,
                "samplers": ["top_k", "temperature"],
                "top_k": len(tokens),
                "logit_bias": [[token, _LIFT] for token in tokens],
                "n_probs": len(tokens),
                "post_sampling_probs": True,
                "seed": 0,
            }
        )
        top = reply["choices"][0]["logprobs"]["content"][0]["top_probs"]
        found = {entry["id"]: float(entry["prob"]) for entry in top}
        shares = {token: found.get(token, 0.0) for token in tokens}
        total = sum(shares.values())
        return {token: share / total for token, share in shares.items()}, _tokens(reply)

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self._start()
        reply: dict[str, Any] = self._server.handle_completions({"cache_prompt": True, "id_slot": 0, **body})
        if "choices" not in reply:
            raise RuntimeError(str(reply.get("error", reply))[:300])
        return reply

    def _render(self, request: Request) -> str:
        """The model's own chat template; control tokens inside contents lose their power."""
        if request.body is not None or any(message.images for message in request.messages):
            raise ValueError("this engine takes neither raw bodies nor images")
        messages = [{"role": m.role, "content": defused(m.text)} for m in request.messages]
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def _tokens_of(self, option: str) -> tuple[int, ...]:
        if option not in self._option_tokens:
            found = self._post("/tokenize", {"content": option, "parse_special": False})["tokens"]
            self._option_tokens[option] = tuple(found)
        return self._option_tokens[option]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._start()
        assert self._http is not None
        reply = self._http.post(path, json=body)
        reply.raise_for_status()
        return dict(reply.json())

    def _start(self) -> None:
        if self._server is not None:
            return
        try:
            import xllamacpp
        except ImportError as error:
            raise EngineError(
                "The embedded language model needs xllamacpp.", hint="pip install 'palate[embedded]'"
            ) from error
        params = xllamacpp.CommonParams()
        params.model.path = str(self.path)
        params.n_ctx = self._context
        params.n_parallel = 1
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = self._threads
        params.cpuparams.poll = 0  # waiting threads sleep: spinning ones starve whatever else runs
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                "The language model's file could not be loaded.",
                where=str(self.path),
                got=error,
                hint="Is it a complete GGUF file of a chat model?",
            ) from error
        self._http = httpx.Client(base_url=self._server.listening_address, timeout=60.0, trust_env=False)


def grammar_of(strings: Sequence[str]) -> str:
    """A GBNF grammar whose language is exactly `strings`."""
    return "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in strings)


def _prefix_free(paths: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """`paths`, if none begins another: only then do the probabilities of the branches sum to 1.

    Raises:
        ValueError: if two options are the same tokens, or one begins another.
    """
    if len(set(paths)) < len(paths):
        raise ValueError("two options have the same tokens")
    if any(a != b and b[: len(a)] == a for a in paths for b in paths):
        raise ValueError("one option begins another: word the options differently")
    return paths


def _tokens(reply: dict[str, Any]) -> dict[str, int]:
    usage = reply["usage"]
    return {
        "tokens_in": usage["prompt_tokens"],
        "tokens_cached": usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        "tokens_out": usage["completion_tokens"],
    }
