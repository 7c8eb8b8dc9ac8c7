"""What reading costs against merely decoding: python benchmarks/subtitles_speed.py VIDEO... [--joined] [--hour VIDEO]

Decoding (PyAV, every frame, nothing done with it) and reading run in turn, each in a fresh process, so that peak memory
is its own and both meet the machine in the same mood; both decode with a thread a processor, as `tamis subtitles read` does.
Medians over the repeats of: CPU seconds of all threads, ratio of reading to decoding, wall time and how many times faster
than real time, peak resident memory; and the load of the machine before, without which elapsed time means nothing. Loading
networks and language models counts as reading; starting Python and importing does not. --hour makes a 60-minute file by
repeating the packets of one video, which costs no encoding, and adds it, once; with --skip-decoding it is read only, for
memory. --joined makes one file of all 1280x720 clips of a folder (the former test set): some minutes of other pictures, rates
and languages, of whose packets not one is encoded again, so that loading networks counts as it does for a film.

Processors are those this program may run on: `taskset -c 0 python benchmarks/subtitles_speed.py` is one.

Without videos: the 1280x720 and the 1920x1080 clips that are first by name among the rendered development clips.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
from subtitles_report import ROOT, SETS, duration

from tamis.processors import processors

HOUR_S = 3600
BOTH = ("decode", "read")


@dataclass(frozen=True)
class Run:
    """CPU of all threads, wall time, and the process's largest resident memory."""

    cpu_s: float
    wall_s: float
    peak_mib: float


def decode(path: str) -> None:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for _ in container.decode(stream):
            pass


def read(path: str) -> None:
    from tamis.subtitles.reader import read as read_subtitles

    read_subtitles(path)


def _import_only(work: str) -> Callable[[str], None]:
    if work == "decode":
        return decode
    import tamis.subtitles.reader  # noqa: F401

    return read


def _measure(work: str, path: str, answers: multiprocessing.SimpleQueue[Run]) -> None:
    call = _import_only(work)
    cpu, wall = time.process_time(), time.perf_counter()
    call(path)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    answers.put(Run(cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(work: str, path: Path) -> Run:
    """One run of "decode" or "read" in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=_measure, args=(work, str(path), answers))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{path}: {work} ended with status {process.exitcode}")
    return answers.get()


def hour_of(video: Path, folder: Path) -> Path:
    """A 60-minute file of the video's packets over and over; made once."""
    out = folder / f"{video.stem}.60min.mp4"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-stream_loop",
            "-1",
            "-i",
            str(video),
            "-t",
            str(HOUR_S),
            "-an",
        ]
        subprocess.run([*command, "-c", "copy", str(out)], check=True)
    return out


def joined(folder: Path, out: Path) -> Path:
    """One file of the packets of all 1280x720 clips in a folder, by name; made once."""
    clips = [video for video in sorted(folder.glob("*.mp4")) if size(video) == (1280, 720)]
    if not clips:
        raise SystemExit(f"{folder} holds no clips of 1280x720: python benchmarks/subtitles_clips.py former")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        # Streams of packets that tell their own decoder settings may follow each other.
        parts = [out.with_name(f"{out.stem}.{i}.ts") for i in range(len(clips))]
        for clip, part in zip(clips, parts, strict=True):
            command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), "-an", "-c", "copy"]
            subprocess.run([*command, "-bsf:v", "h264_mp4toannexb", str(part)], check=True)
        names = out.with_suffix(".txt")
        names.write_text("".join(f"file '{part.name}'\n" for part in parts))
        command = ["ffmpeg", "-v", "error", "-y", "-f", "concat", "-safe", "0", "-i", str(names)]
        subprocess.run([*command, "-c", "copy", str(out)], check=True)
        for made in (*parts, names):
            made.unlink()
    return out


def size(video: Path) -> tuple[int, int]:
    with av.open(str(video)) as container:
        return container.streams.video[0].width, container.streams.video[0].height


def default_videos() -> list[Path]:
    found: dict[tuple[int, int], Path] = {}
    for video in sorted(SETS["dev"].glob("zh*.mp4")):
        found.setdefault(size(video), video)
    return [found[wanted] for wanted in ((1280, 720), (1920, 1080)) if wanted in found]


def compare(video: Path, repeats: int, works: Sequence[str] = BOTH) -> dict[str, object]:
    """Decode and read in turn; medians."""
    runs: dict[str, list[Run]] = {work: [] for work in works}
    load = os.getloadavg()[0]
    for _ in range(repeats):
        for work, found in runs.items():
            found.append(measure(work, video))
    middle = {
        work: Run(
            *(
                statistics.median(getattr(run, name) for run in found)
                for name in ("cpu_s", "wall_s", "peak_mib")
            )
        )
        for work, found in runs.items()
    }
    seconds: Fraction = duration(video)
    return {
        "video": video.name,
        "size": size(video),
        "seconds": float(seconds),
        "repeats": repeats,
        "processors": processors(),
        "load": load,
        **{work: asdict(run) for work, run in middle.items()},
        "cpu_ratio": middle["read"].cpu_s / middle["decode"].cpu_s if "decode" in middle else math.nan,
        "times_real_time": float(seconds) / middle["read"].wall_s,
        "cpu_s_per_video_min": 60 * middle["read"].cpu_s / float(seconds),
    }


def line(one: dict) -> str:
    width, height = one["size"]
    decoding = one.get("decode", {"cpu_s": math.nan, "peak_mib": math.nan})
    return (
        f"{one['video']:40} {width}x{height:<5} {one['seconds']:7.1f} s   decode {decoding['cpu_s']:7.2f} CPU-s"
        f"   read {one['read']['cpu_s']:7.2f} CPU-s   ratio {one['cpu_ratio']:5.2f}   {one['times_real_time']:6.1f} x real time"
        f" on {one['processors']} processors at load {one['load']:.1f}"
        f"   peak {one['read']['peak_mib']:5.0f} MiB (decode {decoding['peak_mib']:.0f})"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--hour", type=Path, metavar="VIDEO", help="a clip to make a 60-minute file of")
    parser.add_argument("--skip-decoding", action="store_true", help="of the 60-minute file: read only")
    parser.add_argument(
        "--joined",
        type=Path,
        nargs="?",
        const=SETS["former"],
        metavar="FOLDER",
        help="join its 1280x720 clips",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON record a line instead of the table")
    options = parser.parse_args(arguments)
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # for the runs' processes, as `tamis subtitles read` does
    videos = options.videos or ([] if options.hour or options.joined else default_videos())
    if options.joined:
        folder = ROOT / "work" / "speed"
        videos.append(joined(options.joined, folder / f"{options.joined.name}.720p.mkv"))
    if not videos and not options.hour:
        raise SystemExit("no video given, and no rendered clips: python benchmarks/subtitles_clips.py dev")
    jobs = [(video, options.repeats, BOTH) for video in videos]
    if options.hour:
        works = ("read",) if options.skip_decoding else BOTH
        jobs.append((hour_of(options.hour, ROOT / "work" / "speed"), 1, works))
    for video, repeats, works in jobs:
        one = compare(video, repeats, works)
        print(json.dumps(one) if options.json else line(one), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
