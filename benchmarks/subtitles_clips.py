"""Render the end-to-end set of subtitled clips: python benchmarks/subtitles_clips.py GROUP [-o work/clips]

Footage, sentences and faces are those of the group (`subtitles_sentences`, `subtitles_footage`); subtitles are drawn by
libass through the ffmpeg command line, never by the renderer that makes training lines. Beside each NAME.mp4 stands
NAME.truth.json:

    {"language", "tags", "rate", "size", "face", "crf", "cues": [{"start", "end", "text", "box"}]}

Times are exact fractions of a second from the presentation times of the encoded file: `start` is that of the first
visible frame, `end` that of the frame after the last visible one. In a fade, a frame counts as visible when its opacity
is at least one half. `box` is the ink with outline or box (left, top, right, bottom) in pixels. The times are not only
planned: libass's drawing alone, on grey, is compared with the plan for every frame of every clip, and a difference is
an error, as is a face or glyph that libass did not find.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from subtitles_footage import FOOTAGE, Frame, footage
from subtitles_looks import WHITE, ass_file
from subtitles_plan import BEFORE, COUNTS, MATERIAL, Clip, Planned, event, plan, texts
from subtitles_sentences import FONTS, Sentences

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TAMIS_DATA", ROOT.parent / "shared" / "data"))
SCRIPT = "cues.ass"  # in the temporary folder that ffmpeg runs in, so that no path needs escaping in a filter
X264 = ["-c:v", "libx264", "-preset", "superfast", "-threads", "1", "-pix_fmt", "yuv420p"]


def pictures(clip: Clip, data: Path, group: str) -> Iterator[Frame]:
    """The frames of a clip before its subtitles."""
    paths = [data / "backgrounds" / name for name in FOOTAGE[MATERIAL[group]]]
    for number, frame in enumerate(
        footage(clip.seed, paths, list(clip.shots), clip.drawn_size, float(clip.rate))
    ):
        if clip.stickers:
            frame = frame.copy()
            for sticker in clip.stickers:
                sticker.paste(frame, number)
        yield frame


def write_script(clip: Clip, folder: Path) -> None:
    events = [event(cue, clip.rate) for cue in clip.cues]
    text = ass_file(clip.drawn_size, clip.face, clip.em_px, clip.look, clip.margin_px, events)
    (folder / SCRIPT).write_text(text, encoding="utf-8")


def draw(clip: Clip, frames: Iterator[Frame], folder: Path) -> Path:
    """Burn the subtitles into the frames and encode them; the file's path. libass's messages go to log.txt."""
    width, height = clip.drawn_size
    chain = f"ass={SCRIPT},format=yuv420p" + (f",select='{clip.select}'" if clip.select else "")
    codec = ["-c:v", "mpeg4", "-q:v", "4", "-threads", "1"] if clip.seed % 2 else [*X264, "-crf", "23"]
    if not clip.round_trip:
        codec = [*X264, "-crf", str(clip.crf)]
    first = folder / ("first.nut" if clip.round_trip else "clip.mp4")
    command = [
        "ffmpeg", "-y", "-nostats", "-v", "info", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size",
        f"{width}x{height}", "-framerate", str(clip.rate), "-i", "-", "-filter_threads", "1", "-vf", chain,
        "-fps_mode", "vfr", "-enc_time_base", "-1", *codec, str(first),
    ]  # fmt: skip
    with (
        (folder / "log.txt").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, cwd=folder) as process,
    ):
        assert process.stdin is not None
        for frame in frames:
            process.stdin.write(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes())
        process.stdin.close()
    if process.returncode:
        raise RuntimeError(f"{clip.name}: ffmpeg failed: {(folder / 'log.txt').read_text()[-2000:]}")
    if not clip.round_trip:
        return first
    scale = f"scale={clip.size[0]}:{clip.size[1]}:flags=bicubic"
    command = [
        "ffmpeg",
        "-y",
        "-v",
        "error",
        "-threads",
        "1",
        "-i",
        str(first),
        "-vf",
        scale,
        "-filter_threads",
        "1",
    ]
    final = folder / "clip.mp4"
    subprocess.run([*command, *X264, "-crf", str(clip.crf), str(final)], check=True)
    return final


def check_face(clip: Clip, log: str) -> None:
    """libass must have found the very file that was meant, and every glyph in it."""
    face = clip.face
    # Debian has some faces under a second name, a symbolic link.
    expected = {str(path.resolve()) for path in (face.path, FONTS / (face.bold_file or face.file))}
    used = {str(Path(name).resolve()) for name in re.findall(r"fontselect: \(.*?\) -> (.+?), -?\d+, ", log)}
    if (clip.cues and (not used or not used <= expected)) or "not found" in log:
        raise RuntimeError(f"{clip.name}: libass used {sorted(used)} instead of {sorted(expected)}")


def subtitles_alone(clip: Clip, folder: Path) -> Iterator[NDArray[np.uint8]]:
    """What libass draws, on grey, as the luma of every frame [height, width]."""
    width, height = clip.drawn_size
    grey = f"color=c=gray:s={width}x{height}:r={clip.rate},format=yuv420p,ass={SCRIPT},format=gray"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        grey,
        "-frames:v",
        str(clip.frames),
        "-f",
        "rawvideo",
        "-",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder) as process:
        assert process.stdout is not None
        while len(raw := process.stdout.read(width * height)) == width * height:
            yield np.frombuffer(raw, dtype=np.uint8).reshape(height, width)


def check_times(clip: Clip, folder: Path) -> list[tuple[int, int, int, int]]:
    """Compare every frame of libass's drawing with the plan; the box of each cue's ink, in pixels of the final file."""
    ink, changed, boxes = drawn_ink(clip, folder)
    if any(cue.half_in_cs or cue.half_out_cs for cue in clip.cues):
        # Shadow and outline show through letters that fade: at half their opacity more than half of the ink may be there.
        bare = replace(clip.look, fill=WHITE, outline=0.0, shadow=0.0, box=False)
        write_script(replace(clip, look=bare), folder)
        ink, changed, _ = drawn_ink(clip, folder)
        write_script(clip, folder)
    for cue in clip.cues:
        _check_cue(clip, cue, ink, changed)
    outside = np.ones(clip.frames, dtype=bool)
    for cue in clip.cues:
        margin = 0 if not cue.half_in_cs else int(0.25 * clip.rate) + 1
        outside[max(0, cue.first - margin) : cue.last + margin] = False
    if ink[outside].any():
        raise RuntimeError(
            f"{clip.name}: something is drawn outside the cues at frame {int(np.argmax(ink * outside))}"
        )
    return boxes


def drawn_ink(
    clip: Clip, folder: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[tuple[int, int, int, int]]]:
    """How much libass draws in every frame, whether it changes there, and the box of each cue's ink."""
    background = np.int16(0)
    ink = np.zeros(clip.frames)
    changed = np.zeros(clip.frames, dtype=bool)
    boxes = {}
    middle = {(cue.first + cue.last) // 2: number for number, cue in enumerate(clip.cues)}
    before: NDArray[np.uint8] | None = None
    for number, luma in enumerate(subtitles_alone(clip, folder)):
        background = background or np.int16(luma[luma.shape[0] // 2, 0])
        changed[number] = before is not None and not np.array_equal(before, luma)
        if changed[number] or number == 0:
            ink[number] = np.abs(luma.astype(np.int16) - background).sum(dtype=np.int64)
        else:
            ink[number] = ink[number - 1]
        if number in middle:
            boxes[middle[number]] = _box(np.abs(luma.astype(np.int16) - background) > 12, clip)
        before = luma
    return ink, changed, [boxes[number] for number in range(len(clip.cues))]


def _box(mask: NDArray[np.bool_], clip: Clip) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    across, down = clip.size[0] / clip.drawn_size[0], clip.size[1] / clip.drawn_size[1]
    left, right = columns[0] * across, (columns[-1] + 1) * across
    if columns[0] == 0 or columns[-1] == mask.shape[1] - 1:
        raise RuntimeError(f"{clip.name}: a subtitle reaches beyond the picture")
    return round(left), round(rows[0] * down), round(right), round((rows[-1] + 1) * down)


def _check_cue(clip: Clip, cue: Planned, ink: NDArray[np.float64], changed: NDArray[np.bool_]) -> None:
    """The cue is drawn in all of its frames and changes only at its ends; fades pass one half there."""
    inside = slice(cue.first, cue.last)
    if cue.half_in_cs or cue.half_out_cs:
        share = ink / ink[inside].max()
        # Opacity and blending are rounded to 8 bits.
        right = share[inside].min() > 0.49 and share[cue.first - 1] < 0.51 and share[cue.last] < 0.51
    else:
        right = bool(ink[inside].min() > 0) and not changed[cue.first + 1 : cue.last].any()
        right &= cue.first == 0 or bool(changed[cue.first])
        right &= cue.last == clip.frames or bool(changed[cue.last])
    if not right:
        raise RuntimeError(f"{clip.name}: {cue} is drawn at other times: {ink[cue.first - 2 : cue.last + 2]}")


def presentation_times(path: Path) -> list[Fraction]:
    """Seconds of every frame, exact, in order of presentation."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        return sorted(Fraction(packet.pts) * packet.time_base for packet in packets)


def truth(clip: Clip, times: list[Fraction], boxes: list[tuple[int, int, int, int]]) -> dict[str, object]:
    """The record of NAME.truth.json. Raises when the encoder dropped, doubled or moved a frame."""
    off = [abs(time - kept / clip.rate) for time, kept in zip(times, clip.kept, strict=True)]
    if max(off) > Fraction(1, 1000):
        raise RuntimeError(f"{clip.name}: a frame was encoded {float(max(off)):.4f} s from its time")
    kept = np.array(clip.kept)
    cues = []
    for cue, box in zip(clip.cues, boxes, strict=True):
        first, after = int(np.searchsorted(kept, cue.first)), int(np.searchsorted(kept, cue.last))
        if after == first:
            raise RuntimeError(f"{clip.name}: no frame of {cue} was kept")
        end = times[after] if after < len(times) else times[-1] + 1 / clip.rate
        cues.append({"start": str(times[first]), "end": str(end), "text": cue.text, "box": box})
    mean = Fraction(len(times)) / (Fraction(clip.frames) / clip.rate)
    return {
        "language": clip.language,
        "tags": list(clip.tags),
        "rate": str(mean if clip.select else clip.rate),
        "size": clip.size,
        "face": clip.face.family,
        "crf": clip.crf,
        "cues": cues,
    }


def render(clip: Clip, group: str, data: Path, out: Path) -> None:
    """Write NAME.mp4 and NAME.truth.json; both appear only when complete and checked."""
    with tempfile.TemporaryDirectory(dir=out) as name:
        folder = Path(name)
        write_script(clip, folder)
        boxes = check_times(clip, folder)
        path = draw(clip, pictures(clip, data, group), folder)
        check_face(clip, (folder / "log.txt").read_text(encoding="utf-8", errors="replace"))
        record = truth(clip, presentation_times(path), boxes)
        (folder / "truth.json").write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
        path.replace(out / f"{clip.name}.mp4")
        (folder / "truth.json").replace(out / f"{clip.name}.truth.json")


def lines_before(data: Path, group: str, language: str, out: Path) -> list[str]:
    """The lines of earlier test sets, which shall not be drawn again."""
    return [line for before in BEFORE.get(group, ()) for line in lines_of(data, before, language, out)]


def lines_of(data: Path, group: str, language: str, out: Path) -> list[str]:
    """The lines of a group's clips; kept in `out`, for planning takes a while."""
    path = out / f"{group}.{language}.json"
    if not path.exists():
        used = lines_before(data, group, language, out)
        lines = texts(group, language, Sentences(data, language, MATERIAL[group], used))
        path.write_text(json.dumps(sorted(lines), ensure_ascii=False), encoding="utf-8")
    return list(json.loads(path.read_text(encoding="utf-8")))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=sorted(COUNTS))
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "work" / "clips")
    parser.add_argument("--only", default="", help="render clips whose LANGUAGE-NUMBER begins so")
    parser.add_argument("--first", type=int, help="render only so many clips of each language")
    parser.add_argument(
        "--theme", help="all clips in this theme, to look at one difficulty; say another folder, too"
    )
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    out = options.out.resolve() / options.group  # ffmpeg runs in another folder
    data = DATA / "subtitles"
    out.mkdir(parents=True, exist_ok=True)
    counts = COUNTS[options.group]

    @cache
    def sentences(language: str) -> Sentences:
        used = lines_before(data, options.group, language, options.out)
        return Sentences(data, language, MATERIAL[options.group], used)

    # Languages in turn, so that a set cut short still has all of them.
    for number in range(options.first or max(counts.values())):
        for language in [language for language, count in counts.items() if number < count]:
            done = any(out.glob(f"{language}-{number:02d}-*.truth.json"))
            if done or not f"{language}-{number:02d}".startswith(options.only):
                continue
            clip = plan(
                options.group,
                language,
                number,
                sentences("zh-hant" if language == "none" else language),
                options.theme,
            )
            render(clip, options.group, data, out)
            print(
                f"{clip.name}: {len(clip.cues)} cues, {float(clip.frames / clip.rate):.1f} s", file=sys.stderr
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
