"""LoRA, a few steps: it learns, it survives a kill, and the engine says what was learnt."""

import json
import math

import numpy as np
import pytest

from palate.errors import EngineError, InputError
from palate.llm.request import ListedWork
from palate.testing import ask_user

pytest.importorskip("transformers", reason="needs the extra `torch-lm`")
pytest.importorskip("peft", reason="needs the extra `torch-lm`")

from palate.llm.engines.torch_lm import TorchEngine
from palate.models.finetune import Example, FinetuneConfig, finetune

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # transformers warns about itself

EXAMPLES = [Example(ask_user(f"Word {n}?"), "purple monkey") for n in range(12)]
CONFIG = FinetuneConfig(
    rank=2, learning_rate=5e-2, warmup=0, batch=4, epochs=2, judge_every=2, max_tokens=64, mixed=False
)


@pytest.fixture(scope="module")
def tiny(tiny_llm):
    return tiny_llm


def ask(engine, requests):
    answered = [pair for batch in engine.ask(ListedWork(requests)) for pair in batch]
    return [answer for _, answer in sorted(answered, key=lambda pair: pair[0])]


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def tuned(tiny, tmp_path_factory):
    return finetune(TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2], tmp_path_factory.mktemp("whole"), CONFIG)


def test_the_loss_falls_and_the_best_step_is_kept(tuned):
    losses = [look.loss for look in tuned.looks]
    assert losses[-1] < losses[0] / 2
    assert [look.step for look in tuned.looks] == [0, 2, 3, 4, 6]  # every second step and at the end of an epoch
    assert tuned.best == tuned.looks[int(np.argmin(losses))].step
    assert tuned.looks[0].exact == 0.0
    assert math.isnan(tuned.looks[0].training)
    assert (tuned.examples, tuned.too_long) == (10, 0)
    modules = json.loads((tuned.folder / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)  # or the same adapter has another hash in another process
    assert sorted(f.name for f in tuned.folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_the_engine_says_what_was_learnt_under_a_name_of_its_own(tiny, tuned):
    plain, engine = TorchEngine(tiny), TorchEngine(tiny, adapter=tuned.folder)
    request = ask_user("Word 99?", options=("purple monkey", "green tea"))
    before, after = ask(plain, [request])[0], ask(engine, [request])[0]
    assert after.probabilities[0] > before.probabilities[0]
    assert after.probabilities[0] > 0.9
    assert engine.model == tuned.name == after.model
    assert engine.model.startswith(f"{plain.model}+")
    assert request.key(engine.model) != request.key(plain.model)
    # loaded again, to the digit
    again = ask(TorchEngine(tiny, adapter=tuned.folder), [request])[0]
    assert again.probabilities == after.probabilities
    (answer,) = ask(engine, [ask_user("Word 5?", max_tokens=6)])
    assert answer.text == "purple monkey"


def test_a_killed_run_ends_with_the_same_weights(tiny, tuned, tmp_path):
    def killed(name, done, total, figures):
        if done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        finetune(TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2], tmp_path, CONFIG, killed)
    assert not (tmp_path / "adapter").exists()
    steps = []
    found = finetune(
        TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2], tmp_path, CONFIG, lambda *told: steps.append(told[1])
    )
    assert steps == [3, 4, 5, 6]  # not from the beginning
    assert found.name == tuned.name  # the hash of all weights
    kept = finetune(TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2], tmp_path, CONFIG, lambda *told: pytest.fail("done"))
    assert kept.name == tuned.name


def test_time_is_bounded(tiny, tmp_path):
    config = CONFIG.model_copy(update={"minutes": 1e-6})
    found = finetune(TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2], tmp_path, config)
    assert "minutes are up" in found.stopped
    assert found.looks[-1].step < 3


def test_a_figure_can_decide_which_look_is_best(tiny, tmp_path):
    seen = []

    def measure(engine):
        (answer,) = ask(engine, [ask_user("Word 5?", max_tokens=6)])
        seen.append(answer.text)
        return {"match": float(answer.text == "purple monkey"), "early": -float(len(seen))}

    run = (TorchEngine(tiny), EXAMPLES[2:], EXAMPLES[:2])
    found = finetune(*run, tmp_path / "a", CONFIG.model_copy(update={"by": "match"}), None, measure)
    assert seen[-1] == "purple monkey" != seen[0]  # the network as it stands at each look
    assert [look.figures["match"] for look in found.looks] == [float(text == "purple monkey") for text in seen]
    first = next(look.step for look in found.looks if look.figures["match"] == 1)
    assert found.best >= first
    kept = finetune(*run, tmp_path / "a", CONFIG.model_copy(update={"by": "match"}), None, pytest.fail)
    assert repr(kept.looks) == repr(found.looks)  # as a run that is over keeps them
    seen.clear()
    early = finetune(*run, tmp_path / "b", CONFIG.model_copy(update={"by": "early", "patience": 2}), None, measure)
    assert early.best == 0
    assert early.stopped == "no more early in 2 looks"
    with pytest.raises(InputError, match="no such figure") as caught:
        finetune(*run, tmp_path / "c", CONFIG.model_copy(update={"by": "luck"}), None, measure)
    assert "early" in str(caught.value)


def test_examples_that_are_too_long_are_counted_and_none_is_an_error(tiny, tmp_path):
    long = Example(ask_user("word " * 80), "x")
    with pytest.raises(InputError, match="no train example") as caught:
        finetune(TorchEngine(tiny), [long], EXAMPLES[:1], tmp_path, CONFIG)
    assert "max_tokens" in str(caught.value)


def test_an_adapter_that_is_missing_or_strange_is_named(tiny, tuned, tmp_path):
    with pytest.raises(InputError, match="adapter"):
        TorchEngine(tiny, adapter=tmp_path)
    facts = json.loads((tuned.folder / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(facts | {"target_modules": ["no_such_layer"]}))
    (tmp_path / "adapter_model.safetensors").write_bytes((tuned.folder / "adapter_model.safetensors").read_bytes())
    with pytest.raises(EngineError, match="does not fit"):
        ask(TorchEngine(tiny, adapter=tmp_path), [ask_user("q", max_tokens=2)])
