"""The embedded model asked by two workers of a local Ray: the same answers, none asked twice."""

import os

import numpy as np
import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from palate.llm.asking import LedgeredLLM  # noqa: E402
from palate.llm.budget import Budget  # noqa: E402
from palate.llm.engines.llama import LlamaEngine  # noqa: E402
from palate.llm.ledger import Ledger  # noqa: E402
from palate.llm.ray_asking import RayLLM  # noqa: E402
from palate.llm.request import Message, Request  # noqa: E402

OPTIONS = ("Yes", "No")


def test_workers_answer_as_one_process_does(tmp_path):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    asked = [
        Request((Message("user", f"Is {word} a colour?"),), options=OPTIONS, purpose="test", entity=word)
        for word in ("red", "blue", "seven", "run", "green", "chair")
    ]
    engine = LlamaEngine()
    with Ledger(tmp_path / "ray.sqlite") as ledger, Ledger(tmp_path / "one.sqlite") as other:
        told: list[tuple[int, int]] = []
        spread = RayLLM(engine, ledger, Budget("run"), LlamaEngine, 2, lambda done, total: told.append((done, total)))
        found = spread.choose(asked, OPTIONS)
        assert (spread.spent.calls, spread.spent.cached, told) == (6, 0, [(6, 6)])
        np.testing.assert_allclose(found, LedgeredLLM(engine, other).choose(asked, OPTIONS), atol=1e-2)
        again = spread.choose(asked, OPTIONS)
        assert (spread.spent.calls, spread.spent.cached) == (6, 6)
        np.testing.assert_array_equal(found, again)
    engine.close()
