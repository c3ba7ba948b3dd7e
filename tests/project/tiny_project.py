"""A project of 80 items whose whole run takes seconds, and a stand-in LLM server that counts (fault injection only)."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import yaml

WORDS = ("sea", "war", "love", "space", "crime", "farm", "music", "ghost")


def make_project(folder: Path, base_url: str | None) -> Path:
    """Two tastes, three clusters of words, golden labels; the LLM at `base_url`, or the embedded one."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    items = [
        {
            "item_id": f"i{n}",
            "title": f"{WORDS[n % 8]} story {n}",
            "text": f"A tale of {WORDS[n % 8]} and {WORDS[n % 5]}.",
        }
        for n in range(80)
    ]
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    events = [
        {"user_id": f"u{u}", "item_id": f"i{rng.integers(40) * 2 + u % 2}", "timestamp": 1_600_000_000 + 600 * k + u}
        for u in range(40)
        for k in range(25)
    ]
    pl.DataFrame(events).sort("timestamp").write_parquet(folder / "events.parquet")
    (folder / "attributes").mkdir(exist_ok=True)
    questions = [
        {"name": name, "question": f"Is this {name}?", "description": f"something {name}"} for name in ("calm", "loud")
    ]
    (folder / "attributes" / "moods.yaml").write_text(yaml.safe_dump(questions))
    (folder / "golden").mkdir(exist_ok=True)
    rows = "".join(f"i{n},{name},a,{int(n % 8 < 3)}\n" for n in range(80) for name in ("calm", "loud"))
    (folder / "golden" / "people.csv").write_text("item_id,attribute,rater,label\n" + rows)
    config = {
        "data": {"items": "items.parquet", "events": "events.parquet"},
        "annotate": {"items": 16},
        "interests": {"branching": [4, 2]},
        "models": {"sasrec": {"dimensions": 8, "blocks": 1, "epochs": 2, "length": 10}},
        "ranker": {"epochs": 1, "width": 4},
        "controls": {"queries": 50},
    }
    if base_url is not None:
        config["llm"] = {"engine": "openai", "base_url": base_url, "model": "stand-in", "concurrency": 2}
    (folder / "palate.yaml").write_text(yaml.safe_dump(config))
    return folder


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.server.delay)
        self.server.seen.append((time.time(), body["messages"][1]["content"]))
        message, extra = {"content": "A"}, {}
        if "response_format" in body:
            schema = body["response_format"]["json_schema"]["schema"]
            message["content"] = json.dumps({"answer": schema["properties"]["answer"]["enum"][0]})
        else:
            yes = 0.2 + 0.6 * ("sea" in body["messages"][1]["content"])
            top = [{"token": "Yes", "logprob": float(np.log(yes))}, {"token": "No", "logprob": float(np.log(1 - yes))}]
            extra = {"logprobs": {"content": [{"top_logprobs": top}]}}
        usage = {"prompt_tokens": 10, "completion_tokens": 1}
        data = json.dumps(
            {"choices": [{"message": message, "finish_reason": "stop", **extra}], "usage": usage}
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def log_message(self, *args):
        pass


class StandIn:
    """`seen` lists (time, the question) of every request that was answered."""

    def __init__(self, delay: float = 0.0) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.server.handle_error = lambda *args: None  # clients are killed on purpose
        self.server.seen, self.server.delay = [], delay
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def seen(self) -> list[tuple[float, str]]:
        return self.server.seen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
