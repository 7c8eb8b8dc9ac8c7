"""How right subtitles are: characters, cues and times, as plain functions from cues to named results.

A text is compared in three forms, all after Unicode NFKC (so full-width and half-width forms are equal, and "…" is
three full stops) and without characters that nobody sees, such as word joiners and marks of direction:

    without_punctuation   letters and digits alone
    with_punctuation      everything that has ink; spaces and line breaks are left out      (the headline form)
    with_spaces           as printed: every run of spaces or line breaks is one space

Cues are matched to true cues by time alone, one to one, at an intersection over union of at least one half. Intervals
resample clips, which are independent of each other as the cues inside one are not (`tamis.agreement`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np

from tamis.agreement import Detections, Estimate, accuracy, bootstrap, edit_distance
from tamis.errors import InputError

FORMS = ("without_punctuation", "with_punctuation", "with_spaces")
HEADLINE = "with_punctuation"
MIN_IOU = Fraction(1, 2)


class TimedText(Protocol):
    """Anything with exact times in seconds and a text: a `Cue`, a `TrueCue`, a line of a subtitle file."""

    @property
    def start(self) -> Fraction: ...
    @property
    def end(self) -> Fraction: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class TrueCue:
    """One subtitle as it is. `scored` is False where the picture does not show enough to say what is right."""

    start: Fraction
    end: Fraction
    text: str
    scored: bool = True


@dataclass(frozen=True, slots=True)
class Truth:
    """What one clip says. `rate` in frames a second, or None when the times are too rough to be scored."""

    cues: tuple[TrueCue, ...]
    rate: Fraction | None
    language: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edits:
    """Edit distance and length of the truth in characters; they add up over cues and clips."""

    distance: int
    length: int

    @property
    def accuracy(self) -> float:
        """1 - distance / length, at least 0."""
        return accuracy(self.distance, self.length)

    def __add__(self, other: Edits) -> Edits:
        return Edits(self.distance + other.distance, self.length + other.length)


@dataclass(frozen=True, slots=True)
class ClipScore:
    """The score of one clip; mappings have one entry for each of `FORMS`.

    whole          edits of the whole clip's text: all cues in order of time, joined. Missed and invented cues count.
    per_cue        for each scored true cue, edits of the cue matched to it, or of nothing when it was missed
    exact          scored true cues whose text is right to the last mark (with punctuation, without spaces)
    cues           matched, invented and missed cues
    start_errors   |found - true| in frames for each matched cue, empty when times are not scored; `end_errors` too
    duration_s     length of the clip, for rates a minute
    """

    name: str
    whole: Mapping[str, Edits]
    per_cue: Mapping[str, tuple[Edits, ...]]
    exact: int
    cues: Detections
    start_errors: tuple[float, ...]
    end_errors: tuple[float, ...]
    duration_s: Fraction


@dataclass(frozen=True, slots=True)
class Timing:
    """Absolute errors in frames over matched cues; `n` cues."""

    median: float
    p95: float
    n: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The score of a set of clips. Every `Estimate` has its interval over clips and n clips.

    end_to_end   mean over clips of the accuracy of the whole clip's text
    character    accuracy over all characters of the true cues (micro), missed cues counted, invented ones not
    per_cue      mean over true cues of their accuracy (macro)
    exact        share of true cues that are right to the last mark
    """

    clips: int
    true_cues: int
    end_to_end: Mapping[str, Estimate]
    character: Mapping[str, Estimate]
    per_cue: Mapping[str, Estimate]
    exact: Estimate
    recall: Estimate
    precision: Estimate
    f1: Estimate
    invented: int
    invented_per_min: float
    start: Timing | None
    end: Timing | None


def normalise(text: str, form: str = HEADLINE) -> str:
    """The text as it is compared in one of `FORMS`.

    >>> normalise("５點　走吧……\\n好！", "with_spaces")
    '5點 走吧...... 好!'
    >>> normalise("５點　走吧……\\n好！", "without_punctuation")
    '5點走吧好'
    """
    text = unicodedata.normalize("NFKC", "".join(c for c in text if _is_visible(c)))
    text = re.sub(r"\s+", " ", text).strip()
    if form == "with_spaces":
        return text
    if form == "with_punctuation":
        return text.replace(" ", "")
    if form == "without_punctuation":
        # Marks (category M) stay: they are parts of letters, such as the voicing of kana.
        return "".join(c for c in text if unicodedata.category(c)[0] in "LNM")
    raise ValueError(f"a text form is one of {', '.join(FORMS)}, not {form!r}")


