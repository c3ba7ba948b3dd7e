"""To a provider's batch service and back: each answer with its request, whatever the order, gaps and repeats."""

import json
import math
import random

import pytest
from batch_samples import read, reply, write

from palate.errors import InputError
from palate.llm import provider_files
from palate.llm.ledger import Ledger
from palate.llm.prices import Prices
from palate.llm.provider_files import export_requests
from palate.llm.provider_results import ExportedFolder, by_key, import_results
from palate.llm.request import Answer, Message, Request

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def ask(text: str, model: str = "m", **body: object) -> Request:
    return Request(body={"model": model, "messages": [{"role": "user", "content": text}], **body}, purpose="batch")


def result(custom_id: object, text: str = "yes", **more: object) -> dict[str, object]:
    response = {"status_code": 200, "request_id": "r", "body": reply(text)}
    return {"id": "b", "custom_id": custom_id, "response": response, "error": None, **more}


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as kept:
        yield kept


@pytest.fixture
def exported(tmp_path, ledger):
    """Eight exported requests and their keys."""
    requests = [ask(f"question {i}") for i in range(8)]
    export_requests(requests, tmp_path / "out", ledger)
    folder = ExportedFolder(tmp_path / "out")
    yield folder, [request.key("m") for request in requests]
    folder.close()


def test_only_what_the_ledger_lacks_goes_out_each_once(tmp_path, ledger):
    requests = [ask(f"question {i % 6}") for i in range(12)]
    ledger.put(requests[0], Answer("known", model="m"), "m")
    done = export_requests(iter(requests), tmp_path / "out", ledger)
    (path,) = done.files
    assert (done.requests, done.spared, done.lines) == (12, 7, 5)
    assert [entry["custom_id"] for entry in read(path)] == [request.key("m") for request in requests[1:6]]
    assert read(path)[0] == {
        "custom_id": requests[1].key("m"),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": requests[1].body,
    }


def test_one_model_a_file_and_no_file_over_its_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(provider_files, "MAX_LINES", 3)
    monkeypatch.setattr(provider_files, "MAX_BYTES", 2000)
    requests = [ask(f"question {i}", model=("a/b", "a-b")[i % 2]) for i in range(10)] + [ask("x" * 1700, "a-b")] * 2
    done = export_requests(requests, tmp_path / "out", None)
    assert len({path.name for path in done.files}) == len(done.files)
    found = []
    for path in done.files:
        entries = read(path)
        assert len({entry["body"]["model"] for entry in entries}) == 1
        assert len(entries) <= 3
        assert path.stat().st_size <= 2000
        found += [entry["custom_id"] for entry in entries]
    assert sorted(found) == sorted({r.key(r.body["model"]) for r in requests})
    assert not list((tmp_path / "out").glob(".*"))


def test_a_folder_is_exported_to_once(tmp_path):
    export_requests([ask("a")], tmp_path / "out", None)
    with pytest.raises(InputError, match="not empty"):
        export_requests([ask("b")], tmp_path / "out", None)


def test_results_come_in_any_order_with_gaps_repeats_and_strangers(tmp_path, ledger, exported):
    folder, keys = exported
    ledger.put(folder[keys[7]][0], Answer("before", model="m"), "m")
    failed = {"response": {"status_code": 429, "body": {"error": {"code": "slow", "message": "too many"}}}}
    lines = [result(keys[i], f"answer {i}") for i in (0, 1, 2, 2, 7)]
    lines += [result(keys[3], **failed), result(keys[3], **failed), result("f" * 32), result("no key")]
    lines += [result(keys[4], response=None, error={"code": "batch_expired", "message": "late"})]
    lines += [result(keys[4], "answer 4")]  # failed in one batch, answered in the next
    random.Random(3).shuffle(lines)
    files = [write(tmp_path / f"{i}.jsonl", lines[i::3]) for i in range(3)]
    files.append(write(tmp_path / "bad.jsonl", [b"", b"{", b"[]", b'{"custom_id": 3}', b'{"custom_id": NaN}']))
    done = import_results(files, folder, ledger, Prices(1.0, 10.0))
    assert (done.kept, done.known, done.failed, done.missing) == (4, 1, 1, 2)
    assert (done.unknown, len(done.bad)) == (2, 4)
    assert "bad.jsonl, line 2" in done.bad[0]
    kept = ledger.get(keys)
    assert {key: kept[key].text for key in kept} == {
        **{keys[i]: f"answer {i}" for i in (0, 1, 2, 4)},
        keys[7]: "before",
    }
    assert kept[keys[0]].value == reply("answer 0")
    assert (kept[keys[0]].tokens_in, kept[keys[0]].tokens_cached, kept[keys[0]].tokens_out) == (7, 3, 2)
    assert kept[keys[0]].cost == pytest.approx(27e-6)


