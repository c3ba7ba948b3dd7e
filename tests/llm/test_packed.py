"""Linear layers laid out for answering: the same numbers, and nothing changed where it cannot be done."""

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from palate.llm import packed  # noqa: E402
from palate.llm.packed import PackedLinear, pack, unpack  # noqa: E402


@pytest.fixture(params=["float32", "bfloat16"])
def network(request):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).eval().to(getattr(torch, request.param))


def logits(network, ids):
    with torch.inference_mode():
        return network(torch.tensor(ids)).logits.float()


def test_it_answers_what_it_answered(network):
    other = copy.deepcopy(network)
    if not pack(other):
        pytest.skip("this processor has no kernels for these numbers")
    assert not any(type(part) is torch.nn.Linear for part in other.modules())
    ids = torch.randint(0, 97, (3, 17)).tolist()
    exact = network.dtype == torch.float32
    torch.testing.assert_close(logits(other, ids), logits(network, ids), atol=1e-5 if exact else 0.05, rtol=1e-4)
    unpack(other)
    assert torch.equal(logits(other, ids), logits(network, ids))
    assert other.lm_head.weight is other.model.embed_tokens.weight
    assert {*dict(other.named_parameters())} == {*dict(network.named_parameters())}


def test_any_number_of_rows_can_be_read(network):
    layer = network.model.layers[0].mlp.up_proj
    if not pack(network):
        pytest.skip("this processor has no kernels for these numbers")
    layer, rows = PackedLinear(layer), torch.randn(33, 48).to(network.dtype)
    together, atol = layer(rows), 1e-5 if network.dtype == torch.float32 else 0.02
    for n in (0, 1, 2, 7, 12, 32):
        torch.testing.assert_close(layer(rows[:n]), together[:n], atol=atol, rtol=1e-2)


def test_where_it_cannot_be_done_nothing_changes(network, monkeypatch):
    def refuse(linear):
        raise RuntimeError("no kernels")

    monkeypatch.setattr(packed, "PackedLinear", refuse)
    before = [type(part) for part in network.modules()]
    assert not pack(network)
    assert [type(part) for part in network.modules()] == before


def test_a_layer_that_cannot_be_packed_is_left_alone():
    network = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8).double())
    if not pack(network):
        pytest.skip("this processor has no kernels for these numbers")
    assert [type(part) for part in network] == [PackedLinear, torch.nn.Linear]
