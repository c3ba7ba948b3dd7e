"""One worker of the server that `serve_load.py` measures: `make_app`, or this file with a listening socket's number.

PALATE_BENCH holds JSON: `folder` of snapshots, `state` (an address or null), `pipeline`, `constant` (answer that).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from palate.serving.api import create_app
from palate.serving.load import uncollected
from palate.serving.metering import Meter
from palate.serving.pipeline_config import PipelineConfig
from palate.serving.slates import Slates
from palate.serving.stages import Steps, inline
from palate.serving.state import open_state
from palate.serving.variants import Variants


def make_app() -> FastAPI:
    options = json.loads(os.environ["PALATE_BENCH"])
    folder = Path(options["folder"])
    state = open_state(options["state"]) if options["state"] else None
    pipeline = PipelineConfig.model_validate(options["pipeline"])
    landing = folder.parent / f"landing-{folder.name}"
    with uncollected():  # as `palate serve`
        app = create_app(folder, pipeline=pipeline, state=state, landing=landing)
    if options["constant"]:
        _answer_a_constant(app)
    return app


def _answer_a_constant(app: FastAPI) -> None:
    """The same routes, checks and headers, and a body as large: what the server could do at most."""
    live = app.state.live
    slates = Slates(live, Variants(), Meter())
    kept = inline(slates.answer(live.snapshot, live.snapshot.user_ids[0], 10, None, True, "constant"))

    def constant(self: Slates, *asked: object, **also: object) -> Steps[dict[str, Any]]:
        return kept
        yield

    Slates.answer = constant  # type: ignore[assignment,method-assign]
    live.past = type(live)(live.built).past  # no state is asked
    live.show = lambda shown: None


def main() -> None:
    import uvicorn
    from threadpoolctl import threadpool_limits

    listening = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(make_app(), log_level="warning", access_log=False)
    with threadpool_limits(1):  # one request is a few small products: more threads would fight over the cores
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
