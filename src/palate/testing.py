"""The contracts that any engine or encoder must pass: subclass one in your tests and name your part.

```python
class TestMyEngine(EngineContract):
    @pytest.fixture(scope="class")
    def engine(self): return MyEngine()
```
"""

from __future__ import annotations

import json

import numpy as np

from palate.llm.encoders import Encoder
from palate.llm.request import Answer, Engine, ListedWork, Message, Request

_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}},
    "required": ["colour"],
    "additionalProperties": False,
}


def ask_user(text: str, **settings: object) -> Request:
    """A request of one user message."""
    return Request((Message("user", text),), **settings)  # type: ignore[arg-type]


class EngineContract:
    """Give a fixture `engine`."""

    def _ask(self, engine: Engine, requests: list[Request]) -> list[Answer]:
        answered = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
        return [answer for _, answer in sorted(answered, key=lambda pair: pair[0])]

    def test_every_request_is_answered_once(self, engine: Engine) -> None:
        requests = [ask_user(f"Say {word}.", max_tokens=4) for word in ("one", "two", "three")]
        batches = list(engine.ask(ListedWork(requests)))
        assert all(batches)
        assert sorted(number for batch in batches for number, _ in batch) == [0, 1, 2]

    def test_no_work_no_answer(self, engine: Engine) -> None:
        assert list(engine.ask(ListedWork([]))) == []

    def test_the_bound_is_not_passed(self, engine: Engine) -> None:
        request = ask_user("Count to one hundred: 1, 2, 3, … — ©", max_tokens=6)
        (answer,) = self._ask(engine, [request])
        bound = engine.bound(request)
        assert answer.tokens_in + answer.tokens_out <= bound.tokens
        assert answer.cost <= bound.money

    def test_answers_carry_their_provenance(self, engine: Engine) -> None:
        (answer,) = self._ask(engine, [ask_user("Say hello.", max_tokens=4)])
        assert (answer.error, answer.model, answer.engine) == (None, engine.model, engine.name)
        assert answer.tokens_in > 0
        assert answer.tokens_out > 0

    def test_a_schema_is_kept(self, engine: Engine) -> None:
        (answer,) = self._ask(engine, [ask_user("Red or green? JSON.", schema=_SCHEMA, max_tokens=30)])
        assert json.loads(answer.text)["colour"] in ("red", "green")

    def test_a_trie_is_kept(self, engine: Engine) -> None:
        names = ("slow-burn crime", 'the "quoted" one', "café noir")
        (answer,) = self._ask(engine, [ask_user("Which is best?", trie=names, max_tokens=40)])
        assert answer.text in names

    def test_probabilities_sum_to_one(self, engine: Engine) -> None:
        (answer,) = self._ask(engine, [ask_user("Is water wet?", options=("Yes", "No"))])
        assert answer.error is None
        assert answer.probabilities is not None
        assert len(answer.probabilities) == 2
        assert abs(sum(answer.probabilities) - 1) < 1e-5
        assert all(0 <= p <= 1 for p in answer.probabilities)

    def test_greedy_answers_repeat(self, engine: Engine) -> None:
        request = ask_user("Name a fruit.", max_tokens=8)
        first, second = self._ask(engine, [request, request])
        assert first.text == second.text


class EncoderContract:
    """Give a fixture `encoder`."""

    def test_unit_vectors_of_the_stated_width(self, encoder: Encoder) -> None:
        vectors = encoder.encode(["a cat", "", "x" * 5000])
        assert vectors.shape == (3, encoder.width)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)

    def test_no_text_gives_no_row(self, encoder: Encoder) -> None:
        assert encoder.encode([]).shape == (0, encoder.width)

    def test_a_vector_does_not_depend_on_its_batch(self, encoder: Encoder) -> None:
        texts = ["short", "a much longer text about ships and the sea", "middle sized text"]
        alone = np.concatenate([encoder.encode([text]) for text in texts])
        np.testing.assert_allclose(encoder.encode(texts), alone, atol=1e-5)

    def test_meaning_is_near(self, encoder: Encoder) -> None:
        a, b, c = encoder.encode(["A man is eating food.", "Someone eats a meal.", "A rocket flies to Mars."])
        assert a @ b > a @ c
