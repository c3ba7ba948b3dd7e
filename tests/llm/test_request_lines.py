import json

from hypothesis import given
from hypothesis import strategies as st

from palate.llm.images import Image
from palate.llm.request import Message, Request
from palate.llm.request_lines import from_line, to_line

PICTURE = Image.of(b"\x89PNG\r\n\x1a\nxyz")
TEXT = st.text(max_size=20)
PARTS = st.one_of(TEXT, st.lists(st.one_of(TEXT, st.just(PICTURE)), max_size=3).map(tuple))
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user"]), PARTS), max_size=3).map(tuple)
WORDS = st.one_of(st.none(), st.lists(TEXT, min_size=1, max_size=3).map(tuple))


@given(
    st.builds(
        Request,
        messages=MESSAGES,
        max_tokens=st.integers(1, 999),
        temperature=st.floats(0, 2),
        top_p=st.one_of(st.none(), st.floats(0, 1)),
        seed=st.one_of(st.none(), st.integers(0, 99)),
        stop=st.lists(TEXT, max_size=2).map(tuple),
        options=WORDS,
        trie=WORDS,
        schema=st.one_of(st.none(), st.just({"type": "object"})),
        purpose=TEXT,
        entity=TEXT,
    )
)
def test_a_request_survives_a_file_whole(asked):
    line = json.loads(json.dumps(to_line(asked)))
    assert from_line(line) == asked
    assert from_line(line).key("m") == asked.key("m")
