"""The HTTP engine: any OpenAI-compatible server (OpenAI, vLLM, SGLang, llama.cpp server, Ollama, Gemini's)."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from palate.errors import EngineError, InputError
from palate.llm.request import Answer, Message, Request

_RETRY_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_LETTERS = "ABCDEFGHIJKLMNOPQRST"  # top_logprobs ends at 20


class OpenAIEngine:
    """`/chat/completions` of an OpenAI-compatible server.

    Args:
        base_url: Such as `http://127.0.0.1:8080/v1`.
        model: The name the server knows the model by.
        api_key_variable: Environment variable that holds the key; the key itself is never kept.
        concurrency: Requests in flight.
        attempts: Tries of one request, with exponential back-off or the server's `Retry-After`.
        timeout: Seconds for one attempt.
        price_in, price_out: Money for a million tokens, for the books.
    """

    name = "openai"

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        attempts: int = 5,
        timeout: float = 120.0,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise InputError(
                "The address of the LLM server is not a URL.",
                where="llm.base_url",
                got=base_url,
                allowed="http://… or https://…",
            )
        self.model = model
        self.base_url = base_url.rstrip("/")
        self._concurrency = concurrency
        self._attempts = attempts
        self._prices = (price_in, price_out)
        key = os.environ.get(api_key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=timeout, headers=headers)

    def close(self) -> None:
        self._http.close()

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Answers as they arrive. A caller that stops early cancels what has not begun.

        Raises:
            EngineError: if the server cannot be reached or refuses the key; what was answered stays answered.
        """
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="palate-llm")
        try:
            waiting = {pool.submit(self._one, request): i for i, request in enumerate(requests)}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, request: Request) -> Answer:
        started = time.perf_counter()
        try:
            reply = self._post(_body(self.model, request))
            found = _read(request, reply)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            found = {"error": f"unreadable answer: {type(error).__name__}: {error}"}
        except httpx.HTTPStatusError as error:
            found = {"error": f"HTTP {error.response.status_code}: {error.response.text[:300]}"}
        cost = (found.get("tokens_in", 0) * self._prices[0] + found.get("tokens_out", 0) * self._prices[1]) / 1e6
        seconds = time.perf_counter() - started
        return Answer(**found, seconds=seconds, cost=cost, model=self.model, engine=self.name)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(1, self._attempts + 1):
            wait = min(60.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                reply = self._http.post(f"{self.base_url}/chat/completions", json=body)
            except httpx.TransportError as error:
                if attempt == self._attempts:
                    raise self._unreachable(error) from error
            else:
                if reply.status_code in (401, 403):
                    raise self._unreachable(f"HTTP {reply.status_code}: {reply.text[:200]}")
                if reply.status_code not in _RETRY_STATUS or attempt == self._attempts:
                    reply.raise_for_status()
                    return dict(reply.json())
                wait = _retry_after(reply) or wait
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _unreachable(self, cause: object) -> EngineError:
        return EngineError(
            "The LLM server did not answer.",
            where=self.base_url,
            got=cause,
            hint="Check llm.base_url and the key in the environment, then run again: answers so far are kept.",
            retryable=True,
        )


def _body(model: str, request: Request) -> dict[str, Any]:
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.schema is not None:
        body["response_format"] = _schema_format(request.schema)
    elif request.trie is not None:
        allowed = {"type": "object", "properties": {"answer": {"type": "string", "enum": [*request.trie]}}}
        body["response_format"] = _schema_format({**allowed, "required": ["answer"], "additionalProperties": False})
    elif request.options is not None:
        if len(request.options) > len(_LETTERS):
            raise ValueError(f"at most {len(_LETTERS)} options over HTTP, got {len(request.options)}")
        listed = "\n".join(f"{_LETTERS[i]}) {option}" for i, option in enumerate(request.options))
        ask = Message("user", f"Options:\n{listed}\nAnswer with one letter only.")
        messages.append({"role": ask.role, "content": ask.content})
        body |= {"max_tokens": 1, "logprobs": True, "top_logprobs": 20, "temperature": 0.0}
    return body


def _schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _read(request: Request, reply: dict[str, Any]) -> dict[str, Any]:
    choice = reply["choices"][0]
    text = choice["message"]["content"] or ""
    usage = reply.get("usage") or {}
    found: dict[str, Any] = {
        "text": text,
        "finish_reason": choice.get("finish_reason") or "stop",
        "tokens_in": usage.get("prompt_tokens", 0),
        "tokens_cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) or 0,
        "tokens_out": usage.get("completion_tokens", 0),
    }
    if request.options is not None:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        found["probabilities"] = _letter_shares(top, len(request.options))
        found["text"] = request.options[max(range(len(request.options)), key=found["probabilities"].__getitem__)]
    elif request.trie is not None:
        found["text"] = str(json.loads(text)["answer"])
    return found


def _letter_shares(top: list[dict[str, Any]], n: int) -> tuple[float, ...]:
    """Probability of each letter among the listed tokens; a letter not listed gets the least listed one's."""
    floor = math.exp(min(entry["logprob"] for entry in top))
    shares = [0.0] * n
    for entry in top:
        letter = str(entry["token"]).strip()
        if len(letter) == 1 and letter in _LETTERS[:n]:
            shares[_LETTERS.index(letter)] += math.exp(entry["logprob"])
    if not any(shares):
        raise ValueError("no option among the most likely tokens")
    shares = [share or floor for share in shares]
    return tuple(share / sum(shares) for share in shares)


def _retry_after(reply: httpx.Response) -> float | None:
    try:
        return min(60.0, float(reply.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
