"""One request as the calls it takes: mostly one; a choice over options may take several. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from palate.llm import chat
from palate.llm.chat import UnreadableError
from palate.llm.request import Request

SAMPLES = 10  # draws of a choice where the server gives no log-probabilities


@dataclass
class Server:
    """What is known of the server."""

    model: str
    logprobs: bool = True  # until it is seen that it gives none


class Dialogue:
    """`body` is what to send next; `read` takes the reply.

    Raises:
        ValueError: A request that cannot be written as JSON.
    """

    def __init__(self, request: Request, server: Server) -> None:
        self.request, self._server = request, server
        self.model = str((request.body or {}).get("model") or server.model)
        self.tokens = {"tokens_in": 0, "tokens_cached": 0, "tokens_out": 0}
        self._drawn: list[str] | None = None  # None: not sampling
        if request.options is None:
            self.body = _encoded(chat.chat_body(request, server.model))
        elif not server.logprobs or len(request.options) > chat.MOST_LISTED:
            self._sample()
        else:
            self.body = _encoded(chat.first_token_body(request, server.model))

    def read(self, reply: dict[str, Any]) -> dict[str, Any] | None:
        """What the answer says under the names of `Answer`; None: `body` is to be sent too.

        Raises:
            UnreadableError, RefusedError: See `palate.llm.chat`.
        """
        for name, number in chat.read_usage(reply).items():
            self.tokens[name] += number
        choice = chat.read_choice(reply)
        if self.request.options is not None:
            return self._read_options(self.request.options, choice)
        found = chat.read_text(self.request, choice)
        return found if self.request.body is None else found | {"value": reply}

    def without_logprobs(self) -> bool:
        """The server refused to give any: go on by sampling, if that makes sense."""
        if self.request.options is None or self._drawn is not None:
            return False
        self._server.logprobs = False
        self._sample()
        return True

    def _read_options(self, options: tuple[str, ...], choice: dict[str, Any]) -> dict[str, Any] | None:
        if self._drawn is None:
            top = chat.first_tokens(choice)
            shares = chat.first_token_shares(options, top) if top else None
            if shares:
                return _chosen(options, shares, "first token")
            self._server.logprobs = self._server.logprobs and top is not None
        else:
            drawn = chat.read_one_of(choice["message"].get("content") or "")
            if drawn not in options:
                raise UnreadableError("none of the options was drawn")
            self._drawn.append(drawn)
            if len(self._drawn) == SAMPLES:
                return _chosen(options, chat.sampled_shares(options, self._drawn), "sampled")
        self._sample()
        return None

    def _sample(self) -> None:
        self._drawn = self._drawn or []
        self.body = _encoded(chat.sample_body(self.request, self._server.model, len(self._drawn)))


def _chosen(options: tuple[str, ...], shares: tuple[float, ...], method: str) -> dict[str, Any]:
    best = max(range(len(options)), key=shares.__getitem__)
    return {"text": options[best], "probabilities": shares, "method": method}


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
