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
from palate.llm.decoding.pools import DecodingConfig
from palate.llm.packaged import default_model_path
from palate.llm.prices import Prices, bound_of
from palate.llm.prompts import text_messages
from palate.llm.request import Answer, Bound, Drafts, Request, Work
from palate.llm.scoring import Tokens, option_probabilities

_LIFT = 60.0  # a common logit bias: far above any other token, equal for all options
_AT_ONCE = 16  # requests taken together, to be put in an order in which they share the most
_NO_JSON = "Yes"  # no JSON begins so


class LlamaEngine:
    """SmolLM2 or any other GGUF chat model, one sequence at a time on the CPU.

    What a prompt begins with as the one before did is not read again (`Answer.tokens_cached`): several questions about
    an item cost one reading of the item. An assistant message at the end is the forced beginning of the answer.

    Args:
        path: The GGUF file; None for the packaged SmolLM2-135M-Instruct.
        context: Longest prompt plus answer, in tokens.
        threads: CPU threads; None for all that this process may use.
        decoding: Strict drafts from the answer's own text (`pool: none`) or from what was written before (`global`), by
            llama.cpp's own look-up; what it computes together is rounded otherwise, so that ties may fall otherwise.

    Raises:
        InputError: No such file, or a way of decoding that llama.cpp does not have.
    """

    name = "llama.cpp"

    def __init__(
        self,
        path: Path | str | None = None,
        context: int = 4096,
        threads: int | None = None,
        decoding: DecodingConfig | None = None,
    ) -> None:
        self.path = Path(path) if path is not None else default_model_path()
        if not self.path.is_file():
            raise InputError(
                "The language model's file does not exist.",
                where=str(self.path),
                hint="Check llm.model in palate.yaml, or remove it to use the embedded SmolLM2-135M-Instruct.",
            )
        if decoding is not None and (decoding.mode != "strict" or decoding.pool == "grouped"):
            raise InputError(
                "llama.cpp writes with drafts in the mode strict only, from the pools none or global.",
                where="llm.decoding",
                got=f"{decoding.mode}, {decoding.pool}",
                hint="llm.engine: torch has the others.",
            )
        self.model = self.path.stem
        self._decoding = decoding
        self._context = context
        self._threads = threads or len(os.sched_getaffinity(0))
        self._server: Any = None
        self._http: httpx.Client | None = None
        self._option_tokens: dict[str, Tokens] = {}
        self._held: dict[str, bool] = {}  # can the grammar hold this schema?

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
        """One answer a batch. Of the requests taken together, those that begin alike follow each other."""
        while taken := work.take(_AT_ONCE):
            for number, request, prompt in sorted(self._rendered(taken), key=lambda entry: entry[2]):
                yield [(number, self._one(request, prompt))]

    def _rendered(self, taken: list[tuple[int, Request]]) -> Iterator[tuple[int, Request, str]]:
        for number, request in taken:
            try:
                yield number, request, self._render(request)
            except (ValueError, httpx.HTTPError):
                yield number, request, ""  # asking it alone says what is wrong

    def _one(self, request: Request, prompt: str) -> Answer:
        started = time.perf_counter()
        try:
            prompt = prompt or self._render(request)
            found = self._choose(request, prompt) if request.options else self._generate(request, prompt)
        except (RuntimeError, ValueError, KeyError, httpx.HTTPError) as error:
            found = {"error": str(error) or type(error).__name__, "free": True}
        seconds = time.perf_counter() - started
        return Answer(**found, seconds=seconds, model=self.model, engine=self.name)

    def _generate(self, request: Request, prompt: str) -> dict[str, Any]:
        body = {"prompt": prompt, **_sampling(request)}
        if request.schema is not None:
            body["json_schema"] = request.json_schema
            self._insist(body)
        if request.trie is not None:
            body["grammar"] = grammar_of(request.trie)
        reply = self._complete(body)
        choice = reply["choices"][0]
        found = {"text": choice["text"], "finish_reason": choice["finish_reason"], **_spent(reply), **_drafts(reply)}
        return found | ({"logprobs": _likeliest(choice)} if request.logprobs else {})

    def _insist(self, body: dict[str, Any]) -> None:
        """The server drops a schema that it cannot hold without a word: once a schema, try to make it break it.

        Raises:
            ValueError: if that works.
        """
        schema = json.dumps(body["json_schema"], sort_keys=True)
        if schema not in self._held:
            push = [[token, _LIFT] for token in self._tokens_of(_NO_JSON)]
            tried = {**body, "max_tokens": 1, "temperature": 0.0, "logit_bias": push, "stop": []}
            self._held[schema] = not self._complete(tried)["choices"][0]["text"].startswith(_NO_JSON)
        if not self._held[schema]:
            raise ValueError(f"this schema cannot be constrained: {schema[:300]}")

    def _choose(self, request: Request, prompt: str) -> dict[str, Any]:
        assert request.options is not None
        totals = {"tokens_in": 0, "tokens_cached": 0, "tokens_out": 0}

        def shares(prefix: Tokens, tokens: list[int]) -> dict[int, float]:
            found, spent = self._branch(prompt, prefix, tokens)
            totals.update({name: totals[name] + spent[name] for name in totals})
            return found

        probabilities = option_probabilities([self._tokens_of(option) for option in request.options], shares)
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return {"text": request.options[best], "probabilities": probabilities, "method": "exact", **totals}

    def _branch(self, prompt: str, prefix: Tokens, tokens: list[int]) -> tuple[dict[int, float], dict[str, int]]:
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
        return {token: share / total for token, share in shares.items()}, _spent(reply)

    def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self._start()
        reply: dict[str, Any] = self._server.handle_completions({"cache_prompt": True, "id_slot": 0, **body})
        if "choices" not in reply:
            raise RuntimeError(str(reply.get("error", {}).get("message", reply))[:300])
        return reply

    def _render(self, request: Request) -> str:
        """The model's own chat template; control tokens inside contents lose their power."""
        return str(self._post("/apply-template", {"messages": text_messages(request)})["prompt"])

    def _tokens_of(self, option: str) -> Tokens:
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
        params.cache_ram_mib = 0  # by default up to 8 GiB of past prompts are kept in memory
        # With flash attention or half-precision states an answer hangs on where the reused beginning of its prompt
        # ended: probabilities by up to 0.05. So computed, 59 of 60 agreed to 1e-4 (one was off by 0.02), at no cost.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cpuparams.n_threads = self._threads
        if self._decoding is not None:
            _look_up(params.speculative, self._decoding.pool)
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


