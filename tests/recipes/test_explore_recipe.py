"""The recipe on made-up people whose next interest is known, with a model of a few thousand weights."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from palate.data.dataset import TIMESTAMP, Dataset
from palate.errors import InputError
from palate.experiments.study import Study
from palate.llm.asking import LedgeredLLM
from palate.llm.ledger import Ledger
from palate.llm.request import Answer, Bound
from palate.recipes.registry import load

pytest.importorskip("torch", reason="needs the extra `train`")

THEMES = [f"{a}{b}" for a in ("red", "blue", "green", "grey") for b in ("fish", "bird", "tree", "star")]  # 16
PER_THEME = 25
START = datetime(2024, 1, 1, tzinfo=UTC)


class Silent:
    name, model = "silent", "silent-1"

    def close(self):
        pass

    def bound(self, request):
        return Bound(10, 0.0)

    def ask(self, work):
        while taken := work.take(8):
            yield [(number, Answer("nothing", model=self.model, engine=self.name)) for number, _ in taken]


class ThemeVectors:
    """Items of a theme are near each other."""

    name, width = "themes", 24

    def encode(self, texts):
        rows = []
        for text in texts:
            theme = np.random.default_rng(list(text.split()[0].encode())).standard_normal(self.width)
            rows.append(theme + 0.1 * np.random.default_rng(list(text.encode())).standard_normal(self.width))
        made = np.array(rows, dtype=np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def people(clock: bool = True, n_users: int = 150) -> Dataset:
    """Each walks around the circle of themes, two items of each: from a and a + 1 people go on to a + 2."""
    rng, rows = np.random.default_rng(0), []
    for user in range(n_users):
        first = int(rng.integers(16))
        for step in range(11):  # the last is the first in its theme
            item = int((first + step // 2) % 16 * PER_THEME + rng.integers(PER_THEME))
            rows.append((f"u{user}", f"i{item}", step if not clock else 10 * user + step))
    titles = [f"{THEMES[i // PER_THEME]} number {i % PER_THEME}" for i in range(16 * PER_THEME)]
    items = pl.DataFrame({"item_id": [f"i{i}" for i in range(len(titles))], "title": titles})
    items = items.with_columns(text=pl.lit(""), categories=pl.lit([], pl.List(pl.String)))
    start = START if clock else datetime(1970, 1, 1, tzinfo=UTC)
    times = pl.Series([start + timedelta(hours=h) if clock else start + timedelta(seconds=h) for *_, h in rows])
    events = pl.DataFrame({"user_id": [u for u, *_ in rows], "item_id": [i for _, i, _ in rows]})
    events = events.with_columns(times.cast(TIMESTAMP).alias("timestamp"), event_type=pl.lit(None, pl.String))
    return Dataset.from_tables(items, events)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random Llama that reads and writes bytes."""
    import torch

    pytest.importorskip("transformers", reason="needs the extra `torch-lm`")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = "{{ messages[-1].content }}"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        initializer_range=0.3,
        eos_token_id=0,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def study(folder, dataset, **settings) -> Study:
    ledger = Ledger(folder / "ledger.sqlite")
    given = {name: str(value) for name, value in ({"interests": 16, "meetings": 60, "visits": 30} | settings).items()}
    return Study(dataset, LedgeredLLM(Silent(), ledger), ThemeVectors(), folder / "work", seeds=2, settings=given)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # transformers warns about itself
def test_every_method_is_compared_on_the_same_people(tmp_path, tiny):
    report = load("explore")(study(tmp_path, people(), minutes=0.2, epochs=1, per_label=2, local=tiny))
    tables = {table.title: table.rows for table in report.tables}
    found = {row["method"]: row for row in tables["Which interest is met next?"]}
    tuned = {"LLM, balanced curation", "LLM, random curation", "LLM, shuffled names"}
    assert {
        "count table",
        "nearest by vector",
        "hierarchical bandit",
        "untuned LLM",
        "LLM, calibrated + count table",
    } | tuned <= set(found)
    assert found["count table"]["recall@3"] > found["at random"]["recall@3_high"]  # the circle is there to be counted
    assert found["count table"]["against_counts"] == 0.0
    answers = {row["method"]: row for row in tables["Answers to every pair asked"]}
    assert all(answers[name]["constrained_match_rate"] == 1.0 for name in tuned)
    assert 0 <= answers["LLM, balanced curation"]["free_match_rate"] <= 1
    slates = {row["method"]: row for row in tables["Slates"]}
    assert {"sequence model", "novelty-boosted sequence model", "two-tower"} <= set(slates)
    assert slates["count table"]["novelty"] >= slates["sequence model"]["novelty"]
    assert report.verdict[0].startswith("On pairs never seen in training the balanced curation LLM")
    assert {row["measure"] for row in tables["Balanced against random curation, same pairs"]} == {
        "label Gini",
        "never answered",
    }
    assert any(row["figure"].endswith("match rate") for row in report.charts[3].rows)
    assert all(row["minutes"] >= 0 for row in tables["Tokens and minutes"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_a_clock_and_without_tuning_what_there_is_is_compared(tmp_path, tiny):
    report = load("explore")(study(tmp_path, people(clock=False), minutes=0, withhold=0.5, titles="llm", local=tiny))
    said = " ".join(report.notes)
    assert "no clock" in said
    assert "leave-last-one-out" in said
    assert "No tuned LLM" in said
    assert "Titles by silent-1: {'twice': 20}" in said  # "nothing" names nothing: keywords stay
    assert "untuned LLM" in report.verdict[0]


def test_settings_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(InputError) as caught:
        load("explore")(study(tmp_path, people(n_users=3), interests=17))
    assert "17" in str(caught.value)
    with pytest.raises(InputError, match="minuets"):
        load("explore")(study(tmp_path, people(n_users=3), minuets=1))


def test_too_little_to_tell_interests_apart_is_said(tmp_path):
    few = study(tmp_path, people(n_users=20))
    with pytest.raises(InputError, match="too little") as caught:
        load("explore")(Study(few.dataset, few.llm, few.encoder, few.workspace, settings={}))
    assert "800 events" in str(caught.value)
