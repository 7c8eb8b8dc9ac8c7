"""Where and when there are subtitles: frames in, pictures of cues out.

    frames -> working pictures (8 a second) -> strokes that stand -> line-shaped groups that appear together
           -> tracks -> lines with exact first and last frame -> cues -> merged, upright, bright strips of EM px a character

Nobody says where the subtitles are. A line is found because its strokes appear in one instant, stand still, and vanish
in one instant, whatever the picture behind does (the paper's idea: the sequence of frames shows text boundaries and
character width; see strokes.py, lines.py, track.py, tracker.py, cwt.py). Left and right ends are generous here: the
character networks decide them.

Memory is constant and every frame is looked at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from statistics import median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster
from tamis.subtitles.cue import Box
from tamis.subtitles.cwt import Fit, Measure, Scale, measure_line
from tamis.subtitles.ink import Inked, find_ink, inside_frame, same_text, steps
from tamis.subtitles.merge import Merged, cut_strip, mean_picture, merge
from tamis.subtitles.reel import Reel, Shot, Spare
from tamis.subtitles.strokes import reduce
from tamis.subtitles.track import Contrast, Ended, Points
from tamis.subtitles.tracker import Tracker

Plane = NDArray[np.uint8]

# A sample is taken when this much time has passed: every third frame at 24, 25 and 30 frames/s, so that a cue of 0.3 s
# has at least two. The odd value leaves room for time stamps rounded to milliseconds.
SAMPLE_S = Fraction(97, 1000)
MOST_ROWS = 1200  # taller frames are halved: text is large enough then
SHORTEST_S, LONGEST_S = Fraction(1, 6), Fraction(20)  # what stands longer is a sign or a logo
FAINTEST = 22  # mean brightness step of a text's strokes; measured: 50 and more
LOWEST = 8  # px of the working picture
PATIENCE = 3  # samples to wait for other lines of the same cue
SAME_TIME = 2 * SAMPLE_S
TORN_S = Fraction(1, 11)  # between the parts of a torn cue; two frames
MARGIN = 1.5  # SCW that a strip reaches beyond the ink
# Candidates with the same first and last frame; more are the drawing of a scene between two cuts.
MOST_TOGETHER = 3
HELD_CUES = 48  # cues held back until the clip's character width and rows are known


class FrameLike(Protocol):
    """What is needed of `tamis.subtitles.video.Frame`."""

    @property
    def time(self) -> Fraction: ...
    @property
    def duration(self) -> Fraction: ...
    @property
    def luma(self) -> Plane: ...


@dataclass(frozen=True)
class LineImage:
    """One line, ready to be read.

    strip     cuts out `pixels`, when they are first asked for: not all that is offered is looked at
    box       frame px that `pixels` covers
    scw       width of one character (em) in frame px
    polarity  +1 bright text, -1 dark text
    cut       (down, scale) -> the line as it is if it stands `down` SCW lower and is `scale` times as large
    turned    the line as it is if its polarity is the other one
    """

    strip: Callable[[], Plane]
    box: Box
    scw: float
    polarity: int
    cut: Callable[[float, float], LineImage]
    turned: Callable[[], LineImage]

    @cached_property
    def pixels(self) -> Plane:
        """uint8 [2, 40, W]: mean and minimum over the cue's frames, text bright; one character width is 32 px."""
        return self.strip()


@dataclass(frozen=True, slots=True)
class CueImage:
    """One candidate cue. Visible from `start` until just before `end`.

    lines     top to bottom
    others    lines that may stand there instead, where the rows are in doubt; they overlap `lines` and each other
    picture   uint8 [h, w], the mean frame around all lines
    contrast  mean brightness step of its strokes
    share     of its stroke points that stood, median over its samples
    prior     contrast just before the start, as a share: near 0 for text that appears
    width     of the frame, px
    """

    start: Fraction
    end: Fraction
    lines: tuple[LineImage, ...]
    others: tuple[LineImage, ...]
    picture: Plane
    contrast: float
    share: float
    prior: float
    width: int


def nothing_known() -> Sequence[float]:
    return ()


def detect(
    frames: Iterable[FrameLike],
    *,
    region: Box | None = None,
    merged: bool = True,
    known: Callable[[], Sequence[float]] = nothing_known,
) -> Iterator[CueImage]:
    """Candidate cues, about in order of their end.

    region: (left, top, right, bottom) in frame px, outside of which nothing is looked at.
    merged: make lines of all frames of a cue, not of its middle one only (which is there for comparison).
    known: the widths of a character, px, in which whoever takes the cues has read some clearly: a drawing gives lines of other
    widths, more than the text has.
    """
    detector = Detector(region, merged=merged)
    for frame in frames:
        yield from _cut_out(detector.add(frame), known)
    yield from _cut_out(detector.finish(), known)


