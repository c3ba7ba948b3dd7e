"""Decoding with drafts against the model's own greedy decoding, token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from palate.llm.decoding.drafting import Draft, DraftConfig, Drafter, own_text, worth_reading
from palate.llm.decoding.rows import Beginning, RowCache
from palate.llm.decoding.rules import Relaxed, RuleConfig, Sampled, Strict, rule_of
from palate.llm.decoding.speculative import Prompt, decode
from palate.llm.decoding.store import DraftStore

VOCABULARY, END = 12, 0


def network(seed: int, kind: str = "llama") -> torch.nn.Module:
    torch.manual_seed(seed)
    if kind == "gpt2":
        small = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=96)
        return GPT2LMHeadModel(small).eval()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=96,
        initializer_range=0.6,  # so that greedy answers differ
    )
    return LlamaForCausalLM(config).eval()


MODELS = {(seed, kind): network(seed, kind) for seed in range(3) for kind in ("llama", "gpt2")}


def greedy(model: torch.nn.Module, prompt: list[int], most: int) -> list[int]:
    """One token after the other, the whole text read each time."""
    written: list[int] = []
    with torch.inference_mode():
        while len(written) < most and (not written or written[-1] != END):
            logits = model(torch.tensor([[*prompt, *written]])).logits[0, -1]
            written.append(int(logits.argmax()))
    return written


TOKENS = st.integers(0, VOCABULARY - 1)
PROMPTS = st.lists(st.lists(TOKENS, min_size=1, max_size=14), min_size=1, max_size=5)
POOLS = st.lists(st.lists(TOKENS, min_size=1, max_size=12), max_size=8)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(MODELS)),
    PROMPTS,
    POOLS,
    st.integers(1, 20),
    st.integers(0, 12),
    st.booleans(),
    st.booleans(),
)
def test_strict_is_greedy_token_by_token(which, prompts, pool, most, drafted, branching, helped):
    model = MODELS[which]
    expected = [greedy(model, prompt, most) for prompt in prompts]
    store = DraftStore()
    store.add(pool + (expected if helped else []))  # with the true answers among them most drafts are right
    drafter = Drafter(store, DraftConfig(most=drafted, balance=1e9, branching=branching))
    found = decode(model, [Prompt(prompt, Strict(), most, drafter) for prompt in prompts], [END])
    assert [one.tokens for one in found] == expected
    assert all(one.error is None and one.accepted <= one.drafted for one in found)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(MODELS)), st.lists(TOKENS, max_size=12), PROMPTS, PROMPTS)
def test_what_prompts_begin_alike_with_changes_no_answer(which, start, first, second):
    model, beginning = MODELS[which], Beginning()
    for batch in (first, second, first):
        prompts = [start + prompt for prompt in batch]
        found = decode(model, [Prompt(prompt, Strict(), 8) for prompt in prompts], [END], beginning)
        assert [one.tokens for one in found] == [greedy(model, prompt, 8) for prompt in prompts]


def test_what_prompts_begin_alike_with_is_read_once():
    model, read = network(0), []
    model.register_forward_pre_hook(
        lambda module, args, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    start, beginning = [3, 4, 5, 6, 7, 8, 9], Beginning()
    decode(model, [Prompt([*start, 1, 2], Strict(), 1)], [END], beginning)
    decode(model, [Prompt([*start, 2, 2], Strict(), 1), Prompt([*start, 1, 1, 1], Strict(), 1)], [END], beginning)
    assert read == [8, 1, 2 * 2, 2]


def test_drafts_save_passes():
    model, prompt = MODELS[0, "llama"], [3, 4, 5]
    expected = greedy(model, prompt, 40)
    store = DraftStore()
    store.add([expected])
    (plain,) = decode(model, [Prompt(prompt, Strict(), 40)], [END])
    (quick,) = decode(model, [Prompt(prompt, Strict(), 40, Drafter(store, DraftConfig(balance=1e91)))], [END])
    assert plain.tokens == quick.tokens == expected
    assert plain.passes == len(expected)
    assert quick.passes <= 1 + len(expected) // 6
    assert quick.accepted + quick.passes >= len(expected)


def test_relaxed_takes_the_second_likeliest_with_enough_probability():
    model, prompt = MODELS[1, "llama"], [2, 7]
    with torch.inference_mode():
        shares = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    first, second, third = shares.topk(3).indices.tolist()
    for token, floor, taken in ((second, 0.0, True), (second, 0.99, False), (third, 0.0, False), (first, 0.99, True)):
        rule = Relaxed(2, floor)
        rule.look(model(torch.tensor([prompt])).logits[0].detach())
        assert rule.accepts(1, token) is taken
    store = DraftStore()
    store.add([[second, END]])
    (found,) = decode(model, [Prompt(prompt, Relaxed(2, 0.0), 5, Drafter(store, DraftConfig(balance=1e9)))], [END])
    assert found.tokens[0] == second


@pytest.mark.slow
def test_drawing_has_the_models_distribution_whatever_was_drafted():
    model, prompt, n = MODELS[2, "llama"], [1, 5, 9], 2000
    with torch.inference_mode():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / 1.3).softmax(-1).numpy()
    store = DraftStore()
    store.add([[token, 3] for token in np.argsort(-expected)[[0, 1, 4, 8]].tolist() * 2])
    drafter = Drafter(store, DraftConfig(balance=1e9))
    prompts = [Prompt(prompt, Sampled(1.3, None, seed), 1 + seed % 2, drafter) for seed in range(n)]
    found = [one for start in range(0, n, 500) for one in decode(model, prompts[start : start + 500], [END])]
    counts = np.bincount([one.tokens[0] for one in found], minlength=VOCABULARY)
    spread = np.sqrt(np.maximum(n * expected * (1 - expected), 1))
    assert (np.abs(counts - n * expected) < 4 * spread).all()


def test_rules_by_configuration():
    assert isinstance(rule_of(RuleConfig(), 0.0, None, 0), Strict)
    assert isinstance(rule_of(RuleConfig(mode="relaxed"), 0.0, None, 0), Relaxed)
    assert isinstance(rule_of(RuleConfig(mode="relaxed"), 0.7, 0.9, 0), Sampled)


def test_an_early_end_and_the_most_tokens():
    model, prompt = MODELS[0, "llama"], [3, 4, 5]
    expected = greedy(model, prompt, 30)
    store = DraftStore()
    store.add([expected])
    drafter = Drafter(store, DraftConfig(balance=1e91))
    (found,) = decode(model, [Prompt(prompt, Strict(), 30, drafter, lambda written: len(written) >= 4)], [END])
    assert found.tokens == expected[:4]
    (none,) = decode(model, [Prompt(prompt, Strict(), 0)], [END])
    assert none.tokens == []


def test_what_cannot_be_done_is_said_and_the_others_go_on():
    model = MODELS[0, "llama"]
    prompts = [Prompt([], Strict(), 5), Prompt([3] * 95, Strict(), 5), Prompt([3, 4, 5], Strict(), 5)]
    empty, long, good = decode(model, prompts, [END])
    assert empty.error == "the prompt is empty"
    assert "too long" in str(long.error)
    assert good.tokens == greedy(model, [3, 4, 5], 5)


def test_no_number_ends_a_request_and_not_its_neighbours():
    model = network(0)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = float("nan")
    first, second = decode(model, [Prompt([3, 7], Strict(), 4), Prompt([3, 4], Strict(), 4)], [END])
    assert first.error == "the model gave no number"
    assert second.error is None


def test_a_drafter_that_fails_is_done_without():
    class Broken(Drafter):
        def draft(self, prompt, written, room):
            raise RuntimeError("no")

    model = MODELS[0, "llama"]
    (found,) = decode(model, [Prompt([3, 4, 5], Strict(), 6, Broken())], [END])
    assert found.tokens == greedy(model, [3, 4, 5], 6)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 4))
def test_the_own_text_is_looked_up(tokens, length):
    found = own_text(tokens, length)
    rows = {tuple(t for t in row if t >= 0) for row in found.following.tolist()}
    ends = [e for e in range(2, len(tokens)) if tokens[e - 2 : e] == tokens[-2:]]
    assert rows <= {tuple(tokens[e : e + length]) for e in ends}
    assert bool(rows) == bool(ends)


def test_a_tree_has_parents_before_children_and_keeps_its_bound():
    store = DraftStore()
    store.add([[1, 2, 3, 4, 0], [1, 2, 5, 6, 0], [1, 2, 3, 7, 0], [1, 8, 0]])
    draft = Drafter(store, DraftConfig(most=6, balance=1e9)).draft([9], [], 10)
    assert 0 < len(draft) <= 6
    assert all(parent < node for node, parent in enumerate(draft.parents))
    assert draft.tokens[0] == 1
    line = Drafter(store, DraftConfig(most=6, balance=1e9, branching=False)).draft([9], [], 10)
    assert line.parents == [-1, 0, 1, 2, 3][: len(line)]
    assert Drafter(store, DraftConfig(most=0)).draft([9], [], 10) == Draft()


CHANCES = st.lists(st.floats(0, 1), max_size=9).map(lambda chances: sorted(chances, reverse=True))


@settings(deadline=None, max_examples=100)
@given(st.lists(CHANCES, min_size=1, max_size=5), st.floats(0.5, 300))
def test_as_much_is_read_as_gives_most_tokens_by_time(rows, balance):
    drafts = [Draft([1] * len(row), [-1] * len(row), row, [(0, 0)] * len(row)) for row in rows]
    n = worth_reading(drafts, balance)

    def rate(wide):
        return sum(1 + sum(row[:wide]) for row in rows) / (balance + len(rows) * (1 + wide))

    assert 0 <= n <= max(map(len, rows))
    assert rate(n) >= max(rate(wide) for wide in range(1 + max(map(len, rows)))) - 1e-9
    assert all(len(draft.first(n)) == min(n, len(draft)) for draft in drafts)


def test_a_token_that_is_sure_is_always_read_and_one_without_hope_never():
    sure, hopeless = Draft([1], [-1], [1.0], [(0, 0)]), Draft([1], [-1], [0.0], [(0, 0)])
    assert worth_reading([sure] * 3, 0.5) == 1
    assert worth_reading([hopeless] * 3, 1e6) == 0
    assert worth_reading([Draft()], 20) == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_heads_that_share_keys_see_what_they_saw(kind):
    model, rng = MODELS[0, kind], np.random.default_rng(0)
    prompts, ids = rng.integers(1, VOCABULARY, (2, 9)), rng.integers(1, VOCABULARY, (2, 3))
    cache = RowCache(model, 2, 20)
    with torch.inference_mode():
        cache.read(prompts, np.tile(np.arange(9), (2, 1)), np.broadcast_to(np.tri(9, dtype=bool), (2, 9, 9)))
        cache.keep([range(9)] * 2)
        found = cache.read(ids, np.full((2, 3), 9), np.broadcast_to(np.eye(3, dtype=bool), (2, 3, 3)))  # three ways on
        for row, way in np.ndindex(2, 3):
            alone = model(torch.tensor([[*prompts[row].tolist(), int(ids[row, way])]])).logits[0, -1]
            torch.testing.assert_close(found[row, way], alone, atol=1e-5, rtol=1e-5)
    assert model.config._attn_implementation == "sdpa"
