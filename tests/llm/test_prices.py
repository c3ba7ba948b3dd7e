import base64

import pytest

from palate.llm.images import Image
from palate.llm.prices import TOKENS_PER_IMAGE, Prices, bound_of
from palate.llm.request import Message, Request
from palate.testing import ask_user

PICTURE = Image.of(b"\x89PNG\r\n\x1a\n" + bytes(1_000_000))


def body(**more):
    return Request(body={"model": "m", "messages": [{"role": "user", "content": "Hello"}], **more})


def test_money_is_that_of_the_price_list():
    prices = Prices(tokens_in=2.0, tokens_out=8.0, cached=0.5)
    assert prices.cost(1_000_000, 400_000, 500_000) == pytest.approx(1.2 + 0.2 + 4.0)
    bound = bound_of(ask_user("Hello", max_tokens=100), prices)
    assert bound.money == pytest.approx((bound.tokens - 100) * 2e-6 + 100 * 8e-6)


def test_without_a_tokenizer_each_byte_may_be_a_token():
    short, long = bound_of(ask_user("é" * 10), Prices()), bound_of(ask_user("é" * 110), Prices())
    assert long.tokens - short.tokens == 200
    counted = bound_of(ask_user("é" * 110), Prices(), lambda text: len(text) // 10)
    assert counted.tokens < short.tokens + 300


def test_a_picture_counts_as_a_picture_and_not_as_its_bytes():
    typed = Request((Message("user", ("What is this?", PICTURE)),))
    url = f"data:image/png;base64,{base64.b64encode(PICTURE.data).decode()}"
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    raw = Request(body={"messages": [{"role": "user", "content": parts}], "max_tokens": 256})
    for request in (typed, raw):
        assert TOKENS_PER_IMAGE < bound_of(request, Prices()).tokens < TOKENS_PER_IMAGE + 1000


def test_what_a_body_says_beside_its_messages_is_read_too():
    plain = bound_of(body(max_tokens=5), Prices()).tokens
    assert bound_of(body(max_tokens=5, tools=[{"description": "x" * 500}]), Prices()).tokens > plain + 500
    assert bound_of(body(max_tokens=5, n=3), Prices()).tokens >= plain + 10
    assert bound_of(body(), Prices()).tokens > plain + 4000
