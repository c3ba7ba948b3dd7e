"""The plan: what a run would ask, read, write, cost and take, before it does."""

import pytest

from palate.errors import InputError
from palate.llm.images import Image
from palate.llm.ledger import Ledger
from palate.llm.plan import plan, tokenizer, tokens_of
from palate.llm.prices import Prices
from palate.llm.request import Answer, Message, Request

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40_000)


def ask(text: str, **settings: object) -> Request:
    return Request((Message("user", text),), **settings)


def body(text: str, **more: object) -> Request:
    return Request(body={"model": "m", "messages": [{"role": "user", "content": text}], **more})


def test_what_the_ledger_knows_and_what_stands_there_twice_is_not_asked(tmp_path):
    requests = [ask(f"question {i % 6}", max_tokens=10) for i in range(12)]
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.put(requests[0], Answer("x", model="m", seconds=0.5), "m")
        ledger.put(ask("other"), Answer("x", model="m", seconds=1.5), "m")
        ledger.put(ask("other"), Answer("x", model="n", seconds=99.0), "n")
        made = plan(iter(requests), ledger, "m", Prices(1.0, 100.0), len, concurrency=2)
    assert (made.requests, made.cached, made.calls) == (12, 7, 5)
    assert made.tokens_out == 50
    assert made.seconds == pytest.approx(1.0 * 5 / 2)


def test_tokens_are_counted_where_there_is_a_tokenizer(tmp_path):
    words = lambda text: len(text.split())  # noqa: E731
    made = plan([ask("one two three", max_tokens=10)], None, "m", Prices(1e6, 1e6), words)
    assert not made.estimated
    assert made.tokens_in == 3 + 5
    assert made.money == made.tokens_in + 10
    assert made.seconds is None


def test_without_a_tokenizer_they_are_estimated():
    made = plan([ask("x" * 400)], None, "m")
    assert made.estimated
    assert made.tokens_in == 100 + 5


def test_a_raw_body_counts_as_the_request_it_stands_for():
    schema = {"type": "object"}
    given = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    assert tokens_of(body("one two", **given)) == tokens_of(ask("one two", schema=schema))
    picture = Image.of(PNG)
    parts = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": picture.data_url}}]
    raw = Request(body={"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert tokens_of(raw) == tokens_of(Request((Message("user", ("one", picture)),)))
    assert tokens_of(raw) < 2000  # the picture's bytes are no text


def test_a_tokenizer_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        tokenizer(tmp_path / "bad.json")


def test_a_models_own_tokenizer_counts(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    assert tokenizer(tmp_path / "tokenizer.json")("one two two three") == 4
