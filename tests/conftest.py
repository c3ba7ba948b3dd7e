"""Fixtures that several folders share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Workers that run beside each other have a core each: threads of two models on the same cores wait and spin.

    Examples of a property have no time limit: on a busy machine that says nothing of the code.
    """
    settings.register_profile("palate", deadline=None)
    settings.load_profile("palate")
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: what is long must not begin last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent != ROOT / "tests"))


@pytest.fixture(scope="session")
def sample() -> Path:
    """The bundled MovieLens folder."""
    return ROOT / "data" / "ml-latest-small"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The richer development data; a checkout without it skips."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data sets are not in this checkout")
    return folder


@pytest.fixture
def palate(monkeypatch, capsys):
    """The command `palate` as a person calls it: exit code, stdout and stderr of a command line."""
    from palate.cli.main import run

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["palate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            run()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return call


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory):
    """A transformers folder of a random Llama of 30,000 weights: it loads in no time and learns as well."""
    words = ["<unk>", "<end>", "Word", "?", "purple", "monkey", "green", "tea", *map(str, range(100))]
    folder = tmp_path_factory.mktemp("tiny")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")
    fast.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,  # at the usual 0.02 the frozen head cannot say anything but "all alike"
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
