"""Strangers' text in prompts: nothing in it may read as a chat template's control token."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"<\|([^|<>]{0,40})\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]")


def defused(text: str) -> str:
    """`text` in which nothing reads as a chat template's control token: a title cannot end its own turn."""
    return _CONTROL.sub(lambda match: match.group(0).replace("<", "‹").replace(">", "›").replace("[", "("), text)
