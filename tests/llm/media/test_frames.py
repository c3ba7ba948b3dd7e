"""Films and pictures of known content: what is kept of them, within which bounds, and what is refused."""

import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from made_media import BLUE, CONTAINERS, GREEN, RED, film, jpeg, png, rgba_png, scene, sound, with_orientation
from palate.errors import InputError
from palate.llm.images import Image
from palate.llm.media.decode import picture, pixels_of
from palate.llm.media.files import kind_of
from palate.llm.media.frames import Frame, FrameLimits, fitting, read_clip, tokens_of


def written(tmp_path, data, name="file"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def corner(frame: Frame) -> list[int]:
    return frame.pixels[0, 0].astype(int).tolist()


def like(frame: Frame, colour) -> bool:
    return bool(np.abs(np.array(corner(frame)) - colour).max() < 60)  # GIF has few colours


@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_on_both_sides_of_a_cut_are_found(tmp_path, container):
    clip = read_clip(written(tmp_path, film(scene(RED, 13) + scene(BLUE, 22), container)))
    assert clip.cuts == pytest.approx((1.3,), abs=0.02)
    before = [frame for frame in clip.frames if like(frame, RED)]
    after = [frame for frame in clip.frames if like(frame, BLUE)]
    assert before
    assert after
    assert len(before) + len(after) == len(clip.frames) <= 6
    assert max(f.seconds for f in before) < clip.cuts[0] <= min(f.seconds for f in after)
    assert clip.motion > 0
    assert (clip.width, clip.height) == (128, 96)


def test_a_short_shot_between_long_ones_has_its_frame(tmp_path):
    frames = scene(RED, 40) + scene(GREEN, 4) + scene(BLUE, 40)
    clip = read_clip(written(tmp_path, film(frames)), FrameLimits(frames=3))
    assert [next(c for c in (RED, GREEN, BLUE) if like(frame, c)) for frame in clip.frames] == [RED, GREEN, BLUE]


def test_the_same_film_gives_the_same_bytes(tmp_path):
    path = written(tmp_path, film(scene(RED, 13) + scene(BLUE, 22)))
    once, again = (fitting([read_clip(path)], FrameLimits()) for _ in range(2))
    assert once == again
    assert {image.media_type for image in once} == {"image/jpeg"}


def test_a_film_in_which_nothing_happens_is_one_frame(tmp_path):
    clip = read_clip(written(tmp_path, film([np.full((96, 128, 3), 90, dtype=np.uint8)] * 50)))
    assert len(clip.frames) == 1
    assert clip.motion == pytest.approx(0, abs=0.01)


def test_of_a_long_film_key_frames_over_its_whole_length_are_read(tmp_path):
    scenes = [frame for colour in (RED, GREEN, BLUE) for frame in scene(colour, 40)]
    path = written(tmp_path, film(scenes, g="10"))
    clip = read_clip(path, FrameLimits(decoded=30, probes=12))
    assert [any(like(frame, colour) for frame in clip.frames) for colour in (RED, GREEN, BLUE)] == [True] * 3
    assert len(clip.cuts) == 2
    assert clip.seconds == pytest.approx(12, abs=0.2)


def test_time_is_bounded(tmp_path):
    path = written(tmp_path, film(scene(RED, 150, (240, 320))))
    begun = time.perf_counter()
    with pytest.raises(InputError, match="too long to decode") as caught:
        read_clip(path, FrameLimits(seconds=0.01))
    assert time.perf_counter() - begun < 1
    assert caught.value.where == str(path)


def test_real_clips(shared_data):
    folder = shared_data / "video-clips" / "clips"
    clips = {path.stem: read_clip(path) for path in sorted(folder.glob("*.mp4"))}
    assert len(clips) == 3
    for clip in clips.values():
        moments = [frame.seconds for frame in clip.frames]
        assert moments == sorted(set(moments))
        assert 1 <= len(moments) <= 6
        assert max(max(frame.pixels.shape) for frame in clip.frames) <= 512
        assert clip.note == ""
    assert clips["flower"].seconds == pytest.approx(5.05, abs=0.1)
    assert clips["flower"].frames[-1].seconds > 3
    assert clips["archery"].motion < clips["friday"].motion


def test_real_pictures_go_as_they_are(shared_data):
    path = shared_data / "grocery-images" / "images" / "iconic" / "Golden-Delicious.jpg"
    clip = read_clip(path)
    assert fitting([clip], FrameLimits()) == (Image.read(path),)
    assert (clip.kind, clip.width, clip.height) == ("image", 198, 198)


def test_a_large_picture_is_scaled_down_and_becomes_a_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, 3 * 900 * 600, dtype=np.uint8).tobytes()
    clip = read_clip(written(tmp_path, png(900, 600, noise), "noise.gif"))
    (image,) = fitting([clip], FrameLimits(side=300))
    assert image.media_type == "image/jpeg"
    kind = kind_of(image.data)
    assert kind is not None
    assert pixels_of(picture(image.data, kind, "", 10**6), 512).shape == (200, 300, 3)
    assert (clip.width, clip.height) == (900, 600)


