import pytest
from echo_engine import EchoEngine
from pydantic import BaseModel, Field

from palate.llm.ledger import Ledger
from palate.llm.request import Answer
from palate.llm.runner import Runner
from palate.llm.structured import checked
from palate.testing import ask_user


class Film(BaseModel):
    title: str
    year: int = Field(ge=1880)


def test_a_pydantic_model_gives_objects():
    answer = checked(ask_user("q", schema=Film), Answer('{"title": "M", "year": 1931}'))
    assert answer.value == Film(title="M", year=1931)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"title": "M", "year": 3}', "year"),
        ('{"title": "M"}', "year"),
        ('{"title": "M", "year": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "recursion"),
        ("no", "Expecting value"),
    ],
)
def test_what_does_not_fit_says_why(text, cause):
    answer = checked(ask_user("q", schema=Film), Answer(text))
    assert "does not fit the schema" in answer.error
    assert cause in answer.error
    assert answer.value is None


def test_a_body_is_checked_by_its_own_schema():
    schema = {"type": "object", "required": ["a"]}
    body = {"messages": [], "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    request = ask_user("").__class__(body=body)
    assert "required" in checked(request, Answer('{"b": 1}', value={"choices": []})).error
    assert checked(request, Answer('{"a": 1}', value={"choices": []})).value == {"choices": []}


def test_half_a_character_is_no_answer():
    assert "Unicode" in checked(ask_user("q"), Answer("a\ud800")).error
    assert "Unicode" in checked(ask_user("q"), Answer("a", value={"x": ["\udfff"]})).error
    assert checked(ask_user("q"), Answer("🎬", value={"x": "🎬"})).error is None


@pytest.mark.parametrize("schema", [{"pattern": "("}, {"$ref": "#/absent"}, {"type": "nonsense"}])
def test_a_schema_that_cannot_be_used_is_said(schema):
    answer = checked(ask_user("q", schema=schema), Answer('"text"'))
    assert "schema cannot be used" in answer.error
    assert not answer.text


class Mending(EchoEngine):
    """The first answer to each question is broken JSON, the repair is good."""

    def _answer(self, request):
        good = "Answer again" in request.messages[-1].text
        text = '{"title": "M", "year": 1931}' if good else "year 1931"
        return Answer(text, tokens_in=6, tokens_out=2, cost=0.0005, model=self.model, engine=self.name)


def test_a_repaired_answer_stands_under_the_first_question(tmp_path):
    engine, request = Mending(tmp_path / "log"), ask_user("Which film?", schema=Film)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        (outcome,) = Runner(engine, ledger).run([request])
        assert outcome.answer.value == Film(title="M", year=1931)
        assert (outcome.answer.attempts, outcome.answer.tokens_in, outcome.answer.cost) == (2, 12, 0.001)
        (again,) = Runner(engine, ledger).run([request])
        (total,) = ledger.totals()
    assert (again.cached, again.answer.value) == (True, Film(title="M", year=1931))
    assert len(engine.asked()) == 2
    assert (total["calls"], total["tokens_in"], total["failed"]) == (2, 12, 0)
