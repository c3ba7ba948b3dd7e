"""Probabilities along a trie of texts: what the model says token by token, made to sum to 1 where texts part."""

import numpy as np
import pytest

from palate.errors import InputError
from palate.testing import ask_user

pytest.importorskip("transformers", reason="needs the extra `torch-lm`")

from palate.llm.engines.torch_lm import TorchEngine
from palate.llm.token_trie import TokenTrie, trie_shares

pytestmark = pytest.mark.filterwarnings("default")  # transformers warns about itself

TEXTS = ["green", "green tea", "green tea 1", "green tea 2", "green monkey 1 2", "purple monkey 3", "purple 4 5 6"]
REQUESTS = [ask_user(text) for text in ("Word 1 ?", "Word 1 2 3 ?", "Word 7", "purple purple monkey", "Word 1 ?")]


@pytest.fixture(scope="module")
def engine(tiny_llm):
    return TorchEngine(tiny_llm)


def token_by_token(engine, request, texts):
    """The same by definition: the whole sequence is read again for each text."""
    import torch

    prompt, written = engine.prompt_tokens(request), [engine.answer_tokens(text) for text in texts]
    shares = []
    for tokens in written:
        with torch.inference_mode():
            logits = engine.network(torch.tensor([prompt + tokens])).logits[0].double()
        share = 1.0
        for place, token in enumerate(tokens):
            allowed = sorted({other[place] for other in written if other[:place] == tokens[:place]})
            chances = logits[len(prompt) + place - 1][allowed].softmax(0)
            share *= float(chances[allowed.index(token)])
        shares.append(share)
    return shares


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_as_by_definition_in_any_batch(engine, batch):
    found = trie_shares(engine, REQUESTS, TEXTS, batch=batch)
    wanted = [token_by_token(engine, request, TEXTS) for request in REQUESTS]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("best", [1, 2, 3, 7, 50])
def test_the_best_are_exact_and_the_rest_sums_to_what_is_left(engine, best):
    whole, part = trie_shares(engine, REQUESTS, TEXTS), trie_shares(engine, REQUESTS, TEXTS, best=best)
    top = np.argsort(-whole, axis=1)[:, :best]
    np.testing.assert_allclose(np.take_along_axis(part, top, 1), np.take_along_axis(whole, top, 1), atol=1e-5)
    assert (np.argsort(-part, axis=1)[:, :best] == top).all()
    np.testing.assert_allclose(part.sum(axis=1), 1, atol=1e-5)


def test_one_text_is_certain_and_shared_beginnings_are_no_branch(engine):
    assert trie_shares(engine, REQUESTS[:2], ["green tea"]).tolist() == [[1.0], [1.0]]
    assert len(TokenTrie(engine, ["green tea 1", "green tea 2"]).branches) == 1
    assert trie_shares(engine, [], TEXTS).shape == (0, len(TEXTS))


def test_texts_that_cannot_be_told_apart_are_refused(engine):
    for texts in ([], ["green", "green"], ["Word nine", "Word ten"]):  # unknown words are one token here
        with pytest.raises(InputError, match="must differ"):
            trie_shares(engine, REQUESTS, texts)