def test_a_picture_with_exif_is_turned_upright_and_loses_it(tmp_path):
    pixels = np.full((40, 80, 3), 250, dtype=np.uint8)
    pixels[:, :20] = (200, 30, 30)  # red on the left
    path = written(tmp_path, with_orientation(jpeg(pixels), 6))  # 6: shown turned by 90 degrees clockwise
    clip = read_clip(path)
    (image,) = fitting([clip], FrameLimits())
    assert (clip.width, clip.height) == (40, 80)
    assert b"Exif" not in image.data
    assert clip.frames[0].pixels[5, 20].tolist() == pytest.approx([200, 30, 30], abs=30)  # red on top


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, 4:] = (10, 20, 200, 255)
    clip = read_clip(written(tmp_path, rgba_png(pixels)))
    assert clip.frames[0].pixels[0, 0].tolist() == [255, 255, 255]
    assert clip.frames[0].pixels[0, 7].tolist() == [10, 20, 200]


def test_tokens_are_kept_by_smaller_pictures_then_by_fewer(tmp_path):
    clip = read_clip(written(tmp_path, film(scene(RED, 13, (288, 512)) + scene(BLUE, 22, (288, 512)))))
    assert len(clip.frames) > 3

    def spent(limits):
        images = fitting([clip], limits)
        sizes = [pixels_of(picture(i.data, kind_of(i.data), "", 10**7), 4096).shape for i in images]
        return len(images), sum(tokens_of(w, h, 4096) for h, w, _ in sizes)

    assert spent(FrameLimits(tokens=400))[0] == len(clip.frames)
    for tokens in (400, 200, 60, 16):
        n, used = spent(FrameLimits(tokens=tokens))
        assert used <= tokens
        assert n >= 1
    assert spent(FrameLimits(tokens=16))[0] < len(clip.frames)


MP4 = film(scene(RED, 13) + scene(BLUE, 22))
JPEG = jpeg(scene(RED, 1)[0])
BAD = {
    "text": (b"hello, I am a text file", "neither a picture nor a film"),
    "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "neither a picture nor a film"),
    "concat": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "neither a picture nor a film"),
    "empty": (b"", "is empty"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "damaged or cut short"),
    "a jpeg without its last bytes": (JPEG[:-4], "damaged or cut short"),
    "half a png": (png(30, 20)[:50], "damaged or cut short"),
    "a png bomb": (png(2, 2, claimed=(60000, 60000)), "too large to decode"),
    "a gif bomb": (b"GIF89a" + struct.pack("<HH", 60000, 60000) + film(scene(RED, 3), "gif")[10:], "too large"),
    "a webp bomb": (
        film(scene(RED, 3), "webp")[:24] + b"\xff\xff\x3f\xff\xff\x3f" + film(scene(RED, 3), "webp")[30:],
        "too large to decode",
    ),
    "a film's beginning": (MP4[: len(MP4) // 3], "damaged or cut short|No frame"),
    "sound alone": (sound(), "no pictures"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_named(tmp_path, name):
    data, words = BAD[name]
    path = written(tmp_path, data, "picture.jpg")
    with pytest.raises(InputError, match=words) as caught:
        read_clip(path, where=f"item 7, {path.name}")
    assert caught.value.where == "item 7, picture.jpg"


def test_a_bomb_that_is_true_to_its_size_is_refused_before_it_is_unpacked(tmp_path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = png(1, 1, claimed=(20000, 20000))  # FFmpeg's own bound would let it pass: 1.2 GB
    with pytest.raises(InputError, match="20,000 x 20,000"):
        read_clip(written(tmp_path, data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "huge"])
def test_what_is_no_file_of_a_fair_size_is_named(tmp_path, what):
    import os

    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "pipe":
        os.mkfifo(path)
    if what == "huge":
        path.write_bytes(JPEG)
    with pytest.raises(InputError, match="too large" if what == "huge" else "no such media file"):
        read_clip(path, FrameLimits(bytes=100))


def test_a_damaged_film_shows_what_is_left_of_it(tmp_path):
    whole = film(scene(RED, 13) + scene(BLUE, 60), "mpegts")
    clip = read_clip(written(tmp_path, whole[: len(whole) * 2 // 3]))
    assert like(clip.frames[0], RED)


SEEDS = [MP4, JPEG, png(20, 10), *(film(scene(RED, 3) + scene(BLUE, 3), c) for c in ("gif", "webp", "avi", "matroska"))]

WOUND = st.tuples(st.floats(0, 1), st.integers(0, 64), st.binary(max_size=64))  # where, bytes out, bytes in


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), st.lists(WOUND, min_size=1, max_size=6))
def test_mutilated_files_give_frames_or_an_error_with_a_place(tmp_path, seed, wounds):
    """Bytes changed, cut out or repeated anywhere: nothing but a clip or an `InputError`."""
    changed = bytearray(seed)
    for place, gone, put in wounds:
        at = int(place * len(changed))
        changed[at : at + gone] = put
    path = written(tmp_path, bytes(changed))
    try:
        clip = read_clip(path, FrameLimits(seconds=5, pixels=10**6))
    except InputError as error:
        assert error.where == str(path)
    else:
        assert 1 <= len(clip.frames) <= 6
        assert all(Image.of(image.data) for image in fitting([clip], FrameLimits()))
