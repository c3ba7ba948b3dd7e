"""A small server of the chat-completions protocol that counts what it is asked."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers with the last word of the question after `pause` seconds; "FAIL" is refused with status 400."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pause, self.asked, self.lock = pause, Counter[str](), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        return self.asked.total()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked[text if isinstance(text, str) else text[0]["type"]] += 1
        time.sleep(self.server.pause)
        word = text.split()[-1] if isinstance(text, str) else "picture"
        if word == "FAIL":
            self._send(400, {"error": {"message": "this is refused"}})
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": word}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        self._send(200, {"id": f"chat-{word}", "model": body["model"], "choices": [choice], "usage": usage})

    def _send(self, status: int, reply: object) -> None:
        raw = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        self.wfile.flush()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(pause: float = 0.0) -> Iterator[ChatServer]:
    server = ChatServer(pause)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
