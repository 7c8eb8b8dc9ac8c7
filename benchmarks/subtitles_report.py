"""What the subtitle benchmarks share: the sets of clips, one reader's answers, and the table of how right they are.

An answer is kept as OUT/NAME.json so that it can be scored again without reading the clip again:

    {"cues": [{"start": "num/den", "end": "num/den", "text"}], "cpu_s": CPU seconds of reading}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tamis.agreement import Estimate
from tamis.subtitles.evaluate import (
    FORMS,
    HEADLINE,
    ClipScore,
    Summary,
    TimedText,
    TrueCue,
    Truth,
    match,
    normalise,
    outside_unscored,
    read_truth,
    score_clip,
    summarise,
)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TAMIS_DATA", ROOT.parent / "shared" / "data")) / "subtitles"
SETS = {
    "dev": ROOT / "work" / "clips" / "dev",
    "test": ROOT / "work" / "clips" / "test",
    "former": ROOT / "work" / "clips" / "former",
    "previous": ROOT / "work" / "clips" / "previous",
    "third": ROOT / "work" / "clips" / "third",
    "real": DATA / "real_clips",
}


@dataclass(frozen=True)
class Clip:
    name: str
    video: Path
    truth: Truth


@dataclass(frozen=True)
class Answer:
    """What a reader says about a clip, and what it cost. Cues are TrueCue for want of another plain record."""

    cues: tuple[TrueCue, ...]
    cpu_s: float


def clips(name: str, only: str = "", without: str = "") -> list[Clip]:
    """The clips of a set ("dev", "test", "real") or of a folder, in order of name.

    only      those whose names contain this
    without   not those that have this tag
    """
    folder = SETS.get(name, Path(name))
    found = []
    for video in sorted(folder.glob("*.mp4")):
        truth = next((p for e in ("truth", "gt") if (p := folder / f"{video.stem}.{e}.json").exists()), None)
        if truth is not None and only in video.stem:
            found.append(Clip(video.stem, video, read_truth(truth)))
    found = [clip for clip in found if without not in clip.truth.tags]
    if not found:
        raise SystemExit(
            f"{folder} holds no clips with truth: make them with  python benchmarks/subtitles_clips.py {name}"
        )
    return found


def duration(video: Path) -> Fraction:
    """Seconds of a video file, as its container says."""
    with av.open(str(video)) as container:
        return Fraction(container.duration or 0, av.time_base)


def answer(clip: Clip, read: Callable[[Clip], Answer], folder: Path, again: bool) -> Answer:
    """The reader's answer, from `folder` when it is there already."""
    path = folder / f"{clip.name}.json"
    if path.exists() and not again:
        record = json.loads(path.read_text(encoding="utf-8"))
        cues = (TrueCue(Fraction(c["start"]), Fraction(c["end"]), c["text"]) for c in record["cues"])
        return Answer(tuple(cues), record["cpu_s"])
    found = read(clip)
    cue_records = [{"start": str(c.start), "end": str(c.end), "text": c.text} for c in found.cues]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cues": cue_records, "cpu_s": found.cpu_s}, ensure_ascii=False, indent=1))
    return found


def plain(cues: Iterable[TimedText]) -> tuple[TrueCue, ...]:
    return tuple(TrueCue(cue.start, cue.end, cue.text) for cue in cues)


def score(clip: Clip, found: Answer) -> ClipScore:
    return score_clip(found.cues, clip.truth, duration(clip.video), clip.name)


def groups(clips: Sequence[Clip], scores: Sequence[ClipScore]) -> dict[str, list[ClipScore]]:
    """Scores by language, then by difficulty (tag); "none" holds the clips without subtitles."""
    languages: dict[str, list[ClipScore]] = {}
    tags: dict[str, list[ClipScore]] = {}
    for clip, one in zip(clips, scores, strict=True):
        languages.setdefault(clip.truth.language or "real", []).append(one)
        for tag in clip.truth.tags if clip.truth.cues else ():
            tags.setdefault(f"  {tag}", []).append(one)
    return languages | dict(sorted(tags.items()))


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return f"{100 * estimate.value:6.2f}              "
    return f"{100 * estimate.value:6.2f} [{100 * estimate.low:5.1f}, {100 * estimate.high:5.1f}]"


