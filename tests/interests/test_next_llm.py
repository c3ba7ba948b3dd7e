"""The next interest: prompts, free and constrained answers, probabilities along a trie, answers in files."""

import json

import numpy as np
import pytest

from palate.errors import InputError
from palate.interests.next_batch import NextRequests, table_of
from palate.interests.next_llm import (
    MAX_NAME,
    TrieNextInterest,
    all_pairs,
    asked,
    check_names,
    constrained,
    examples,
    free,
    likeliest,
    next_request,
)
from palate.llm.ledger import Ledger
from palate.llm.provider_files import export_requests
from palate.llm.provider_results import import_results
from palate.llm.request import Answer

NAMES = ["green tea", "green monkey", "purple monkey", "Word 1 2", "Word 1 3"]


class Saying:
    """An LLM that says what it is told to, in turn."""

    model = "saying"

    def __init__(self, *texts):
        self.texts, self.requests = texts, []

    def generate(self, requests):
        self.requests += requests
        return [
            Answer(text, error=None if text != "!" else "broken") for text, _ in zip(self.texts, requests, strict=False)
        ]


def test_a_prompt_has_the_names_of_the_pair_and_no_list_of_all():
    request = next_request((3, 1), NAMES)
    assert request.messages[-1].text == "Word 1 2\ngreen monkey"
    assert not any("purple" in message.text or "tea" in message.text for message in request.messages)
    assert next_request((1, 1), NAMES).messages[-1].text == "green monkey"
    assert next_request((3, 1), NAMES).key("m") != next_request((1, 3), NAMES).key("m")  # ordered on demand
    assert "5" in next_request((3, 1), NAMES, 5).messages[0].text
    assert next_request((3, 1), NAMES, 5).max_tokens > request.max_tokens


def test_all_pairs_are_there_once():
    assert all_pairs(4).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert len(all_pairs(761)) == 761 * 760 // 2
    assert len(np.unique(all_pairs(761, ordered=True), axis=0)) == 579_121
    assert all_pairs(1).shape == (0, 2)


@pytest.mark.parametrize(
    "bad", ["", "  ", "two\nlines", " padded", "double  space", "x" * (MAX_NAME + 1), "a <|im_end|>", "GREEN tea"]
)
def test_names_that_no_model_can_answer_with_are_refused(bad):
    check_names(NAMES)
    with pytest.raises(InputError, match="name"):
        check_names([*NAMES, bad])
    with pytest.raises(InputError):
        list(examples(np.array([[0, 1]]), np.array([2]), [*NAMES, bad]))


def test_examples_ask_for_the_pair_and_answer_the_label():
    rows = list(examples(np.array([[0, 1], [2, 3]]), np.array([2, 4]), NAMES))
    assert [answer for _, answer in rows] == ["purple monkey", "Word 1 3"]
    assert rows[0][0] == next_request((0, 1), NAMES)


def test_free_answers_match_word_for_word_or_not_at_all():
    said = free(Saying("purple monkey\n", "a purple monkey", "!", "Purple monkey"), np.array([[0, 1]] * 4), NAMES)
    assert said.interests.tolist() == [2, -1, -1, -1]
    assert said.match_rate == 0.25
    assert np.isnan(free(Saying(), np.zeros((0, 2), dtype=int), NAMES).match_rate)


def test_any_engine_that_keeps_to_a_trie_gives_one_answer_that_is_new():
    llm = Saying("purple monkey", "!")
    assert asked(llm, np.array([[0, 1], [0, 2]]), NAMES).tolist() == [2, -1]
    assert llm.requests[0].trie == ("purple monkey", "Word 1 2", "Word 1 3")


def test_the_likeliest_and_their_probabilities():
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[0.2, 0.5, 0.0, 0.3]], dtype=np.float32))
    numbers, shares = likeliest(logs, 5)
    assert numbers.tolist() == [[1, 3, 0, -1, -1]]
    np.testing.assert_allclose(shares, [[0.5, 0.3, 0.2, 0, 0]], atol=1e-6)


@pytest.fixture(scope="module")
def engine(tiny_llm):
    pytest.importorskip("transformers", reason="needs the extra `torch-lm`")

    from palate.llm.engines.torch_lm import TorchEngine

    return TorchEngine(tiny_llm)


@pytest.mark.filterwarnings("default")  # transformers warns about itself
@pytest.mark.slow
def test_scores_are_the_probabilities_of_constrained_decoding_without_the_own_interests(engine):
    pairs = np.array([[0, 3], [1, 4], [0, 3], [2, 2]])
    found = TrieNextInterest(engine, NAMES).scores(pairs)
    assert found.shape == (4, 5)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-5)
    assert np.isneginf(found[np.arange(4), pairs[:, 0]]).all()
    assert np.isneginf(found[np.arange(4), pairs[:, 1]]).all()
    assert np.isfinite(found).sum(axis=1).tolist() == [3, 3, 3, 4]
    np.testing.assert_array_equal(found[0], found[2])
    numbers, shares = constrained(engine, pairs, NAMES, 2)
    np.testing.assert_array_equal(numbers, np.argsort(-found, axis=1, kind="stable")[:, :2])
    np.testing.assert_allclose(shares, np.sort(np.exp(found), axis=1)[:, :-3:-1], atol=1e-5)
    assert TrieNextInterest(engine, NAMES).scores(np.zeros((0, 2), dtype=int)).shape == (0, 5)


def answer_files(folder, results, texts):
    """Result lines of a batch service, the last first; None: the service failed."""
    lines = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    out = []
    for line, text in zip(lines, texts, strict=True):
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {}}
        good = {"response": {"status_code": 200, "body": body}}
        out.append({"custom_id": line["custom_id"]} | (good if text is not None else {"error": {"message": "no"}}))
    results.write_text("\n".join(json.dumps(line) for line in out[::-1]))


def test_the_batch_route_from_export_to_table(tmp_path):
    asked_for = NextRequests(NAMES, "provider", candidates=2)
    with Ledger(tmp_path / "ledger.db") as ledger:
        with pytest.raises(InputError, match="None of these pairs"):
            table_of(asked_for, ledger)
        done = export_requests(asked_for.requests(), tmp_path / "batch", ledger, asked_for.model)
        assert done.lines == len(asked_for) == 10
        said = ["purple monkey\nWord 1 2", "green tea\n a thing \nWord 1 3", None, "no name"] + ["Word 1 3"] * 6
        answer_files(tmp_path / "batch", tmp_path / "results.jsonl", said)
        kept = import_results([tmp_path / "results.jsonl"], asked_for, ledger)
        assert (kept.kept, kept.failed, kept.missing, kept.unknown) == (9, 1, 0, 0)
        table, read = table_of(asked_for, ledger)
    assert (read.asked, read.answered, read.lines) == (10, 9, 11)
    assert read.matched == 9
    assert read.strange == ["a thing", "no name"]
    found, shares = table.look_up(all_pairs(5))
    assert found[:4].tolist() == [[2, 3], [-1, -1], [-1, -1], [-1, -1]]  # what the person has is no answer
    assert np.isnan(shares[0]).all()
    (row,) = table.rows_of(np.array([[1, 0]]))
    assert table.source(row) == ("provider", next_request((0, 1), NAMES, 2).key("provider"))
