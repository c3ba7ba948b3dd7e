"""A project of 120 films of meadows and battles, and a stand-in for its LLM: for logic, not for quality."""

import hashlib
import json
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import yaml

from palate.knowledge.golden_set import golden_split
from palate.llm.request import Answer, Bound, Request, Work


def unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


class FilmEngine:
    """Says yes to calm items where the question has the word "gentle", and by chance where it has not."""

    name = "fake"
    model = "film-1"
    asked: ClassVar[list[Request]] = []  # of all instances: a command opens its own
    drifted = False  # says the opposite

    def __init__(self, path: object = None, decoding: object = None) -> None:
        pass

    def close(self) -> None:
        pass

    def bound(self, request: Request) -> Bound:
        return Bound(20, 0.0)

    def ask(self, work: Work) -> Iterator[list[tuple[int, Answer]]]:
        while taken := work.take(8):
            for number, request in taken:
                self.asked.append(request)
                yield [(number, self._answer(request))]

    def _answer(self, request: Request) -> Answer:
        text = request.messages[-1].text
        told = {"tokens_in": 10, "tokens_out": 1, "model": self.model, "engine": self.name}
        if request.options is None:
            wording = {"question": "Is this gentle?", "guidance": "No haste.", "edge_cases": [], "why": "plainer"}
            return Answer(json.dumps(wording), **told)
        yes = unit(text) if "gentle" not in text.lower() else 0.1 + 0.8 * ("meadow" in text)
        yes = 1 - yes if self.drifted else yes
        shares = np.array([yes, *[(1 - yes) / (len(request.options) - 1)] * (len(request.options) - 1)])
        return Answer(request.options[0], probabilities=tuple(shares.tolist()), **told)


class WordEncoder:
    """Vectors of three words."""

    name, width = "words", 3

    def encode(self, texts):
        found = np.array([[w in text for w in ("meadow", "battle", "0")] for text in texts], dtype=np.float32)
        return (found + 0.1) / np.linalg.norm(found + 0.1, axis=1, keepdims=True)


MOODS = """# What we ask.
- name: calm
  question: Is this calm?  # as agreed in May
  description: a calm film
"""


@pytest.fixture
def palate(palate, monkeypatch):
    monkeypatch.setattr("palate.project.project.LlamaEngine", FilmEngine)
    monkeypatch.setattr("palate.project.project.MiniLMEncoder", WordEncoder)
    monkeypatch.setattr(FilmEngine, "asked", [])
    return lambda *arguments: palate("annotate", *arguments)


@pytest.fixture
def project(tmp_path):
    place = ["meadow", "battle"]
    lines = [f"i{k},Film {k},a {place[k % 2]} {k},{place[k % 2].title()}" for k in range(120)]
    (tmp_path / "items.csv").write_text("item_id,title,text,categories\n" + "\n".join(lines) + "\n")
    events = [f"u{k % 7},i{k},{1_600_000_000 + k}" for k in range(120)]
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(events) + "\n")
    (tmp_path / "attributes").mkdir()
    (tmp_path / "attributes" / "moods.yaml").write_text(MOODS)
    (tmp_path / "golden").mkdir()
    golden_split(tmp_path / "golden", dev_share=0.6, salt="test")
    rows = [f"i{k},calm,a,{1 - k % 2}" for k in range(120)]
    (tmp_path / "golden" / "people.csv").write_text("item_id,attribute,rater,label\n" + "\n".join(rows) + "\n")
    config = {"data": {"items": "items.csv", "events": "events.csv"}, "annotate": {"items": 100}}
    (tmp_path / "palate.yaml").write_text(yaml.safe_dump(config))
    return tmp_path
