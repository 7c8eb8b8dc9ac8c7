"""Compare subtitle files with the truth: `tamis subtitles evaluate`. The measures themselves are in evaluate.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tamis.agreement import Estimate
from tamis.errors import InputError, UsageError
from tamis.subtitles import formats
from tamis.subtitles.evaluate import Summary, TrueCue, Truth, read_truth, score_clip, summarise

TRUTH_ENDINGS = (".gt.json", ".truth.json")
"""Of what `read_truth` reads, and `formats.parse` does not."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The score, and what its timing errors count: "frames", or "ms" where no rate is known."""

    score: Summary
    time_unit: str


def compare(hypotheses: Path, truth: Path, rate: Fraction | None = None) -> Comparison:
    """The score of a subtitle file against another, or of a folder of them against a folder with the same names.

    rate  frames a second, for truth that does not state it (only NAME.truth.json does)

    Raises UsageError or InputError when the files do not pair up, InputError when one cannot be read.
    """
    scores, units = [], set()
    for found_path, true_path in _pairs(hypotheses, truth):
        found, wanted = formats.parse(found_path), _truth(true_path)
        if wanted.rate is None and not true_path.name.endswith(".gt.json"):
            wanted = replace(wanted, rate=rate or Fraction(1000))
        if wanted.rate is not None:
            units.add("ms" if wanted.rate == 1000 else "frames")
        ends = [cue.end for cue in found] + [cue.end for cue in wanted.cues]
        scores.append(score_clip(found, wanted, max(ends, default=Fraction(0)), found_path.stem))
    if len(units) > 1:
        raise UsageError(f"Some files in {truth} state their frame rate and some do not: add --rate.")
    score = summarise(scores, np.random.default_rng(0))  # seeded: repeatable
    return Comparison(score if score.true_cues else _without_truth(score), units.pop() if units else "ms")


def _without_truth(score: Summary) -> Summary:
    """Where there is no true cue, shares of them are no numbers. (A clip without subtitles among others counts nothing.)"""
    none = Estimate(math.nan, math.nan, math.nan, score.clips)
    forms = dict.fromkeys(score.character, none)
    return replace(score, character=forms, per_cue=forms, exact=none, recall=none)


def _pairs(hypotheses: Path, truth: Path) -> list[tuple[Path, Path]]:
    """Files to compare: two files, or those of the same stem in two folders. Every true file needs its hypothesis."""
    if not hypotheses.is_dir() and not truth.is_dir():
        return [_two_files(hypotheses, truth)]
    if not (hypotheses.is_dir() and truth.is_dir()):
        raise UsageError(f"{hypotheses} and {truth} must be two files or two folders.")
    wanted, found = _by_stem(truth, marked=True), _by_stem(hypotheses, marked=False)
    if not wanted:
        raise UsageError(f"{truth} holds no file that ends in {', '.join(formats.ENDINGS)}.")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputError(
            f"{hypotheses} lacks {len(missing)} of the {len(wanted)} files that {truth} has, first {missing[0]}: "
            "read those videos first, or take their truth away."
        )
    return [_two_files(found[stem], wanted[stem]) for stem in sorted(wanted)]


def _two_files(hypothesis: Path, truth: Path) -> tuple[Path, Path]:
    """Raises UsageError for a file beside itself, which would be right in everything."""
    if hypothesis.exists() and truth.exists() and hypothesis.samefile(truth):
        raise UsageError(
            f"{hypothesis} was found both as what was read and as the truth: give what was read first and its truth "
            "second; in one folder, name truth NAME.gt.srt or NAME.truth.json."
        )
    return hypothesis, truth


def _by_stem(folder: Path, *, marked: bool) -> dict[str, Path]:
    """NAME.srt, NAME.gt.srt and NAME.truth.json are all about NAME.

    marked  whether names that say truth come before those that do not; both may lie in one folder. After that the JSON,
            which knows more, comes before others.
    """
    files = [path for path in folder.iterdir() if path.suffix.lower() in formats.ENDINGS]
    if not marked:
        files = [path for path in files if not path.name.endswith(TRUTH_ENDINGS)]
    files.sort(key=lambda path: (_says_truth(path) is marked, path.suffix.lower() == ".json", path.name))
    return {path.stem.removesuffix(".gt").removesuffix(".truth"): path for path in files}


def _says_truth(path: Path) -> bool:
    return path.stem.endswith((".gt", ".truth"))


def _truth(path: Path) -> Truth:
    """A truth file, or any subtitle file taken as the truth."""
    if path.name.endswith(TRUTH_ENDINGS):
        return read_truth(path)
    return Truth(tuple(TrueCue(cue.start, cue.end, cue.text) for cue in formats.parse(path)), rate=None)


def report(comparison: Comparison) -> list[str]:
    """The score as lines for a person."""
    score, unit = comparison.score, comparison.time_unit
    lines = [
        f"{score.clips} file{'s' * (score.clips != 1)}, {score.true_cues} true cues, {score.invented} invented"
    ]
    rows = {
        "end to end, with punctuation": score.end_to_end["with_punctuation"],
        "end to end, without": score.end_to_end["without_punctuation"],
        "characters, with punctuation": score.character["with_punctuation"],
        "characters, without": score.character["without_punctuation"],
        "cues right to the last mark": score.exact,
        "cue F1": score.f1,
    }
    for name, row in rows.items():
        if math.isnan(row.value):
            lines.append(f"{name:<30}{'-':>8}")
            continue
        interval = "" if math.isnan(row.low) else f"  ({row.low:.2%} to {row.high:.2%}, n = {row.n})"
        lines.append(f"{name:<30}{row.value:8.2%}{interval}")
    for name, errors in {"start error": score.start, "end error": score.end}.items():
        if errors is not None:
            lines.append(
                f"{name:<30}{errors.median:8.1f} {unit}, 95th percentile {errors.p95:.1f} (n = {errors.n})"
            )
    return lines


def plain(value: Any) -> Any:
    """Records as JSON values; what is not a number is null."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