def test_a_second_import_keeps_nothing_twice(tmp_path, ledger, exported):
    folder, keys = exported
    files = [write(tmp_path / "r.jsonl", [result(key) for key in keys])]
    assert import_results(files, folder, ledger).kept == 8
    books = ledger.totals()
    again = import_results(files, folder, ledger)
    assert (again.kept, again.known, again.missing) == (0, 8, 0)
    assert ledger.totals() == books


@pytest.mark.parametrize(
    "broken",
    [
        {"response": {"status_code": 200}},
        {"response": {"status_code": 200, "body": []}},
        {"response": {"status_code": 200, "body": {"choices": []}}},
        {"response": {"status_code": 200, "body": {"choices": [{"message": {"content": ["text"]}}]}}},
        {"response": {"status_code": 500, "body": "oops"}},
        {"response": "yes"},
        {"response": None, "error": None},
        {"response": None, "error": "text"},
    ],
)
def test_a_result_that_is_no_answer_fails_alone(tmp_path, ledger, exported, broken):
    folder, keys = exported
    files = [write(tmp_path / "r.jsonl", [result(keys[0], **broken), *(result(key) for key in keys[1:])])]
    done = import_results(files, folder, ledger)
    assert (done.kept, done.failed, done.missing) == (7, 1, 0)
    assert keys[0] not in ledger.get(keys)


def test_an_answer_must_fit_the_schema_of_its_request(tmp_path, ledger):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    requests = [ask(str(i), response_format=wanted) for i in range(2)]
    keys = [request.key("m") for request in requests]
    files = [write(tmp_path / "r.jsonl", [result(keys[0], '{"n": 1}'), result(keys[1], '{"n": "one"}')])]
    done = import_results(files, by_key(requests, "m"), ledger)
    assert (done.kept, done.failed) == (1, 1)
    assert set(ledger.get(keys)) == {keys[0]}


def test_typed_requests_go_out_as_chat_and_come_back_typed(tmp_path, ledger):
    question = (Message("user", "Which?"),)
    requests = [
        Request(question, options=("Yes", "No"), purpose="label", entity="7"),
        Request(question, schema=SCHEMA),
        Request(question, trie=("red", "green")),
    ]
    (path,) = export_requests(requests, tmp_path / "out", ledger, "m").files
    bodies = [entry["body"] for entry in read(path)]
    assert bodies[0]["logprobs"] is True
    assert all("response_format" in body for body in bodies[1:])
    told = reply("Yes")
    tokens = [{"token": "Yes", "logprob": math.log(0.6)}, {"token": "No", "logprob": math.log(0.2)}]
    told["choices"][0]["logprobs"] = {"content": [{"token": "Yes", "logprob": -0.5, "top_logprobs": tokens}]}
    keys = [request.key("m") for request in requests]
    lines = [result(keys[0], response={"status_code": 200, "body": told})]
    lines += [result(keys[1], '{"n": 3}'), result(keys[2], '{"answer": "green"}')]
    done = import_results([write(tmp_path / "r.jsonl", lines)], by_key(requests, "m"), ledger)
    assert done.kept == 3
    kept = ledger.get(keys)
    assert kept[keys[0]].probabilities == pytest.approx((0.75, 0.25))
    assert kept[keys[0]].method == "first token"
    assert kept[keys[1]].value == {"n": 3}
    assert kept[keys[2]].text == "green"
    assert {row["purpose"] for row in ledger.totals()} == {"label", ""}


def test_what_is_no_export_is_refused(tmp_path, ledger):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no export"):
        ExportedFolder(tmp_path / "empty")
    write(tmp_path / "empty" / "a.jsonl", [{"custom_id": "x", "body": {"model": "m"}}])
    with pytest.raises(InputError, match="not a file of an export"):
        ExportedFolder(tmp_path / "empty")


def test_an_export_that_was_edited_is_refused(tmp_path, ledger):
    (path,) = export_requests([ask("a")], tmp_path / "out", None).files
    (entry,) = read(path)
    entry["body"]["messages"][0]["content"] = "b"
    path.write_text(json.dumps(entry) + "\n")
    folder = ExportedFolder(tmp_path / "out")
    with pytest.raises(InputError, match="does not hash"):
        import_results([write(tmp_path / "r", [result(entry["custom_id"])])], folder, ledger)
    folder.close()


def test_results_that_are_not_there_are_named(tmp_path, ledger, exported):
    with pytest.raises(InputError, match="cannot be read"):
        import_results([tmp_path / "none.jsonl"], exported[0], ledger)