_INVISIBLE = re.compile("[\u034f\u115f\u1160\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Besides category Cf: the grapheme joiner, fillers of Hangul, and selectors of another drawing of the same character."""


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) != "Cf" and not _INVISIBLE.match(character)


def edits(found: str, truth: str, form: str = HEADLINE) -> Edits:
    """Edit distance of two texts in a form, and the length of the true one."""
    wanted = normalise(truth, form)
    return Edits(edit_distance(normalise(found, form), wanted), len(wanted))


def overlap(a: TimedText, b: TimedText) -> Fraction:
    """Intersection over union of two times, 0 to 1; touching times do not overlap."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    if shared <= 0:
        return Fraction(0)
    return shared / (max(a.end, b.end) - min(a.start, b.start))


def match(
    found: Sequence[TimedText], truth: Sequence[TimedText], min_iou: Fraction = MIN_IOU
) -> list[tuple[int, int]]:
    """Pairs (index found, index true), one to one, of cues whose times overlap by `min_iou` or more.

    Best overlap first. Two cues on screen at the same time (above and below) tie, and then the likelier text decides.
    """
    candidates = []
    for j, true in enumerate(truth):
        for i, cue in enumerate(found):
            iou = overlap(cue, true)
            if iou >= min_iou:
                candidates.append((-iou, edits(cue.text, true.text).distance, j, i))
    pairs: list[tuple[int, int]] = []
    used_found: set[int] = set()
    used_true: set[int] = set()
    for _, _, j, i in sorted(candidates):
        if i not in used_found and j not in used_true:
            used_found.add(i)
            used_true.add(j)
            pairs.append((i, j))
    return sorted(pairs, key=lambda pair: pair[1])


def outside_unscored(found: Sequence[TimedText], truth: Sequence[TrueCue]) -> list[TimedText]:
    """Found cues without those that lie, by half of their time or more, in true cues that are not scored.

    What matches a scored cue better stays: both may be on the screen at the same time.
    """
    scored = {i for i, j in match(found, truth) if truth[j].scored}

    def inside(cue: TimedText) -> Fraction:
        spans = [min(cue.end, t.end) - max(cue.start, t.start) for t in truth if not t.scored]
        return sum((span for span in spans if span > 0), Fraction(0))

    return [
        cue
        for i, cue in enumerate(found)
        if i in scored or 2 * inside(cue) < cue.end - cue.start or inside(cue) == 0
    ]


def joined(cues: Iterable[TimedText]) -> str:
    """The text of a clip: its cues in order of time, each on a line of its own."""
    return "\n".join(cue.text for cue in sorted(cues, key=lambda cue: (cue.start, cue.end)))


def score_clip(found: Sequence[TimedText], truth: Truth, duration_s: Fraction, name: str = "") -> ClipScore:
    """Compare the cues found in a clip with the truth."""
    wanted = [cue for cue in truth.cues if cue.scored]
    kept = outside_unscored(found, truth.cues)
    pairs = match(kept, wanted)
    text_of = {j: kept[i].text for i, j in pairs}
    per_cue = {
        form: tuple(edits(text_of.get(j, ""), cue.text, form) for j, cue in enumerate(wanted))
        for form in FORMS
    }
    exact = sum(1 for j in text_of if per_cue[HEADLINE][j].distance == 0)
    rate = truth.rate or Fraction(0)
    timed = pairs if truth.rate else []
    return ClipScore(
        name=name,
        whole=MappingProxyType({form: edits(joined(kept), joined(wanted), form) for form in FORMS}),
        per_cue=MappingProxyType(per_cue),
        exact=exact,
        cues=Detections(len(pairs), len(kept) - len(pairs), len(wanted) - len(pairs)),
        start_errors=tuple(float(abs(kept[i].start - wanted[j].start) * rate) for i, j in timed),
        end_errors=tuple(float(abs(kept[i].end - wanted[j].end) * rate) for i, j in timed),
        duration_s=duration_s,
    )


def timing(errors: Iterable[float]) -> Timing | None:
    """Median and 95th percentile (linear between neighbours), or None without any."""
    values = np.array(list(errors), dtype=np.float64)
    if len(values) == 0:
        return None
    return Timing(float(np.median(values)), float(np.percentile(values, 95)), len(values))


def summarise(scores: Sequence[ClipScore], generator: np.random.Generator, resamples: int = 2000) -> Summary:
    """The score of a set of clips, with 95 % intervals over clips. No clips at all raise ValueError."""

    def estimate(statistic: Callable[[Sequence[ClipScore]], float]) -> Estimate:
        return bootstrap(scores, statistic, generator=generator, resamples=resamples)

    def each_form(statistic: Callable[..., float]) -> Mapping[str, Estimate]:
        return MappingProxyType({form: estimate(partial(statistic, form=form)) for form in FORMS})

    found = sum((score.cues for score in scores), Detections(0, 0, 0))
    minutes = float(sum((score.duration_s for score in scores), Fraction(0))) / 60
    return Summary(
        clips=len(scores),
        true_cues=_count(scores),
        end_to_end=each_form(_mean_end_to_end),
        character=each_form(_micro),
        per_cue=each_form(_macro),
        exact=estimate(lambda clips: _share(sum(clip.exact for clip in clips), _count(clips))),
        recall=estimate(lambda clips: _detections(clips).recall),
        precision=estimate(lambda clips: _detections(clips).precision),
        f1=estimate(lambda clips: _detections(clips).f1),
        invented=found.false_positives,
        invented_per_min=found.false_positives / minutes if minutes else 0.0,
        start=timing(error for score in scores for error in score.start_errors),
        end=timing(error for score in scores for error in score.end_errors),
    )


def _count(clips: Sequence[ClipScore]) -> int:
    return sum(len(clip.per_cue[HEADLINE]) for clip in clips)


def _detections(clips: Sequence[ClipScore]) -> Detections:
    return Detections(
        sum(clip.cues.true_positives for clip in clips),
        sum(clip.cues.false_positives for clip in clips),
        sum(clip.cues.false_negatives for clip in clips),
    )


def _mean_end_to_end(clips: Sequence[ClipScore], form: str) -> float:
    return sum(clip.whole[form].accuracy for clip in clips) / len(clips)


def _micro(clips: Sequence[ClipScore], form: str) -> float:
    distance = sum(edit.distance for clip in clips for edit in clip.per_cue[form])
    return accuracy(distance, sum(edit.length for clip in clips for edit in clip.per_cue[form]))


def _macro(clips: Sequence[ClipScore], form: str) -> float:
    # A cue of marks alone has no length without punctuation: nothing in it can be right or wrong.
    values = [edit.accuracy for clip in clips for edit in clip.per_cue[form] if edit.length]
    return sum(values) / len(values) if values else 1.0


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def read_truth(path: Path) -> Truth:
    """The truth beside a clip: NAME.truth.json of the rendered clips, or NAME.gt.json of the real ones.

    NAME.truth.json    {"language", "tags", "rate", "cues": [{"start", "end", "text"}]}, times and rate exact fractions
    NAME.gt.json       [{"start", "end", "text", "edge_cropped"}], times in seconds too rough to be scored; cues whose
                       letters are cut by the edge of the picture are not scored

    Raises `InputError` when it is neither.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no readable JSON ({error}); expected a truth file of subtitles."
        ) from error
    try:
        if isinstance(record, list):
            return Truth(tuple(_true_cue(cue) for cue in record), rate=None)
        cues = tuple(_true_cue(cue) for cue in record["cues"])
        rate = Fraction(record["rate"])
        if rate <= 0:
            raise ValueError(f"the rate {record['rate']!r}, which is not above 0")
        return Truth(cues, rate, str(record["language"]), tuple(record["tags"]))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} lacks or garbles {error}: expected a list of cues, or rate, language, tags and cues; "
            "see tamis.subtitles.evaluate.read_truth."
        ) from error


def _true_cue(record: Mapping[str, object]) -> TrueCue:
    # Through str, so that 10.25 and "41/4" are both exact.
    start, end = Fraction(str(record["start"])), Fraction(str(record["end"]))
    return TrueCue(start, end, str(record["text"]), scored=not record.get("edge_cropped", False))