COLUMNS = (
    f"{'group':24}{'clips':>6}{'cues':>6}  {'end to end':22}{'without punct.':22}{'characters':22}{'without punct.':22}"
    f"{'exact':>6}{'recall':>7}{'precis.':>8}{'invented':>9}{'start':>10}{'end':>10}"
)


def row(name: str, summary: Summary) -> str:
    """One line of the table: percentages with 95 % intervals over clips; times as median/p95 in frames."""
    times = [f"{t.median:.2g}/{t.p95:.2g}" if t else "-" for t in (summary.start, summary.end)]
    parts = [
        summary.end_to_end[HEADLINE],
        summary.end_to_end["without_punctuation"],
        summary.character[HEADLINE],
        summary.character["without_punctuation"],
    ]
    return (
        f"{name:24}{summary.clips:6}{summary.true_cues:6}  {'  '.join(_percent(p) for p in parts)}"
        f" {100 * summary.exact.value:6.1f} {100 * summary.recall.value:6.1f} {100 * summary.precision.value:7.1f}"
        f" {summary.invented:8}"
        f"{times[0]:>10}{times[1]:>10}"
    )


def table(clips: Sequence[Clip], scores: Sequence[ClipScore]) -> str:
    lines = [COLUMNS]
    for name, members in groups(clips, scores).items():
        lines.append(row(name, summarise(members, np.random.default_rng(1), resamples=1000)))
    return "\n".join(lines)


def as_json(clips: Sequence[Clip], scores: Sequence[ClipScore]) -> dict[str, object]:
    """The same table as plain data: every form, every interval, every clip."""
    result: dict[str, object] = {}
    for name, members in groups(clips, scores).items():
        summary = summarise(members, np.random.default_rng(1), resamples=1000)
        result[name.strip()] = {
            "clips": summary.clips,
            "cues": summary.true_cues,
            **{
                f"{measure}.{form}": _plain(getattr(summary, measure)[form])
                for measure in ("end_to_end", "character", "per_cue")
                for form in FORMS
            },
            **{name: _plain(getattr(summary, name)) for name in ("exact", "recall", "precision", "f1")},
            "invented": summary.invented,
            "invented_per_min": summary.invented_per_min,
            "start_frames": [summary.start.median, summary.start.p95] if summary.start else None,
            "end_frames": [summary.end.median, summary.end.p95] if summary.end else None,
        }
    result["per_clip"] = {one.name: one.whole[HEADLINE].accuracy for one in scores}
    return result


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    low, high = (None if math.isnan(v) else v for v in (estimate.low, estimate.high))
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n}


def differences(clip: Clip, found: Answer) -> list[str]:
    """Every cue that is wrong, missed or invented, in order of time; times that are off by more than two frames."""
    truth = [cue for cue in clip.truth.cues if cue.scored]
    kept = outside_unscored(found.cues, clip.truth.cues)
    pairs = {j: i for i, j in match(kept, truth)}
    lines: list[tuple[Fraction, str]] = []
    for j, cue in enumerate(truth):
        if j not in pairs:
            lines.append((cue.start, f"missed    {cue.text!r}"))
            continue
        other = kept[pairs[j]]
        if normalise(other.text) != normalise(cue.text):
            lines.append((cue.start, f"wrong     {cue.text!r} -> {other.text!r}"))
        rate = clip.truth.rate or Fraction(0)
        off = [(other.start - cue.start) * rate, (other.end - cue.end) * rate]
        if max(map(abs, off)) > 2:
            frames = ", ".join(f"{float(value):+.1f}" for value in off)
            lines.append((cue.start, f"time off  {cue.text!r}: start, end {frames} frames"))
    for i, other in enumerate(kept):
        if i not in pairs.values():
            lines.append((other.start, f"invented  {other.text!r} until {float(other.end):.2f}"))
    return [f"    {float(time):7.2f} s  {text}" for time, text in sorted(lines)]
