from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hostile_snapshot import HOSTILE, hostile
from tiny_snapshot import tiny_parts

from palate.console.pages import add_console
from palate.serving.api import create_app
from palate.serving.snapshot import build_snapshot

PAGES = ("/", "/people", "/people?q=u1", "/person?id=u3", "/interests", "/interests?node=5", "/items", "/item?id=i0")


class Parsed(HTMLParser):
    """Tags, attributes, text and JSON blocks, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.blocks = "", []
        self._in_block = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_block = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_endtag(self, tag: str) -> None:
        self._in_block = False

    def handle_data(self, data: str) -> None:
        if self._in_block:
            self.blocks.append(json.loads(data))
        else:
            self.text += data


def page(client: TestClient, path: str, status: int = 200) -> Parsed:
    answer = client.get(f"/console{path}")
    assert answer.status_code == status
    return Parsed(answer.text)


def assert_harmless(parsed: Parsed) -> None:
    for tag, attributes in parsed.tags:
        assert tag not in ("img", "svg", "iframe", "object", "style")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        if tag == "script":
            own = str(attributes.get("src")).startswith("/console/static/")
            assert own or attributes.get("type") == "application/json"
        if tag == "a":
            assert str(attributes["href"]).startswith(("/console/", "#main"))


@pytest.mark.parametrize("path", [*PAGES, "/item?id=nobody", "/nowhere", "/static/palate.css"])
def test_every_answer_forbids_inline_scripts_and_other_hosts(client: TestClient, path: str) -> None:
    policy = client.get(f"/console{path}").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy


def test_the_overview_sums_the_steps_where_the_run_has_no_totals(client: TestClient) -> None:
    parsed = page(client, "/")
    assert "96,000" in parsed.text
    assert parsed.blocks[0]["steps"][1] == {
        "name": "train",
        "start": 12.5,
        "seconds": 30.0,
        "state": "",
        "detail": "",
    }
    assert "tiny-teacher-7b" in parsed.text


def test_a_person_sees_history_profile_and_the_reasons(client: TestClient) -> None:
    parsed = page(client, "/person?id=u3")
    assert "Likes slow stories & <i>old</i> towns." in parsed.text
    assert "knowing nothing after 2024-01-01" in parsed.text
    assert "because you watched" in parsed.text
    assert "new for you" in parsed.text
    assert "History, latest first" in parsed.text


def test_a_person_sees_the_interests_drawn_the_new_one_and_why(client: TestClient) -> None:
    html = client.get("/console/person?id=u3").text
    card = html[html.index('id="somewhere-new"') :]
    card = card[: card.index("</section>")]
    parsed = Parsed(card)
    nodes = [
        str(a["href"]).rpartition("=")[2] for t, a in parsed.tags if t == "a" and "interests?node=" in str(a["href"])
    ]
    *drawn, new = nodes[: nodes.index(nodes[0], 1)]  # the path comes first, then each step of it
    assert 1 <= len(drawn) <= 2
    assert new not in drawn
    assert "is new: nothing of it is in the history" in parsed.text
    assert parsed.text.count("was drawn from the recent history; latest of it:") == len(drawn)
    assert "said by tiny-teacher-7b" in parsed.text
    evidence = [
        row for each in client.get("/v1/recommend/u3?explain=true&n=12").json()["items"] for row in each["evidence"]
    ]
    (path, *_) = [row for row in evidence if row["kind"] == "transition"]
    assert path["novel"]
    assert path["to_node"] not in path["from_nodes"]
    assert len(path["because"]) == len(path["from_nodes"])


def test_a_draw_that_explores_nothing_says_so(tmp_path: Path) -> None:
    parts = replace(tiny_parts(), transitions=None)
    app = create_app(build_snapshot(tmp_path, parts))
    add_console(app, app.state.live)
    with TestClient(app) as client:
        parsed = page(client, "/person?id=u3")
    assert "This draw explores nothing" in parsed.text
    assert "was drawn from" not in parsed.text


def test_the_same_draw_shows_the_same_slate(client: TestClient) -> None:
    slate = [client.get("/console/person?id=u3&draw=2").text for _ in range(2)]
    assert slate[0] == slate[1]
    assert "draw=3" in slate[0]


def test_the_map_has_every_node_below_the_root(client: TestClient) -> None:
    roots = page(client, "/interests").blocks[0]["roots"]
    assert sum(1 + len(root["children"]) for root in roots) == 12


def test_a_node_shows_its_items_and_what_leads_in_and_out(client: TestClient) -> None:
    parsed = page(client, "/interests/panel?node=6")
    assert "Leads to" in parsed.text
    assert "Comes after" in parsed.text
    assert "said by tiny-teacher-7b" in parsed.text
    assert "story" in parsed.text


def test_an_item_shows_labels_by_teacher_and_their_provenance(client: TestClient) -> None:
    parsed = page(client, "/item?id=i0")
    assert [one["name"] for one in parsed.blocks[0]["series"]] == ["served", "tiny-teacher-7b"]
    for words in ("told with patience", "0123456789ab", "120", "student of tiny-teacher-7b", "Similar items"):
        assert words in parsed.text


def test_search_finds_by_id_and_by_title_and_says_when_nothing_fits(client: TestClient) -> None:
    assert "u11" in page(client, "/people/found?q=u1").text
    assert "Crime story 0" in page(client, "/items/found?q=crime%20STORY%200").text
    assert "No title contains" in page(client, "/items/found?q=zzz").text
    assert "Nobody" in page(client, "/people/found?q=zzz").text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/person?id=nobody", "This snapshot knows no such person. Asked for: nobody"),
        ("/person", "nothing was asked for"),
        ("/item?id=%3Cb%3E", "no such item. Asked for: <b>"),
        ("/interests?node=9999", "no such interest"),
        ("/interests?node=-1", "no such interest"),
        ("/interests/panel?node=1e3", "no such interest"),
        ("/nowhere", "There is no such page"),
    ],
)
def test_what_is_not_there_is_a_404_in_words(client: TestClient, path: str, words: str) -> None:
    assert words in " ".join(page(client, path, 404).text.split())


def test_the_console_only_reads(client: TestClient) -> None:
    assert client.post("/console/").status_code == 405
    assert client.delete("/console/item?id=i0").status_code == 405


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_people_and_items_are_text_everywhere(hostile_client: TestClient, number: int) -> None:
    wanted = quote(hostile(number), safe="")
    for path in (f"/person?id={wanted}", f"/item?id={wanted}", f"/people?q={wanted}", f"/items?q={wanted}"):
        parsed = page(hostile_client, path)
        assert_harmless(parsed)
        assert hostile(number)[:400] in parsed.text or "q=" in path


@pytest.mark.parametrize("path", ["/", "/interests", "/interests?node=1", "/interests?node=6", "/people", "/items"])
def test_hostile_names_are_text_on_every_other_page(hostile_client: TestClient, path: str) -> None:
    parsed = page(hostile_client, path)
    assert_harmless(parsed)
    assert "49" not in parsed.text or "{{ 7 * 7 }}" in parsed.text


def test_links_lead_to_hostile_ids(hostile_client: TestClient) -> None:
    for path, kind in (("/items", "item?"), ("/people", "person?")):
        links = [str(a["href"]) for tag, a in page(hostile_client, path).tags if tag == "a" and kind in str(a)]
        assert len(links) >= 10
        assert {hostile_client.get(link).status_code for link in links[:12]} == {200}


def test_a_json_block_holds_no_sign_that_could_end_it(hostile_client: TestClient) -> None:
    html = hostile_client.get("/console/interests").text
    block = html.split('type="application/json"')[1].split("</script>")[0].partition(">")[2]
    assert not set("<>&") & set(block)
    assert block.isascii()
