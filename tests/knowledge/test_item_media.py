"""Media of items: which files may be read, what goes wrong item by item, and what makes an item another."""

import numpy as np
import polars as pl
import pytest

from made_media import BLUE, RED, film, jpeg, scene
from palate.data.dataset import Dataset
from palate.errors import InputError
from palate.knowledge.annotate import annotate, label_request, questions
from palate.knowledge.attributes import Attribute
from palate.knowledge.media import ItemMedia, MediaConfig, MediaReader, item_media, item_words, media_report
from palate.llm.images import Image

FUNNY = Attribute(name="funny", question="Is this funny?")
PICTURE, OTHER = jpeg(scene(RED, 1)[0]), jpeg(scene(BLUE, 1)[0])


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "a.jpg").write_bytes(PICTURE)
    (inside / "b.jpg").write_bytes(OTHER)
    (inside / "film.jpg").write_bytes(film(scene(RED, 13) + scene(BLUE, 13)))  # told by what it holds
    (inside / "notes.jpg").write_text("no picture")
    (tmp_path / "secret.jpg").write_bytes(PICTURE)
    (inside / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    return inside


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../secret.jpg", "leaves the data's folder"),
        ("x/../../secret.jpg", "leaves the data's folder"),
        ("{outside}/secret.jpg", "leaves the data's folder"),
        ("file://{outside}/secret.jpg", "leaves the data's folder"),
        ("link.jpg", "leaves the data's folder"),
        (".", "leaves the data's folder"),
        ("http://example.com/a.jpg", "not fetched"),
        ("s3://bucket/a.jpg", "not fetched"),
        ("data:image/png;base64,AAAA", "not fetched"),
        ("a\0.jpg", "no path"),
        ("a" * 5000, "no path"),
        ("none.jpg", "no such media file"),
        ("notes.jpg", "neither a picture nor a film"),
    ],
)
@pytest.mark.parametrize("pictures", [True, False])
def test_what_must_not_or_cannot_be_read_is_skipped_alone(folder, path, words, pictures):
    given = path.format(outside=folder.parent)
    media = MediaReader(folder).read("7", [given, "a.jpg"], pictures)
    (error,) = media.errors
    assert words in error.what
    assert error.where == f"item 7, {given}"
    assert len(media.images) == int(pictures)
    assert media.digest == MediaReader(folder).read("8", ["a.jpg"]).digest


def test_a_trusted_catalogue_may_leave_the_folder(folder):
    reader = MediaReader(folder, MediaConfig(outside=True))
    media = reader.read(
        "7", ["../secret.jpg", "link.jpg", str(folder.parent / "secret.jpg"), "file://" + str(folder / "a.jpg")]
    )
    assert media.errors == ()
    assert len(media.images) == 4


def test_several_files_share_the_frames(folder):
    media = MediaReader(folder, MediaConfig(frames=4)).read("7", ["film.jpg", "a.jpg"])
    assert 2 <= len(media.images) <= 3
    media = MediaReader(folder, MediaConfig(frames=1)).read("7", ["b.jpg", "a.jpg", "a.jpg"])
    assert media.images == (Image(OTHER, "image/jpeg"),)
    assert media.left_out == 1


def test_what_is_said_in_a_film_joins_the_text(folder):
    asked = []

    def transcriber(path):
        asked.append(path.name)
        return "so it was\nsaid " * 100

    reader = MediaReader(folder, MediaConfig(transcript=40), transcriber)
    media = reader.read("7", ["a.jpg", "film.jpg"])
    assert asked == ["film.jpg"]  # pictures say nothing
    assert media.transcript.startswith("so it was said so it was")
    assert len(media.transcript) <= 40
    assert item_words("A film", media) == f"A film\nTranscript: {media.transcript}"
    (folder / "film.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nCaptions\n")
    assert reader.read("7", ["film.jpg"]).transcript == "Captions"
    assert asked == ["film.jpg"]  # captions come first
    assert MediaReader(folder, MediaConfig(transcript=0)).read("7", ["film.jpg"]).transcript == ""
    assert item_words("A film", ItemMedia()) == "A film"


def test_captions_outside_the_folder_are_not_read(folder):
    (folder.parent / "secret.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nsecret\n")
    (folder / "film.vtt").symlink_to(folder.parent / "secret.vtt")
    media = MediaReader(folder).read("7", ["film.jpg"])
    assert media.transcript == ""
    assert "captions' path leaves" in media.errors[0].what


@pytest.fixture
def catalogue(films, folder):
    paths = [["a.jpg"], None, ["b.jpg", "gone.jpg"], [" "], [], [], [], []]
    return Dataset(
        films.items.with_columns(media=pl.Series(paths, dtype=pl.List(pl.String))), films.events, films.users
    )


class Chooser:
    model = "chooser"

    def choose(self, requests, options):
        self.requests = list(requests)
        return np.full((len(requests), len(options)), 1 / len(options), dtype=np.float32)


def test_pictures_are_asked_about_with_their_items(catalogue, folder):
    reader, llm = MediaReader(folder), Chooser()
    items = np.arange(4, dtype=np.int32)
    media = reader.read_items(catalogue, items)
    assert sorted(media) == [0, 2]
    rows = annotate(catalogue, items, [FUNNY], llm, media=media)
    shown = [request.messages[1].images for request in llm.requests]
    assert shown == [(Image(PICTURE, "image/jpeg"),), (), (Image(OTHER, "image/jpeg"),), ()]
    assert llm.requests[1] == label_request("Film 1\nabout the sea", FUNNY, "1")
    assert rows["prompt_hash"].to_list() == [
        q.request.key("chooser") for q in questions(catalogue, items, [FUNNY], media=media)
    ]
    report = media_report(media)
    assert (report["items"], report["pictures"], report["files_skipped"]) == (2, 2, 1)
    assert "gone.jpg" in report["skipped"][0]


def test_a_changed_picture_is_a_changed_item(catalogue, folder):
    reader, items = MediaReader(folder), np.arange(2, dtype=np.int32)

    def asked():
        rows = annotate(catalogue, items, [FUNNY], Chooser(), media=reader.read_items(catalogue, items))
        return rows.select("content_hash", "prompt_hash").rows(), reader.key(catalogue, items)

    before, key = asked()
    assert (before, key) == asked()
    (folder / "a.jpg").write_bytes(OTHER)
    after, other = asked()
    assert all(a != b for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1]
    assert key != other
    (folder / "a.jpg").unlink()
    assert reader.key(catalogue, items) not in (key, other)


def test_who_reads_no_images_needs_no_decoding_and_sees_the_change(catalogue, folder):
    reader = MediaReader(folder)
    blind = reader.read_items(catalogue, range(8), pictures=False)
    seen = reader.read_items(catalogue, range(8))
    assert [m.images for m in blind.values()] == [(), ()]
    assert [m.digest for m in blind.values()] == [m.digest for m in seen.values()]


def test_an_item_without_the_column_has_no_media(films):
    assert item_media(films, 0) == []


def test_pyav_missing_is_said_once_not_for_each_item(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match="need PyAV") as caught:
        MediaReader(folder).read("7", ["a.jpg"])
    assert "palate[media]" in str(caught.value)