def _cut_out(candidates: list[Candidate], known: Callable[[], Sequence[float]]) -> Iterator[CueImage]:
    """All that were found at once are cut out by what was known before."""
    widths = known() if candidates else ()
    for candidate in candidates:
        yield candidate.image(widths)


@dataclass(frozen=True, slots=True)
class _Line:
    """A measured line that waits for the clip's scale. `measure` is in px of `merged`."""

    merged: Merged
    measure: Measure
    vote: float


@dataclass(frozen=True, slots=True)
class _Held:
    start: Fraction
    end: Fraction
    lines: tuple[_Line, ...]
    ended: Ended
    picture: Plane


class Detector:
    """The state between frames."""

    def __init__(self, region: Box | None = None, *, merged: bool = True) -> None:
        self._region = region
        self._merged = merged
        self._reel = Reel()
        self._spare = Spare()
        self._tracker = Tracker(self._reel)
        self._scale: Scale | None = None
        self._ended: list[Ended] = []
        self._held: list[_Held] = []
        self._seen: deque[tuple[Fraction, Box]] = deque(
            maxlen=HELD_CUES
        )  # ends and boxes of the lines before
        self._votes: deque[float] = deque(maxlen=64)  # for the polarity of the clip's text
        self._sampled: Fraction | None = None
        self._first = Fraction(0)
        self._until = Fraction(0)
        self._zoom = 1  # frame px per px of the (perhaps halved) frames that are kept
        self._width = 0
        self._shape = (0, 0)
        self._working = (0, 0)

    def add(self, frame: FrameLike) -> list[Candidate]:
        """Takes the next frame; returns the candidates that are complete."""
        self._width = frame.luma.shape[1]
        luma = self._prepare(frame.luma)
        if self._sampled is None:
            self._first = frame.time
        due = self._sampled is None or frame.time - self._sampled >= SAMPLE_S
        self._until = frame.time + frame.duration
        if not due:
            self._reel.add(Shot(frame.time, self._until, luma, self._tracker.sample), False)
            return []
        self._sampled = frame.time
        kept = self._spare.take(luma.shape)
        picture = reduce(luma, copy=kept)
        luma = kept
        self._reel.add(Shot(frame.time, self._until, luma, self._tracker.sample + 1), True)
        self._shape, self._working = luma.shape, picture.shape
        self._ended += self._tracker.observe(picture)
        if frame.duration >= 2 * SAMPLE_S:  # shown long: two samples of the same picture
            self._ended += self._tracker.observe(picture)
        self._collect(self._tracker.sample - PATIENCE)
        return self._release(HELD_CUES)

    def finish(self) -> list[Candidate]:
        """The remaining candidates, after the last frame."""
        self._ended += self._tracker.finish(self._until)
        self._collect(self._tracker.sample)
        return self._release(0)

    def _prepare(self, luma: Plane) -> Plane:
        if self._region is not None:
            left, top, right, bottom = self._region
            luma = luma[max(0, top) : bottom, max(0, left) : right]
        if luma.shape[0] > MOST_ROWS:
            self._zoom = 2
            luma = raster.shrink(luma, (luma.shape[1] // 2, luma.shape[0] // 2))
        return luma

    # -- lines to cues ---------------------------------------------------------------------------------------------

    def _collect(self, sample: int) -> None:
        """Makes cues of the lines that ended at `sample` or before, with those that ended just after."""
        self._ended = [line for line in self._ended if self._plausible(line)]
        self._seen.extend((line.end, line.points.box()) for line in self._ended)
        while ready := [line for line in self._ended if line.sample <= sample]:
            group = [line for line in self._ended if _together(ready[0], line)]
            self._ended = [line for line in self._ended if line not in group]
            stacks = sorted(_stacks(_rejoin(group)), key=lambda lines: -sum(map(_weight, lines)))
            for lines in stacks[:MOST_TOGETHER]:
                held = self._measure(lines)
                if held is not None:
                    self._hold(held)

    def _hold(self, held: _Held) -> None:
        """Keeps a cue until it is released, joined to the one before when that is the same text, torn in two where the
        ground changed so much that its edges turned."""
        for i, before in enumerate(self._held):
            first, second = sorted((before, held), key=lambda part: part.start)
            if _torn(first, second):
                longer = max(first, second, key=lambda part: part.end - part.start)
                self._held[i] = _Held(first.start, second.end, longer.lines, first.ended, longer.picture)
                return
        self._held.append(held)

    def _plausible(self, line: Ended) -> bool:
        if not SHORTEST_S <= line.end - line.start <= LONGEST_S:
            return False
        left, top, right, bottom = line.points.box()
        if line.contrast < FAINTEST or (line.prior > 0.45 and not self._goes_on(line)):
            return False
        if line.start == self._first and line.end == self._until and line.end - line.start > 2:
            # There from the first to the last frame: a logo, when it stands in a corner.
            middle = (left + right) / 2 / self._working[1]
            if abs(middle - 0.5) > 0.2:
                return False
        if line.end - line.start < 1 and (line.contrast < 2 * FAINTEST or line.share < 0.75):
            return False
        high = bottom - top
        return high >= LOWEST and len(line.points) >= max(0.3 * high**2, 0.08 * high * (right - left))

    def _goes_on(self, line: Ended) -> bool:
        """Whether a line begins where and when another ended: one text, which the ground has torn in two."""
        return any(
            abs(line.start - end) <= TORN_S and _same_box(line.points.box(), box) for end, box in self._seen
        )

    def _measure(self, lines: list[Ended]) -> _Held | None:
        start, end = lines[0].start, lines[0].end
        shots = self._reel.shown(start, end)
        if not shots:
            return None
        contrast = list(Contrast(lines[0].points, [s.luma for s in shots], self._working))
        steady = [s for s, c in zip(shots, contrast, strict=True) if c >= 0.85 * median(contrast)] or shots
        if not self._merged:
            steady = [steady[len(steady) // 2]]
        measured = [
            line for points in lines if (line := self._measure_line(points.points, steady, start)) is not None
        ]
        if not measured:
            return None
        picture = measured[0].merged.mean
        if len(measured) > 1:
            boxes = [line.merged.box for line in measured]
            left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
            picture = mean_picture(steady, (left, top, max(b[2] for b in boxes), max(b[3] for b in boxes)))
        return _Held(start, end, tuple(measured), lines[0], picture)

    def _measure_line(self, points: Points, shots: list[Shot], start: Fraction) -> _Line | None:
        down, across = self._shape[0] / self._working[0], self._shape[1] / self._working[1]
        left, top, right, bottom = points.box()
        tall = bottom - top
        x0, x1 = max(0, left - 3 * tall), min(self._working[1], right + 3 * tall)
        y0, y1 = max(0, top - tall), min(self._working[0], bottom + tall)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        mask[points.y - y0, points.x - x0] = 255
        # both pixels of a step and those between
        mask = raster.widen(mask, 0, 0, 2, 1)
        box = (round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down))
        merged = merge(shots, box)
        mask = raster.nearest(mask, (box[2] - box[0], box[3] - box[1]))
        rough = measure_line(steps(merged.mean, mask), box[:2])
        if rough is None:
            return None
        inner, margin = inside_frame(merged.mean, mask, (rough.left, rough.top, rough.right, rough.bottom))
        ink, vote = find_ink(merged.mean, mask, inner, margin)
        measure = measure_line(ink, box[:2])
        if measure is None or measure.height < 0.4 * rough.height:
            measure = rough
        self._scale = self._scale or Scale(self._shape[1])
        self._scale.add(measure, start)
        self._votes.append(vote)
        return _Line(merged, measure, vote)

    # -- cues out --------------------------------------------------------------------------------------------------

    def _release(self, keep: int) -> list[Candidate]:
        if len(self._held) <= keep or self._scale is None:
            return []
        clip = _Clip(self._scale.copy(), sum(self._votes), self._shape, self._zoom, self._width, self._region)
        released, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return [Candidate(held, clip) for held in released]


@dataclass(frozen=True, slots=True)
class _Clip:
    """What is known of a clip when a candidate is released."""

    scale: Scale
    votes: float  # for bright text, of its last lines
    shape: tuple[int, ...]  # of the frames that are kept
    zoom: int
    width: int  # of the frame, px
    region: Box | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate cue that was found and measured, but not yet cut out. Immutable, so another thread may go on with it."""

    _held: _Held
    _clip: _Clip

    def image(self, known: Sequence[float] = ()) -> CueImage:
        """The cue, cut out. known: widths of a character as in `detect`."""
        held, scale = self._held, self._clip.scale
        fits = [scale.fit(line.measure) for line in held.lines]
        lines = [self._strip(line, fit) for line, own in zip(held.lines, fits, strict=True) for fit in own]
        others = []
        widths = [scw / self._clip.zoom for scw in known]
        for line, own in zip(held.lines, fits, strict=True):
            beside = [fit.scw for other in fits if other is not own for fit in other]
            others += [self._strip(line, fit) for fit in scale.rows(line.measure, widths + beside)]
        lines.sort(key=lambda image: (image.box[1], image.box[0]))
        ended, width = held.ended, self._clip.width
        signs = ended.contrast, ended.share, ended.prior
        return CueImage(held.start, held.end, tuple(lines), tuple(others), held.picture, *signs, width)

    def _strip(self, line: _Line, fit: Fit, polarity: int = 0) -> LineImage:
        """polarity: 0 where it is to be told by this line and the others."""
        clip = self._clip
        left = max(0.0, fit.left - MARGIN * fit.scw)
        right = min(float(clip.shape[1]), fit.right + MARGIN * fit.scw)
        # The lines of a clip are of one polarity: what the others say counts where this one is in doubt.
        others = clip.votes - line.vote
        polarity = polarity or (1 if line.vote + min(2.0, max(-2.0, 0.3 * others)) >= 0 else -1)

        def strip() -> Plane:
            return cut_strip(line.merged, left, right, fit.centre, fit.scw, polarity)

        x, y = (max(0, clip.region[0]), max(0, clip.region[1])) if clip.region else (0, 0)
        edges = (left, fit.centre - 0.625 * fit.scw, right, fit.centre + 0.625 * fit.scw)
        x0, y0, x1, y1 = (round(clip.zoom * e) for e in edges)

        def cut(down: float, scale: float) -> LineImage:
            moved = replace(fit, centre=fit.centre + down * fit.scw, scw=fit.scw * scale)
            return self._strip(line, moved, polarity)

        def turned() -> LineImage:
            return self._strip(line, fit, -polarity)

        box = (x0 + x, y0 + y, x1 + x, y1 + y)
        return LineImage(strip, box, clip.zoom * fit.scw, polarity, cut, turned)


def _same_box(a: Box, b: Box) -> bool:
    """Whether two boxes share four fifths of the larger one."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return across > 0 and down > 0 and across * down >= 0.8 * max(areas)


def _weight(line: Ended) -> float:
    """How much a line looks like text: many strokes, close together, of strong contrast."""
    left, top, right, bottom = line.points.box()
    n = len(line.points)
    return line.contrast * line.share * n * n / ((right - left) * (bottom - top))


def _torn(a: _Held, b: _Held) -> bool:
    """Whether two cues, one right after the other, are one and the same text."""
    if len(a.lines) != len(b.lines) or abs(b.start - a.end) > TORN_S:
        return False
    upper, lower = (sorted(held.lines, key=lambda line: line.merged.box[1]) for held in (a, b))
    for p, q in zip(upper, lower, strict=True):
        first, second = (Inked(line.merged.mean, line.measure.ink, line.measure.origin) for line in (p, q))
        if not same_text(first, second, max(4, min(p.measure.height, q.measure.height))):
            return False
    return True


def _together(a: Ended, b: Ended) -> bool:
    """Same first and last frame, but for the frames by which a noisy measurement may be off."""
    return abs(a.start - b.start) <= SAME_TIME and abs(a.end - b.end) <= SAME_TIME


def _rejoin(group: list[Ended]) -> list[Ended]:
    """Joins the parts of lines that wide spaces had split."""
    lines: list[Ended] = []
    for part in sorted(group, key=lambda line: line.points.box()):
        left, top, _, bottom = part.points.box()
        for i, line in enumerate(lines):
            box = line.points.box()
            tall = max(bottom - top, box[3] - box[1])
            union = max(bottom, box[3]) - min(top, box[1])
            if union <= 1.35 * tall and left - box[2] <= 3 * tall:
                longer = line if len(line.points) >= len(part.points) else part
                lines[i] = Ended(
                    line.points.joined(part.points), longer.start, longer.end, longer.contrast, longer.share,
                    longer.prior, longer.born, max(line.sample, part.sample),
                )  # fmt: skip
                break
        else:
            lines.append(part)
    return lines


def _stacks(lines: list[Ended]) -> list[list[Ended]]:
    """Groups lines that stand on top of each other and are of one size: the lines of one cue."""
    stacks: list[list[Ended]] = []
    for line in sorted(lines, key=lambda line: line.points.box()[1]):
        for stack in stacks:
            if _below(stack[-1].points.box(), line.points.box()):
                stack.append(line)
                break
        else:
            stacks.append([line])
    return stacks


def _below(upper: Box, lower: Box) -> bool:
    heights = upper[3] - upper[1], lower[3] - lower[1]
    gap = lower[1] - upper[3]
    overlap = min(upper[2], lower[2]) - max(upper[0], lower[0])
    near = -0.3 * min(heights) < gap < 1.2 * max(heights)
    return near and overlap > 0 and max(heights) < 1.7 * min(heights)
