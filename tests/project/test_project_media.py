"""`palate annotate` on a catalogue with pictures: over HTTP they are shown, embedded they are named and left aside."""

import base64
import json
import sys

import polars as pl
import pytest
from tiny_project import StandIn, make_project

from made_media import BLUE, RED, film, jpeg, scene
from palate.cli.main import run

PICTURE, OTHER = jpeg(scene(RED, 1)[0]), jpeg(scene(BLUE, 1)[0])


@pytest.fixture
def server():
    server = StandIn()
    yield server
    server.close()


@pytest.fixture
def palate(palate):
    """The command's JSON, where it succeeds."""

    def call(*arguments):
        code, out, err = palate(*arguments)
        assert not code, err
        return json.loads(out)

    return call


def illustrated(folder, url):
    """All items have a picture, but one that has a film with captions and one whose picture is no picture."""
    project = make_project(folder, url)
    items = pl.read_parquet(project / "items.parquet")
    paths = ["film.mp4", "bad.jpg", *["picture.jpg"] * 78]
    items.with_columns(image=pl.Series(paths)).write_parquet(project / "items.parquet")
    (project / "film.mp4").write_bytes(film(scene(RED, 13) + scene(BLUE, 13)))
    (project / "film.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nSpoken words\n")
    (project / "bad.jpg").write_text("this is text")
    (project / "picture.jpg").write_bytes(PICTURE)
    (project / "palate.yaml").write_text((project / "palate.yaml").read_text().replace("items: 16", "items: 80"))
    return project


def pictures(content):
    return (
        [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        if isinstance(content, list)
        else []
    )


def words(content):
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@pytest.mark.slow
def test_pictures_travel_as_data_urls_and_a_changed_one_is_asked_about_again(server, tmp_path, palate):
    project = illustrated(tmp_path / "p", server.url)
    said = palate("annotate", "--project", project, "--json")
    first = list(server.seen)
    assert len(first) == 160
    shown = [pictures(content) for _, content in first]
    url = f"data:image/jpeg;base64,{base64.b64encode(PICTURE).decode()}"
    assert shown.count([url]) == 156
    (of_the_film,) = {tuple(urls) for urls in shown if len(urls) > 1}
    assert all(
        base64.b64decode(u.removeprefix("data:image/jpeg;base64,")).startswith(b"\xff\xd8\xff") for u in of_the_film
    )
    assert sum("Transcript: Spoken words" in words(content) for _, content in first) == 2
    assert (said["media_items"], said["media_files_skipped"], said["media_transcripts"]) == (80, 1, 1)
    assert "item i1, bad.jpg" in said["media_skipped"][0]
    assert "media_note" not in said

    palate("annotate", "--project", project, "--json")
    assert len(server.seen) == 160  # nothing changed

    (project / "film.mp4").write_bytes(film(scene(BLUE, 13) + scene(RED, 13)))
    palate("annotate", "--project", project, "--json")
    assert len(server.seen) == 162  # the film's two questions have other keys
    labels = pl.concat(map(pl.read_parquet, (project / ".palate").rglob("label.parquet"))).filter(entity="i0")
    assert labels["content_hash"].n_unique() == 2
    assert labels["prompt_hash"].n_unique() == 4


def test_media_are_looked_at_before_anything_is_asked(server, tmp_path, monkeypatch, capsys):
    project = illustrated(tmp_path / "p", server.url)
    for wanted in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", ["palate", "media", "--project", str(project), *wanted])
        with pytest.raises(SystemExit) as caught:
            run()
        assert caught.value.code == 1  # one file is no picture
        out = capsys.readouterr().out
        if wanted:
            report = json.loads(out)
            assert (report["items"], report["files_skipped"]) == (80, 1)
        else:
            assert "item i1, bad.jpg" in out
            assert "neither a picture nor a film" in out
    assert server.seen == []


@pytest.mark.slow
def test_the_embedded_engine_says_that_it_reads_no_images(tmp_path, palate):
    pytest.importorskip("xllamacpp", reason="needs the extra `embedded`")
    project = illustrated(tmp_path / "p", None)
    (project / "palate.yaml").write_text((project / "palate.yaml").read_text().replace("items: 80", "items: 1"))
    said = palate("annotate", "--project", project, "--json")
    assert "llama.cpp reads no images" in said["media_note"]
    assert said["labels"] == 2
    assert said["media_pictures"] == 0
