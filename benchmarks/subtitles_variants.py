"""The same subtitles in many kinds of file: python benchmarks/subtitles_variants.py CLIP.mp4 [--seconds 8] [--only NAME]

One clip of a rendered set (NAME.mp4 with NAME.truth.json) is re-encoded with the ffmpeg command line as 240 lines to 4K,
interlaced, turned, anamorphic, odd-sized, 10 bits and HDR, variable frame rate, with an edit list, cut off, ... and each
is read from the video alone. Printed for each: end-to-end accuracy in %, cues found / missed / invented, the largest error of
a start or end in frames, CPU seconds, and what the reader warned of.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from subtitles_report import Clip, clips

from tamis.errors import TamisError
from tamis.subtitles.evaluate import HEADLINE, TrueCue, Truth, score_clip
from tamis.subtitles.reader import read

X264 = ["-c:v", "libx264", "-preset", "superfast", "-crf", "20", "-threads", "1"]
PQ = ["-color_trc", "smpte2084", "-color_primaries", "bt2020", "-colorspace", "bt2020nc"]
TO_PQ = "format=yuv420p10le,lutyuv=y='(val-64)*0.58+64'"  # white at 58 % of the range, as graphics in HDR

# Name, ending, arguments between input and output.
VARIANTS: tuple[tuple[str, str, list[str]], ...] = (
    ("as it is", "mp4", ["-c", "copy"]),
    ("240 lines", "mp4", ["-vf", "scale=-2:240", *X264]),
    ("360 lines", "mp4", ["-vf", "scale=-2:360", *X264]),
    ("1080 lines", "mp4", ["-vf", "scale=-2:1080", *X264]),
    ("4K", "mp4", ["-vf", "scale=-2:2160", *X264]),
    ("odd size", "mkv", ["-vf", "scale=853:479", "-pix_fmt", "yuv444p", *X264]),
    ("anamorphic", "mp4", ["-vf", "scale=iw*3/4:ih,setsar=4/3", *X264]),
    ("turned 90", "mp4", ["-vf", "transpose=clock", *X264]),
    ("interlaced", "ts", ["-vf", "tinterlace=interleave_top,fieldorder=tff", "-flags", "+ilme+ildct", *X264]),
    ("10 bits", "mkv", ["-pix_fmt", "yuv420p10le", *X264]),
    ("HDR (PQ)", "mkv", ["-vf", TO_PQ, *X264, *PQ]),
    ("variable rate", "mkv", ["-vf", "select='not(eq(mod(n,5),3))'", "-fps_mode", "vfr", *X264]),
    ("edit list", "mp4", ["-ss", "0.7", "-c", "copy"]),
    ("transport stream", "ts", ["-c", "copy"]),
    ("AVI, MPEG-4", "avi", ["-c:v", "mpeg4", "-q:v", "3"]),
    ("WebM, VP9", "webm", ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "3M"]),
    ("cut in half", "ts", ["-c", "copy"]),
    ("audio only", "m4a", []),
)


def make(source: Path, folder: Path, ending: str, arguments: list[str], seconds: float) -> Path:
    out = folder / f"variant.{ending}"
    subprocess.run(
        ["ffmpeg", "-y", "-v", "error", "-t", str(seconds), "-i", str(source), *arguments, str(out)],
        check=True,
    )
    return out


def sound(folder: Path, seconds: float) -> Path:
    out = folder / "variant.m4a"
    tone = f"sine=duration={seconds}"
    subprocess.run(["ffmpeg", "-y", "-v", "error", "-f", "lavfi", "-i", tone, str(out)], check=True)
    return out


def turn(path: Path) -> Path:
    """The stored pictures lie on their side; the file says so, and players turn them back."""
    out = path.with_name("turned.mp4")
    said = ["-metadata:s:v:0", "rotate=90"]
    subprocess.run(
        ["ffmpeg", "-y", "-v", "error", "-i", str(path), "-c", "copy", *said, str(out)], check=True
    )
    return out


def shown(truth: Truth, seconds: float, shift: Fraction) -> Truth:
    """What of the truth is within the first seconds, on a clock that starts at `shift`."""
    cues = [
        replace(cue, start=max(Fraction(0), cue.start - shift), end=min(cue.end, Fraction(seconds)) - shift)
        for cue in truth.cues
        if cue.start < seconds - 0.2 and cue.end - shift > 0.2
    ]
    return replace(truth, cues=tuple(cues))


def run(clip: Clip, name: str, ending: str, arguments: list[str], seconds: float) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = (
            sound(folder, seconds)
            if name == "audio only"
            else make(clip.video, folder, ending, arguments, seconds)
        )
        if name == "turned 90":
            path = turn(path)
        if name == "cut in half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            seconds /= 2
        shift = Fraction(arguments[1]) if "-ss" in arguments else Fraction(0)
        before = time.process_time()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = read(path)
            except TamisError as error:
                return f"{name:18s} {error}"
        used = time.process_time() - before
        truth = shown(clip.truth, seconds, shift)
        plain = tuple(TrueCue(cue.start, cue.end, cue.text) for cue in found)
        score = score_clip(plain, truth, Fraction(seconds), name)
        worst = max((abs(e) for e in (*score.start_errors, *score.end_errors)), default=0)
        return (
            f"{name:18s} {100 * score.whole[HEADLINE].accuracy:6.1f}  cues {len(truth.cues)} -> {len(found)}"
            f"  worst time {float(worst):5.1f} frames  {used:5.1f} CPU-s  {'; '.join(str(w.message) for w in said)}"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", nargs="*", default=[""], help="variants whose names contain one of these")
    options = parser.parse_args(arguments)
    [clip] = clips(str(options.clip.parent), options.clip.stem)
    print(f"{clip.name}: {json.dumps([cue.text for cue in clip.truth.cues], ensure_ascii=False)}")
    for name, ending, how in VARIANTS:
        if any(part in name for part in options.only):
            print(run(clip, name, ending, how, options.seconds), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
