"""Where and when there are subtitles: frames in, pictures of cues out.

    frames -> working pictures (8 a second) -> strokes that stand -> line-shaped groups that appear together
           -> tracks -> frame-exact start and end -> merged, upright, bright strips of one character width per EM px

Nobody says where the subtitles are. A line is found because its strokes appear in one instant, stand still, and vanish
in one instant, whatever the picture behind does (the paper's idea: a sequence of frames shows text boundaries and
character width; see strokes.py, lines.py, track.py, cwt.py). Left and right ends are generous here: the character
networks decide them.

Memory is constant and every frame is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.subtitles.cue import Box
from tamis.subtitles.cwt import measure_line
from tamis.subtitles.lines import Group, find_lines
from tamis.subtitles.merge import cut_strip, merge
from tamis.subtitles.polarity import text_polarity
from tamis.subtitles.reel import LONGEST_S, Reel, Shot
from tamis.subtitles.strokes import STEP_X, STEP_Y, StrokeOperator, reduce
from tamis.subtitles.timing import first_visible, last_visible
from tamis.subtitles.track import YOUNG, Track

Plane = NDArray[np.uint8]

# A sample is taken when this much time has passed: every third frame at 24, 25 and 30 frames/s, so that a cue of 0.3 s
# has at least two. The odd value leaves room for time stamps rounded to milliseconds.
SAMPLE_S = Fraction(97, 1000)
MOST_ROWS = 1200  # taller frames are halved: text is large enough then


class FrameLike(Protocol):
    """What is needed of `tamis.subtitles.video.Frame`."""

    @property
    def time(self) -> Fraction: ...
    @property
    def duration(self) -> Fraction: ...
    @property
    def luma(self) -> Plane: ...


@dataclass(frozen=True, slots=True)
class LineImage:
    """One line, ready to be read.

    pixels    uint8 [2, 40, W]: mean and minimum over the cue's frames, text bright; one character width is 32 px
    box       frame px that `pixels` covers
    scw       width of one character (em) in frame px
    polarity  +1 bright text, -1 dark text
    """

    pixels: Plane
    box: Box
    scw: float
    polarity: int


@dataclass(frozen=True, slots=True)
class CueImage:
    """One candidate cue. Visible from `start` until just before `end`.

    picture   uint8 [h, w], the mean frame around the text
    contrast  mean brightness step of its strokes
    standing  share of its stroke points that stood, median over its samples
    before    contrast just before the start, as a share: near 0 for text that appears
    """

    start: Fraction
    end: Fraction
    lines: tuple[LineImage, ...]
    picture: Plane
    contrast: float
    standing: float
    before: float


def detect(frames: Iterable[FrameLike], *, region: Box | None = None) -> Iterator[CueImage]:
    """Candidate cues in order of their end.

    region: (left, top, right, bottom) in frame px, outside of which nothing is looked at.
    """
    detector = Detector(region)
    for frame in frames:
        yield from detector.add(frame)
    yield from detector.finish()


@dataclass(eq=False)
class Finished:
    """A track that has ended, with its times. `last` is the sample at which its end was seen."""

    track: Track
    start: Fraction
    end: Fraction
    contrast: float
    before: float
    last: int


class Detector:
    """The state between frames."""

    def __init__(self, region: Box | None = None) -> None:
        self.region = region
        self.reel = Reel()
        self.tracks: list[Track] = []
        self.finished: list[Finished] = []
        self.count = 0  # samples taken
        self._operator = StrokeOperator()
        self._last_time: Fraction | None = None
        self._first_time: Fraction | None = None
        self._end = Fraction(0)

    # -- frames in -------------------------------------------------------------------------------------------------

    def add(self, frame: FrameLike) -> list[CueImage]:
        luma = self._cut(frame.luma)
        self._end = frame.time + frame.duration
        if self._first_time is None:
            self._first_time = frame.time
        due = self._last_time is None or frame.time - self._last_time >= SAMPLE_S
        if due:
            self.count += 1
            self._last_time = frame.time
            luma = np.ascontiguousarray(luma)
        self.reel.add(Shot(frame.time, self._end, luma, self.count), due)
        if not due:
            return []
        self._shape = luma.shape
        picture = reduce(luma)
        self._step(picture)
        if frame.duration >= 2 * SAMPLE_S:  # a frame shown long is two samples of the same picture
            self.count += 1
            self._step(picture)
        return self._emit()

    def finish(self) -> list[CueImage]:
        for track in self.tracks:
            self._end_track(track, None)
        self.tracks = []
        return self._emit(everything=True)

    def _cut(self, luma: Plane) -> Plane:
        if self.region is not None:
            left, top, right, bottom = self.region
            luma = luma[max(0, top) : bottom, max(0, left) : right]
        self.halved = luma.shape[0] > MOST_ROWS
        if self.halved:
            luma = cv2.resize(luma, (luma.shape[1] // 2, luma.shape[0] // 2), interpolation=cv2.INTER_AREA)
        return luma

    # -- one sample ------------------------------------------------------------------------------------------------

    def _step(self, picture: Plane) -> None:
        self._picture = picture
        self._operator.observe(picture)
        for track in self.tracks:
            track.observe(picture)
        newborn = self._operator.newborn
        if newborn is not None and cv2.countNonZero(newborn) >= 10:
            for track in self.tracks:
                if len(track.share) <= YOUNG and track.share[-1] >= 0.7:
                    self._grow(track, newborn)
            for group in find_lines(newborn)[:8]:
                self._appear(group, newborn)
        self._age()

    def _points(self, newborn: Plane, left: int, top: int, right: int, bottom: int):
        left, top = max(0, left), max(0, top)
        y, x = np.nonzero(newborn[top:bottom, left:right])
        y, x = (y + top).astype(np.int32), (x + left).astype(np.int32)
        step = newborn[y, x].astype(np.int16)
        across = self._picture[y + STEP_Y, x + STEP_X].astype(np.int16) - self._picture[y, x]
        sign = np.where(across >= 0, 1, -1).astype(np.int16)
        return y, x, sign, step

    def _grow(self, track: Track, newborn: Plane) -> None:
        left, top, right, bottom = track.box()
        high = bottom - top
        area = (left - int(1.5 * high), top - high // 6, right + int(1.5 * high), bottom + high // 6)
        y, x, sign, step = self._points(newborn, *area)
        if len(y):
            track.add(y, x, sign, step)
            newborn[max(0, area[1]) : area[3], max(0, area[0]) : area[2]] = 0

    def _appear(self, group: Group, newborn: Plane) -> None:
        """A line-shaped group appeared: a new track, and perhaps the end of the text that stood there."""
        inherited: Track | None = None
        blocked = False
        for track in list(self.tracks):
            left, top, right, bottom = track.box()
            rows = min(bottom, group.bottom) - max(top, group.top)
            if rows < 0.5 * min(bottom - top, group.height):
                continue
            inside = (track.x >= group.left - 2) & (track.x < group.right + 2)
            n_in = int(np.count_nonzero(inside))
            if n_in < 8:
                continue
            alive_in = np.count_nonzero(track.alive & inside) / n_in
            if alive_in < 0.5:
                n_out = len(track) - n_in
                alive_out = np.count_nonzero(track.alive & ~inside) / max(1, n_out)
                small = group.count < 0.35 * n_in or group.height < 0.5 * (bottom - top) or n_in < 12
                if track.share[-1] >= 0.5 and small:
                    blocked = True
                    continue
                if n_out >= 0.2 * len(track) and alive_out > 0.75:
                    inherited = track
                self._end_track(track, inside & ~track.alive)
                self.tracks.remove(track)
            elif group.count < 0.7 * n_in:
                blocked = True
        if blocked or len(self.tracks) >= 40:
            return
        y, x, sign, step = self._points(newborn, group.left, group.top, group.right, group.bottom)
        if not _balanced(sign):
            return
        new = Track(y, x, sign, step, self.count, self._picture.shape, group)
        if inherited is not None:
            keep = inherited.alive & inherited.before
            new.add(inherited.y[keep], inherited.x[keep], inherited.sign[keep], inherited.step[keep], fresh=False)
        new.observe(self._picture)
        self.tracks.append(new)

    def _age(self) -> None:
        """Ends tracks that have vanished, forgets what stands too long, settles the start of those that are old enough."""
        for track in list(self.tracks):
            if self.count - track.born == YOUNG + 1:
                self._settle(track)
            if track.weak >= 2:
                steady = track.alive & track.before
                now = track.steps(self._picture)
                tight = steady & (np.abs(now - track.step) <= 0.3 * track.step)
                n = np.count_nonzero(tight)
                if len(track.share) > YOUNG and n >= 0.3 * len(track) and n >= 30 and n >= 0.75 * np.count_nonzero(steady):
                    track.keep(steady)
                    track.weak = 0
                else:
                    self._end_track(track, ~track.alive)
                    self.tracks.remove(track)
            elif (self.count - track.born) > 8 * (LONGEST_S + 5):
                track.static = True

    # -- times -----------------------------------------------------------------------------------------------------

    def _contrasts(self, track: Track, shots: list[Shot], points=None) -> list[float]:
        y, x, sign = track.y, track.x, track.sign
        if points is not None:
            y, x, sign = y[points], x[points], sign[points]
        if len(y) > 600:
            pick = np.linspace(0, len(y) - 1, 600).astype(int)
            y, x, sign = y[pick], x[pick], sign[pick]
        high, wide = self._shape
        fy, fx = high / track.shape[0], wide / track.shape[1]
        y0, x0 = ((y + 0.5) * fy).astype(int), ((x + 0.5) * fx).astype(int)
        y1, x1 = ((y + STEP_Y + 0.5) * fy).astype(int), ((x + STEP_X + 0.5) * fx).astype(int)
        out = []
        for shot in shots:
            d = shot.luma[y1, x1].astype(np.int16) - shot.luma[y0, x0]
            out.append(float(np.mean(d * sign)))
        return out

    def _settle(self, track: Track) -> None:
        """Finds the first visible frame while the frames around it are still remembered."""
        shots = [s for s in self.reel.recent if track.born - 5 <= s.sample <= track.born + YOUNG + 1]
        contrast = self._contrasts(track, shots, track.fresh)
        at = [i for i, s in enumerate(shots) if s.sample >= track.born]
        inside = at[0] if at else len(shots) - 1
        later = contrast[inside : inside + 12]
        full = float(np.median(later))
        first = first_visible(contrast, inside, full)
        track.start = shots[first].time
        track.full = full
        track.prior = float(np.mean(contrast[max(0, first - 3) : first])) / max(1.0, full) if first > 0 else 0.0

    def _end_track(self, track: Track, dying) -> None:
        """Finds the last visible frame and hands the track on. dying: the points that vanished; None at the end of all."""
        if track.start is None:
            self._settle(track)
        if dying is None:
            end = self._end
        else:
            if np.count_nonzero(dying) < 8:
                dying = np.ones(len(track), bool)
            shots = [s for s in self.reel.recent if s.sample >= self.count - 8 and s.time >= track.start]
            if not shots:
                return
            contrast = self._contrasts(track, shots, dying)
            good = self.count - max(1, track.weak) - 1
            before = [c for c, s in zip(contrast, shots, strict=True) if s.sample <= good]
            full = float(np.median(before[-16:])) if before else max(contrast)
            inside = max(0, len(before) - 1)
            end = shots[last_visible(contrast, inside, full)].end
        self.finished.append(Finished(track, track.start, end, track.full, track.prior, self.count))

    # -- cues out --------------------------------------------------------------------------------------------------

    def _emit(self, everything: bool = False) -> list[CueImage]:
        ready = [f for f in self.finished if everything or self.count - f.last >= 3]
        if not ready:
            return []
        cues = []
        while ready:
            first = ready.pop(0)
            self.finished.remove(first)
            if not self._plausible(first, everything):
                continue
            cue = [first]
            for other in list(self.finished):
                same = abs(other.start - first.start) < SAMPLE_S * 2 and abs(other.end - first.end) < SAMPLE_S * 2
                if same and self._plausible(other, everything):
                    cue.append(other)
                    self.finished.remove(other)
                    if other in ready:
                        ready.remove(other)
            image = self._image(cue)
            if image is not None:
                cues.append(image)
        return cues

    def _plausible(self, f: Finished, ending: bool) -> bool:
        if f.end - f.start < Fraction(1, 6) or f.end - f.start > LONGEST_S:
            return False
        if f.contrast < 20 or f.before > 0.4:
            return False
        return len(f.track) >= 12

    def _image(self, cue: list[Finished]) -> CueImage | None:
        start, end = cue[0].start, cue[0].end
        shots = self.reel.samples(start, end)
        if not shots:
            shots = [s for s in self.reel.recent if start <= s.time < end]
        if not shots:
            return None
        shots = self._steady(cue[0], shots)
        lines = [line for f in cue if (line := self._line(f, shots)) is not None]
        if not lines:
            return None
        lines.sort(key=lambda line: (line.box[1], line.box[0]))
        left, top = min(l.box[0] for l in lines), min(l.box[1] for l in lines)
        right, bottom = max(l.box[2] for l in lines), max(l.box[3] for l in lines)
        picture = merge(shots, (max(0, left), max(0, top), min(self._shape[1], right), min(self._shape[0], bottom))).mean
        standing = float(np.median(cue[0].track.share))
        return CueImage(start, end, tuple(lines), picture, cue[0].contrast, standing, cue[0].before)

    def _steady(self, f: Finished, shots: list[Shot]) -> list[Shot]:
        contrast = np.array(self._contrasts(f.track, shots))
        good = contrast >= 0.85 * np.median(contrast)
        return [s for s, g in zip(shots, good, strict=True) if g] or shots

    def _line(self, f: Finished, shots: list[Shot]) -> LineImage | None:
        track = f.track
        high, wide = self._shape
        fy, fx = high / track.shape[0], wide / track.shape[1]
        left, top, right, bottom = track.box()
        tall = bottom - top
        x0, x1 = max(0, left - 3 * tall), min(track.shape[1], right + 3 * tall)
        y0, y1 = max(0, top - tall), min(track.shape[0], bottom + tall)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        mask[track.y - y0, track.x - x0] = 255
        mask = cv2.dilate(mask, np.ones((2, 3), np.uint8), anchor=(2, 1))  # the step's two pixels and those between
        box = (int(x0 * fx), int(y0 * fy), int(x1 * fx), int(y1 * fy))
        merged = merge(shots, box)
        mask = cv2.resize(mask, (box[2] - box[0], box[3] - box[1]), interpolation=cv2.INTER_NEAREST)
        found = measure_line(merged.mean, mask)
        if found is None:
            return None
        polarity = text_polarity(merged.mean, found)
        centre = box[1] + (found.top + found.bottom) / 2
        first, last = box[0] + found.left - 1.5 * found.scw, box[0] + found.right + 1.5 * found.scw
        first, last = max(0.0, first), min(float(wide), last)
        pixels = cut_strip(merged, first, last, centre, found.scw, polarity)
        half = found.scw * 0.625
        area = (round(first), round(centre - half), round(last), round(centre + half))
        return LineImage(pixels, area, found.scw, polarity)


def _balanced(sign) -> bool:
    rises = np.count_nonzero(sign > 0) / len(sign)
    return 0.25 < rises < 0.75
