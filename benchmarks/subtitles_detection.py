"""How well the detector finds cues, before anything is read: python benchmarks/subtitles_detection.py CLIP...

Every CLIP.mp4 has its truth beside it (.truth.json of subtitles_clips.py, or .gt.json of the real clip). A cue is found
when a candidate overlaps it in time with IoU >= 0.5 (one to one, best first). Printed per clip and in all: recall, surplus
candidates per minute, start and end errors in frames, error of the character width in percent and of the vertical
centre in percent of it, wrong polarity, and CPU time per second of video, without decoding.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from tamis.subtitles.detect import CueImage, Detector
from tamis.subtitles.video import open_video


@dataclass
class Truth:
    start: Fraction
    end: Fraction
    text: str
    box: list[int] | None = None


@dataclass
class Score:
    cues: int = 0
    found: int = 0
    surplus: int = 0
    seconds: float = 0.0
    cpu_ms: float = 0.0
    decode_ms: float = 0.0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    centres: list[float] = field(default_factory=list)
    dark: int = 0
    lines_wrong: int = 0

    def add(self, other: Score) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        def spread(values: list[float]) -> str:
            if not values:
                return "-"
            return f"{np.median(values):.2g}/{np.percentile(values, 95):.3g}"

        per_minute = self.surplus / max(1e-9, self.seconds / 60)
        return (
            f"{self.found:4d}/{self.cues:<4d} surplus {self.surplus:3d} ({per_minute:5.1f}/min) start {spread(self.starts):9s}"
            f" end {spread(self.ends):9s} scw% {spread(self.widths):9s} centre% {spread(self.centres):9s}"
            f" polarity {self.dark:2d} lines {self.lines_wrong:2d} cpu {self.cpu_ms / max(1e-9, self.seconds):5.1f}"
            f" of {self.decode_ms / max(1e-9, self.seconds):5.1f} ms/s"
        )


def read_truth(path: Path) -> tuple[list[Truth], dict]:
    record_path = path.with_suffix(".truth.json")
    if record_path.exists():
        record = json.loads(record_path.read_text(encoding="utf-8"))
        cues = record["cues"]
        return [
            Truth(Fraction(c["start"]), Fraction(c["end"]), c["text"], c.get("box")) for c in cues
        ], record
    cues = json.loads(path.with_suffix(".gt.json").read_text(encoding="utf-8"))
    return [Truth(Fraction(c["start"]), Fraction(c["end"]), c["text"]) for c in cues], {}


def overlap(a: Truth, b: CueImage) -> float:
    both = min(a.end, b.end) - max(a.start, b.start)
    return float(both / (max(a.end, b.end) - min(a.start, b.start))) if both > 0 else 0.0


def match(truth: list[Truth], found: list[CueImage]) -> list[tuple[int, int]]:
    """Pairs (cue, candidate), best overlap first."""
    pairs = sorted(
        ((overlap(t, f), i, j) for i, t in enumerate(truth) for j, f in enumerate(found)), key=lambda p: -p[0]
    )
    used_t: set[int] = set()
    used_f: set[int] = set()
    out = []
    for iou, i, j in pairs:
        if iou >= 0.5 and i not in used_t and j not in used_f and near(truth[i], found[j]):
            used_t.add(i)
            used_f.add(j)
            out.append((i, j))
    return out


def near(cue: Truth, image: CueImage) -> bool:
    """Whether a candidate shows the place of the cue (a box's middle inside)."""
    if cue.box is None:
        return True
    left, top, right, bottom = cue.box
    return any(
        min(right, line.box[2]) - max(left, line.box[0]) > 0.5 * (right - left) * 0.5
        and top - 0.3 * line.scw < (line.box[1] + line.box[3]) / 2 < bottom + 0.3 * line.scw
        for line in image.lines
    )


def design(path: Path) -> tuple[float, bool] | None:
    """(em in px of the file, dark text) of a rendered clip, from its plan."""
    sys.path.insert(0, str(Path(__file__).parent))
    from subtitles_plan import plan
    from subtitles_sentences import Sentences

    found = re.match(r"([a-z-]+)-(\d+)-", path.name)
    if found is None or found[1] == "none":
        return None
    if found[1] not in _SENTENCES:
        data = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "subtitles"
        _SENTENCES[found[1]] = Sentences(data, found[1], path.parent.name)
    clip = plan(path.parent.name, found[1], int(found[2]), _SENTENCES[found[1]])
    em = clip.em_px * clip.size[0] / clip.drawn_size[0]
    return em, sum(clip.look.fill) < 3 * 100


_SENTENCES: dict = {}


def run(path: Path, sheet: Path | None, verbose: bool) -> Score:
    truth, record = read_truth(path)
    score = Score(cues=len(truth))
    found: list[CueImage] = []
    detector = Detector()
    began = time.process_time()
    with open_video(path) as video:
        frames = 0
        for frame in video.frames():
            before = time.process_time()
            found += [candidate.image() for candidate in detector.add(frame)]
            score.cpu_ms += 1e3 * (time.process_time() - before)
            score.seconds = float(frame.time + frame.duration)
            frames += 1
        before = time.process_time()
        found += [candidate.image() for candidate in detector.finish()]
        score.cpu_ms += 1e3 * (time.process_time() - before)
    score.decode_ms = 1e3 * (time.process_time() - began) - score.cpu_ms
    rate = frames / score.seconds
    pairs = match(truth, found)
    score.found, score.surplus = len(pairs), len(found) - len(pairs)
    known = design(path) if record else None
    for i, j in pairs:
        cue, image = truth[i], found[j]
        first, last = float(image.start - cue.start) * rate, float(image.end - cue.end) * rate
        score.starts.append(abs(first))
        score.ends.append(abs(last))
        if verbose and max(abs(first), abs(last)) > 1.5:
            print(f"    time off by {first:+.1f} {last:+.1f} frames at {float(cue.start):.3f}: {cue.text!r}")
        wanted = cue.text.count("\n") + 1
        score.lines_wrong += wanted != len(image.lines)
        if verbose and wanted != len(image.lines):
            print(f"    {len(image.lines)} lines at {float(cue.start):.3f}: {cue.text!r}")
        if known:
            em, dark = known
            score.widths += [100 * abs(line.scw / em - 1) for line in image.lines]
            wrong = sum((line.polarity < 0) != dark for line in image.lines)
            score.dark += wrong
            if verbose and (wrong or any(abs(line.scw / em - 1) > 0.08 for line in image.lines)):
                widths = " ".join(f"{line.scw / em - 1:+.1%}" for line in image.lines)
                print(f"    scw {widths} polarity wrong {wrong} at {float(cue.start):.3f}: {cue.text!r}")
            if wanted == 1 == len(image.lines) and cue.box is not None and len(cue.text) > 3:
                centre = (image.lines[0].box[1] + image.lines[0].box[3]) / 2
                score.centres.append(100 * abs(centre - (cue.box[1] + cue.box[3]) / 2) / em)
    if verbose:
        for i in sorted(set(range(len(truth))) - {i for i, _ in pairs}):
            print(f"    missed {float(truth[i].start):.3f}-{float(truth[i].end):.3f} {truth[i].text!r}")
        for j in sorted(set(range(len(found))) - {j for _, j in pairs}):
            f = found[j]
            boxes = [line.box for line in f.lines]
            signs = f"c {f.contrast:.0f} s {f.share:.2f} b {f.prior:.2f}"
            print(f"    surplus {float(f.start):.3f}-{float(f.end):.3f} {boxes} {signs}")
    if sheet is not None:
        rows = []
        matched = {j: i for i, j in pairs}
        for j, image in enumerate(found):
            for line in image.lines:
                row = np.full((84, 1000), 90 if j in matched else 160, np.uint8)
                strip = line.pixels[:, :, :1000]
                row[1:41, : strip.shape[2]] = strip[0]
                row[42:82, : strip.shape[2]] = strip[1]
                rows.append(row)
        if rows:
            for page in range(0, len(rows), 24):
                cv2.imwrite(str(sheet / f"{path.stem}-{page // 24}.png"), np.vstack(rows[page : page + 24]))
    return score


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--sheets", type=Path, help="write contact sheets of all strips to this folder")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    total = Score()
    for path in options.clips:
        score = run(path, options.sheets, options.verbose)
        print(f"{path.stem:28s} {score}", flush=True)
        total.add(score)
    print(f"{'all':28s} {total}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
