"""Strangers' text in prompts: nothing in it may read as a chat template's control token."""

from __future__ import annotations

import re

from palate.llm.request import Request

_CONTROL = re.compile(
    r"<\|[^|<>]{0,40}\|>|<｜[^｜<>]{0,40}｜>|</?s>|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
)


def defused(text: str) -> str:
    """`text` in which nothing reads as a chat template's control token: a title cannot end its own turn."""
    return _CONTROL.sub(lambda match: match.group(0).replace("<", "‹").replace(">", "›").replace("[", "("), text)


def text_messages(request: Request) -> list[dict[str, str]]:
    """The messages for an engine that reads nothing but text, defused.

    Raises:
        ValueError: a raw body, or images.
    """
    if request.body is not None:
        raise ValueError("this engine takes no raw bodies")
    if any(message.images for message in request.messages):
        raise ValueError("this engine reads no images")
    return [{"role": message.role, "content": defused(message.text)} for message in request.messages]