def _look_up(speculative: Any, pool: str) -> None:
    """Settings for short texts; llama.cpp's own are for code: runs of 12 or 24 tokens that agree."""
    import xllamacpp

    types = xllamacpp.common_speculative_type
    if pool == "none":
        speculative.types = [types.COMMON_SPECULATIVE_TYPE_NGRAM_MAP_K]
        speculative.ngram_map_k.size_n, speculative.ngram_map_k.size_m = 3, 12
    else:
        speculative.types = [types.COMMON_SPECULATIVE_TYPE_NGRAM_MOD]
        speculative.ngram_mod.n_match, speculative.ngram_mod.n_min, speculative.ngram_mod.n_max = 4, 1, 12


def grammar_of(strings: Sequence[str]) -> str:
    """A GBNF grammar whose language is exactly `strings`."""
    return "root ::= " + " | ".join(json.dumps(text, ensure_ascii=False) for text in strings)


def _sampling(request: Request) -> dict[str, Any]:
    """Temperature and top_p alone, as OpenAI's protocol means them: the server's own defaults cut off more."""
    body: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "stop": list(request.stop),
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.logprobs:
        body["n_probs"] = request.logprobs
    return body


def _likeliest(choice: dict[str, Any]) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Tokens with their log-probabilities at each place of the answer, the chosen one first."""
    places = []
    for place in choice["logprobs"]["content"]:
        others = [entry for entry in place["top_logprobs"] if entry["id"] != place["id"]]
        places.append(tuple((str(entry["token"]), float(entry["logprob"])) for entry in (place, *others)))
    return tuple(places)


def _drafts(reply: dict[str, Any]) -> dict[str, Any]:
    timings = reply.get("timings", {})
    if "draft_n" not in timings:
        return {}
    drafted, accepted = int(timings["draft_n"]), int(timings["draft_n_accepted"])
    return {"drafts": Drafts("strict", drafted, accepted, int(reply["usage"]["completion_tokens"]) - accepted)}


def _spent(reply: dict[str, Any]) -> dict[str, int]:
    usage = reply["usage"]
    return {
        "tokens_in": usage["prompt_tokens"],
        "tokens_cached": usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        "tokens_out": usage["completion_tokens"],
    }
