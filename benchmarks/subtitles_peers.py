"""Tamis, PP-OCRv6 small and Tesseract 5 on the same clips: python benchmarks/subtitles_peers.py dev|test [--only ...]

The peers need an environment of their own (PP-OCR's models are in the wheel; Tesseract's come from apt):

    python -m venv work/peers-venv && work/peers-venv/bin/pip install rapidocr==3.10.0 onnxruntime
    apt-get install tesseract-ocr tesseract-ocr-chi-sim tesseract-ocr-chi-tra tesseract-ocr-jpn tesseract-ocr-kor

Clip after clip, every reader in turn. Both peers read four frames a second (subtitles_peers_ocr.py); their text becomes
cues in two ways: as their users do it (confidence 0.5, similarity 0.8), and tuned (0.7, 0.7, at least two frames, times
in the middle between samples, text that stays in place for most of the clip removed). Printed: the table of
subtitles_accuracy.py for each, CPU seconds a video minute, and the ratio to PP-OCR's. What was read is kept and only
grouped again on the next run, unless --again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from subtitles_accuracy import read_clip
from subtitles_report import ROOT, Answer, Clip, answer, as_json, clips, duration, score, table

from tamis.agreement import edit_accuracy
from tamis.subtitles.evaluate import TrueCue, normalise

ENGINES = ("ppocr", "tesseract")
PYTHON = ROOT / "work" / "peers-venv" / "bin" / "python"


@dataclass(frozen=True)
class Grouping:
    """How the texts of sampled frames become cues."""

    confidence: float
    similarity: float
    least_frames: int = 1
    midpoints: bool = False
    drop_static: bool = False


GROUPINGS = {"as used": Grouping(0.5, 0.8), "tuned": Grouping(0.7, 0.7, 2, midpoints=True, drop_static=True)}
# Text counts as static when it stands in one place in more than this share of the sampled frames.
STATIC_SHARE = 0.6


@dataclass(frozen=True)
class Seen:
    """A line of text in a sampled frame; box (left, top, right, bottom) in pixels."""

    text: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    time: Fraction
    lines: tuple[Seen, ...]


def similar(a: str, b: str) -> float:
    """1 - edit distance / the longer length."""
    a, b = sorted((normalise(a), normalise(b)), key=len)
    return edit_accuracy(a, b)


def same_place(a: Seen, b: Seen) -> bool:
    """Boxes whose centres lie within half a line height of each other."""
    height = min(a.box[3] - a.box[1], b.box[3] - b.box[1])
    across = abs(a.box[0] + a.box[2] - b.box[0] - b.box[2]) / 2
    down = abs(a.box[1] + a.box[3] - b.box[1] - b.box[3]) / 2
    return max(across, down) <= height / 2


def without_static(samples: Sequence[Sample], similarity: float) -> list[Sample]:
    """The samples without logos: text alike in the same place in most samples."""
    kinds: list[tuple[Seen, int]] = []
    for sample in samples:
        for line in sample.lines:
            for k, (first, count) in enumerate(kinds):
                if same_place(first, line) and similar(first.text, line.text) >= similarity:
                    kinds[k] = (first, count + 1)
                    break
            else:
                kinds.append((line, 1))
    static = [kind for kind, count in kinds if count > STATIC_SHARE * len(samples)]

    def moves(line: Seen) -> bool:
        return not any(same_place(s, line) and similar(s.text, line.text) >= similarity for s in static)

    return [Sample(s.time, tuple(line for line in s.lines if moves(line))) for s in samples]


def frame_text(lines: Sequence[Seen]) -> str:
    """The lines as one text: rows from the top, each from the left; boxes whose middles lie within a row share it."""
    rows: list[list[Seen]] = []
    for line in sorted(lines, key=lambda seen: seen.box[1] + seen.box[3]):
        middle = (line.box[1] + line.box[3]) / 2
        if rows and rows[-1][0].box[1] <= middle <= rows[-1][0].box[3]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return "\n".join(
        " ".join(seen.text for seen in sorted(row, key=lambda seen: seen.box[0])) for row in rows
    )


def group(samples: Sequence[Sample], interval: Fraction, how: Grouping) -> list[TrueCue]:
    """Runs of samples with similar text, as cues; of several readings the most frequent, then the surest."""
    kept = [Sample(s.time, tuple(line for line in s.lines if line.score >= how.confidence)) for s in samples]
    if how.drop_static:
        kept = without_static(kept, how.similarity)
    runs: list[list[tuple[Fraction, str, float]]] = []
    last = ""
    for sample in kept:
        text = frame_text(sample.lines)
        if text:
            sureness = sum(line.score for line in sample.lines) / len(sample.lines)
            if last and similar(last, text) >= how.similarity:
                runs[-1].append((sample.time, text, sureness))
            else:
                runs.append([(sample.time, text, sureness)])
        last = text
    early = interval / 2 if how.midpoints else Fraction(0)
    cues = []
    for run in runs:
        if len(run) < how.least_frames:
            continue
        counts = Counter(text for _, text, _ in run)
        text = max(run, key=lambda entry: (counts[entry[1]], entry[2]))[1]
        cues.append(TrueCue(max(Fraction(0), run[0][0] - early), run[-1][0] + interval - early, text))
    return cues


def samples_of(record: dict) -> list[Sample]:
    return [
        Sample(
            Fraction(frame["time_s"]).limit_denominator(100_000),
            tuple(Seen(line["text"], line["score"], tuple(line["box"])) for line in frame["lines"]),
        )
        for frame in record["frames"]
    ]


def peer_record(clip: Clip, engine: str, side: int, folder: Path, again: bool) -> dict:
    """What the peer's OCR says about the sampled frames of a clip, read now or before."""
    kind = f"{engine}-{side}" if engine == "ppocr" else engine
    path = folder / kind / clip.video.parent.name / f"{clip.name}.json"
    if again or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        program = str(Path(__file__).with_name("subtitles_peers_ocr.py"))
        language = ["--language", clip.truth.language] if clip.truth.language else []
        command = [str(PYTHON), program, engine, str(clip.video), str(path), "--side", str(side), *language]
        subprocess.run(command, check=True)
    return json.loads(path.read_text(encoding="utf-8"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="dev, test, real, or a folder of clips with truth")
    parser.add_argument("--only", default="", help="clips whose name contains this")
    parser.add_argument("--without", default="", help="leave out clips with this tag")
    parser.add_argument("--every", type=int, default=1, help="every so many clips, for a sample of the set")
    parser.add_argument("--readers", default="tamis,ppocr,tesseract")
    parser.add_argument("--side", type=int, default=1280, help="longest side that PP-OCR's detector sees")
    parser.add_argument("--answers", type=Path, default=ROOT / "work" / "answers")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    readers = options.readers.split(",")
    chosen = clips(options.set, options.only, options.without)[:: options.every]
    found: dict[str, list[Answer]] = {}
    for clip in chosen:
        if "tamis" in readers:
            folder = options.answers / "tamis" / clip.video.parent.name
            one = answer(clip, lambda c: read_clip(c, tell_language=False), folder, options.again)
            found.setdefault("tamis", []).append(one)
        for engine in [reader for reader in readers if reader in ENGINES]:
            record = peer_record(clip, engine, options.side, options.answers, options.again)
            interval = Fraction(record["interval_s"])
            for name, how in GROUPINGS.items():
                cues = tuple(group(samples_of(record), interval, how))
                found.setdefault(f"{engine}, {name}", []).append(Answer(cues, record["cpu_s"]))
        print(f"{clip.name} read", file=sys.stderr)
    minutes = float(sum(duration(clip.video) for clip in chosen)) / 60
    result = {}
    for reader, answers in found.items():
        scores = [score(clip, one) for clip, one in zip(chosen, answers, strict=True)]
        cost = sum(one.cpu_s for one in answers) / minutes
        print(f"\n{reader}: {cost:.1f} CPU-s a video minute\n{table(chosen, scores)}")
        result[reader] = {"cpu_s_per_video_min": cost, "groups": as_json(chosen, scores)}
    if "tamis" in result and "ppocr, tuned" in result:
        ratio = result["tamis"]["cpu_s_per_video_min"] / result["ppocr, tuned"]["cpu_s_per_video_min"]
        print(f"\ntamis takes {ratio:.3f} of the CPU seconds of ppocr")
    if options.json:
        options.json.write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
