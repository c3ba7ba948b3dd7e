"""Two spellings of one request are one; what changes the answer changes the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from palate.errors import InputError
from palate.llm.images import Image
from palate.llm.request import Message, Request
from palate.testing import ask_user

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20


class Colour(BaseModel):
    name: str
    strength: float = 1.0


def test_the_key_of_a_plain_request_is_for_ever():
    """Ledgers hold these keys: a change here would ask, and pay, everything again."""
    request = Request((Message("system", "s"), Message("user", "q")), max_tokens=8, options=("Yes", "No"))
    assert request.key("m") == "fc6fe2c0275bdd44c306e5d814169a1f"
    body = Request(body={"model": "x", "messages": [{"role": "user", "content": "q"}], "temperature": 0})
    assert body.key("m") == "f06d3f7915720ee4a05669b19bcd40e2"


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=4))
def test_however_a_text_is_cut_into_parts(parts):
    whole, cut = Request((Message("user", "".join(parts)),)), Request((Message("user", tuple(parts)),))
    assert whole.key("m") == cut.key("m")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"options": ("a", "b")}, {"options": ["a", "b"]}),
        ({"schema": {"type": "object", "title": "t"}}, {"schema": {"title": "t", "type": "object"}}),
        ({"schema": Colour}, {"schema": Colour.model_json_schema()}),
        ({"top_p": 1}, {"top_p": 1.0}),
    ],
)
def test_spellings_of_one_request(one, other):
    assert ask_user("q", **one).key("m") == ask_user("q", **other).key("m")


def test_bodies_that_ask_the_same():
    body = {"messages": [{"role": "user", "content": "q"}], "temperature": 1.0, "stop": None}
    same = {"temperature": 1, "messages": [{"content": "q", "role": "user"}], "user": "me", "stream": False}
    assert Request(body=body).key("m") == Request(body=same).key("m")
    assert Request(body=body).key("m") != Request(body=body | {"seed": 1}).key("m")


def test_an_image_is_its_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PNG)  # a wrong name is no matter
    image = Image.read(tmp_path / "a.jpg")
    assert image.media_type == "image/png"
    asked = [Request((Message("user", ("see", found)),)) for found in (image, Image.of(PNG), Image.of(PNG + b"1"))]
    assert asked[0].key("m") == asked[1].key("m") != asked[2].key("m")
    assert asked[0].messages[0].text == "see"


@pytest.mark.parametrize(
    "settings", [{"seed": 3}, {"stop": ("x",)}, {"logprobs": 2}, {"top_p": 0.5}, {"max_tokens": 9}]
)
def test_what_changes_the_answer_changes_the_key(settings):
    assert ask_user("q", **settings).key("m") != ask_user("q").key("m")


@pytest.mark.parametrize(
    ("data", "what"),
    [(None, "does not exist"), (b"", "not an image"), (b"<svg>", "not an image"), (PNG * 9, "too large")],
)
def test_what_is_no_image_is_named(tmp_path, data, what):
    path = tmp_path / "picture.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=what) as caught:
        Image.read(path, max_bytes=100)
    assert "picture.png" in str(caught.value)
