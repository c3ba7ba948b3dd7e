"""Frames of films for a model: time and memory beside decoding every frame and taking N evenly.

    python benchmarks/media.py [--repeats 5]

The clips of the development data, and one of them repeated to five minutes (its packets are copied, so that it is a
real H.264 film with its key frames). Ways: `all`: every frame decoded to RGB and held, N taken evenly; `counted`: the
same, but only the N are turned into RGB, which needs the number of frames beforehand; `palate`: `read_clip`, which
also finds cuts and motion. Each way ends with N JPEGs of at most 512 pixels a side and runs in a process of its own;
seconds are medians, memory is the process's peak above what it held once everything was imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import machine_facts

from palate.llm.media.decode import pixels_of, pyav
from palate.llm.media.frames import FrameLimits, fitting, jpeg, read_clip

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT.parent / "shared" / "data" / "video-clips" / "clips"
LIMITS = FrameLimits()


def every_frame_held(path: Path) -> int:
    with pyav().open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = [frames[len(frames) * (2 * k + 1) // (2 * LIMITS.frames)] for k in range(LIMITS.frames)]
    return len([jpeg(pixels, LIMITS.side) for pixels in chosen])


def every_frame_counted(path: Path) -> int:
    with pyav().open(str(path)) as container:
        total = container.streams.video[0].frames
        wanted = {total * (2 * k + 1) // (2 * LIMITS.frames) for k in range(LIMITS.frames)}
        chosen = [pixels_of(f, LIMITS.side) for k, f in enumerate(container.decode(video=0)) if k in wanted]
    return len([jpeg(pixels, LIMITS.side) for pixels in chosen])


def with_palate(path: Path) -> int:
    return len(fitting([read_clip(path, LIMITS)], LIMITS))


WAYS: dict[str, Callable[[Path], int]] = {
    "all": every_frame_held,
    "counted": every_frame_counted,
    "palate": with_palate,
}


def repeated(source: Path, target: Path, times: int) -> None:
    """`source` so many times in a row, its packets copied."""
    with pyav().open(str(target), "w") as output:
        made = None
        for number in range(times):
            with pyav().open(str(source)) as container:
                stream = container.streams.video[0]
                made = made or output.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = (t + number * stream.duration for t in (packet.pts, packet.dts))
                        packet.stream = made
                        output.mux(packet)


def one(way: str, path: Path, repeats: int) -> dict[str, float]:
    """In this process. The first run warms caches and is not timed."""
    every_frame_counted(CLIPS / "archery.mp4")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pictures, seconds = WAYS[way](path), []
    for _ in range(repeats):
        begun = time.perf_counter()
        WAYS[way](path)
        seconds.append(time.perf_counter() - begun)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"pictures": pictures, "seconds": statistics.median(seconds), "peak_mib": peak}


def measure(repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        long = Path(folder) / "flower-x60.mp4"
        repeated(CLIPS / "flower.mp4", long, 60)
        for path in [*sorted(CLIPS.glob("*.mp4")), long]:
            for way in WAYS:
                if way == "all" and path == long:
                    continue  # 9,000 frames of 1.5 MB
                times = 1 if path == long and way != "palate" else repeats
                command = [sys.executable, __file__, "--one", way, str(path), "--repeats", str(times)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rows.append({"film": path.stem, "way": way, **found})
                print(f"{path.stem:12} {way:8} {found['seconds'] * 1e3:9.1f} ms {found['peak_mib']:8.1f} MiB")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one[0], Path(args.one[1]), args.repeats)))
        return
    rows = measure(args.repeats)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "media.json").write_text(json.dumps({"rows": rows, "machine": machine_facts()}, indent=1))


if __name__ == "__main__":
    main()
