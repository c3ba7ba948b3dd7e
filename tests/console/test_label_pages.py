"""The labelling page's calls: what is refused, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from label_desk import PNG, make_desk

from palate.console.label_pages import create_label_app
from palate.knowledge.rater_labels import RaterLabels

HERE = "http://127.0.0.1"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_label_app(make_desk(tmp_path)), base_url=HERE)


@pytest.fixture
def headers(client: TestClient) -> dict[str, str]:
    token = client.get("/console/label/state?rater=anna").json()["token"]
    return {"x-palate-token": token, "origin": HERE, "content-type": "application/json"}


def said(**more: Any) -> dict[str, Any]:
    return {"rater": "anna", "item_id": "i0", "attribute": "funny", "label": "Yes", "seen": None, **more}


def test_a_label_is_on_the_disk_with_the_version_of_the_question(client, headers, tmp_path):
    answer = client.post("/console/label/save", json=said(comment="  odd "), headers=headers)
    assert (answer.status_code, answer.json()["label"]) == (200, "Yes")
    (label,) = RaterLabels(tmp_path / "golden", "anna").current().values()
    assert (label.comment, len(label.version), label.at[:2]) == ("odd", 8, "20")
    assert client.get("/console/label/state?rater=anna").json()["labels"][0]["comment"] == "odd"
    assert client.get("/console/label/state?rater=ben").json()["labels"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x-palate-token": "guess"}, "token"),
        ({"x-palate-token": ""}, "token"),
        ({"origin": "https://evil.example"}, "another page"),
        ({"origin": "http://127.0.0.1:9"}, "another page"),
        ({"origin": "null"}, "another page"),
        ({"sec-fetch-site": "cross-site"}, "another page"),
        ({"content-type": "text/plain"}, "JSON"),
    ],
)
@pytest.mark.parametrize("path", ["save", "undo"])
def test_requests_of_other_pages_are_refused_and_write_nothing(client, headers, tmp_path, change, words, path):
    answer = client.post(f"/console/label/{path}", json=said(), headers=headers | change)
    assert answer.status_code == 403
    assert words in answer.json()["what"]
    assert not list(tmp_path.glob("golden/*.csv"))


@pytest.mark.parametrize("path", ["label", "label/state?rater=anna", "label/save", ""])
def test_a_name_of_elsewhere_that_points_here_gets_nothing(client, path):
    answer = client.request("POST" if "save" in path else "GET", f"/console/{path}", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "token" not in answer.text


def test_the_page_has_no_inline_script_and_hostile_names_stay_text(client):
    answer = client.get("/console/label", params={"rater": '"><script>alert(1)</script>'})
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert "<script>" not in answer.text
    assert answer.text.count("<script ") == 1
    assert client.get("/console/label").text.count("<form") == 1
    assert client.get("/console/static/label.js").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"item_id": "i99"}, "item_id"),
        ({"item_id": 3}, "item_id"),
        ({"attribute": "x"}, "attribute"),
        ({"label": "Perhaps"}, "label"),
        ({"label": "\ud800"}, "label"),
        ({"rater": "../../x\x00"}, "rater"),
        ({"comment": "x" * 2001}, "comment"),
    ],
)
def test_what_does_not_fit_is_named(client, headers, tmp_path, change, field):
    answer = client.post("/console/label/save", content=json.dumps(said(**change)), headers=headers)
    assert answer.status_code == 422
    assert field in answer.json()["what"]
    assert not list(tmp_path.glob("golden/*.csv"))


def test_bodies_that_are_no_request_are_refused(client, headers):
    for body, status in ((b"{", 422), (b"[1]", 422), (b"x" * 70_000, 413)):
        assert client.post("/console/label/save", content=body, headers=headers).status_code == status


def test_another_window_of_the_same_rater_is_not_overwritten(client, headers, tmp_path):
    assert client.post("/console/label/save", json=said(), headers=headers).status_code == 200
    late = client.post("/console/label/save", json=said(label="No"), headers=headers)
    assert (late.status_code, late.json()["now"]["label"]) == (409, "Yes")
    now = late.json()["now"]
    assert client.post("/console/label/save", json=said(label="No", seen=now), headers=headers).status_code == 200
    undone = client.post("/console/label/undo", json={"rater": "anna"}, headers=headers).json()["undone"]
    assert (undone["undone"], undone["label"]) == ("No", "Yes")


def test_a_full_disk_is_said_and_the_label_is_not_shown_as_saved(client, headers, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("palate.data.whole_file.os.fsync", full)
    answer = client.post("/console/label/save", json=said(), headers=headers)
    assert answer.status_code == 500
    assert "could not be written" in answer.json()["what"]
    monkeypatch.undo()
    assert client.get("/console/label/state?rater=anna").json()["labels"] == []


def test_pictures_are_shown_and_no_other_file_is(client):
    items = client.get("/console/label/state?rater=anna").json()["items"]
    assert [item["pictures"] for item in items[:3]] == [0, 1, 0]
    answer = client.get("/console/label/picture?id=i1&n=0")
    assert (answer.content, answer.headers["content-type"]) == (PNG, "image/png")
    for query in ("id=i1&n=1", "id=i1&n=-1", "id=i0", "id=nobody", "n=x"):
        assert client.get(f"/console/label/picture?{query}").status_code == 404
