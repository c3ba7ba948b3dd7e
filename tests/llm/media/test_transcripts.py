import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.llm.media.transcripts import captions_beside, clipped, spoken


def test_real_captions(shared_data):
    path = captions_beside(shared_data / "video-clips" / "clips" / "friday.mp4")
    assert path is not None
    assert spoken(path).startswith("Hildy! How are you? Tell me, is the lord of the universe in?")
    assert captions_beside(shared_data / "video-clips" / "clips" / "flower.mp4") is None


VTT = """WEBVTT - a film

NOTE not said

STYLE
::cue { color: red }

1
00:01.000 --> 00:02.000 line:80%
<v Ann>Hello &amp; <i>welcome</i>

2
00:02.000 --> 00:03.000
Hello & welcome
to the show
"""
SRT = "1\r\n00:00:01,000 --> 00:00:02,000\r\n{\\an8}First\r\n\r\n2\r\n00:00:02,000 --> 00:00:03,000\r\nSecond\r\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.vtt", VTT, "Hello & welcome to the show"),
        ("a.srt", SRT, "First Second"),
        ("a.txt", "  Anything\n at all ", "Anything at all"),
        ("b.vtt", "", ""),
    ],
)
def test_times_tags_notes_and_repetitions_go(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert spoken(path) == said


def test_captions_are_found_by_either_name(tmp_path):
    film = tmp_path / "clip.mp4"
    (tmp_path / "clip.mp4.srt").touch()
    assert captions_beside(film) == tmp_path / "clip.mp4.srt"
    (tmp_path / "clip.vtt").touch()
    assert captions_beside(film) == tmp_path / "clip.vtt"


@given(st.binary(max_size=400), st.sampled_from([".vtt", ".srt", ".txt"]), st.integers(1, 50))
def test_any_bytes_give_one_line_within_the_limit(tmp_path_factory, data, ending, limit):
    path = tmp_path_factory.mktemp("captions") / f"c{ending}"
    path.write_bytes(data)
    said = spoken(path, limit)
    assert len(said) <= limit
    assert "\n" not in said


@given(st.text(max_size=80), st.integers(1, 40))
def test_what_is_short_enough_is_kept_whole(text, limit):
    line = " ".join(text.split())
    assert clipped(text, limit) == line if len(line) <= limit else clipped(text, limit).endswith("…")
