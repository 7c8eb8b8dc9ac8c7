"""Character Width Transform: the width of one character (SCW) and the top and bottom boundary (STBB) of lines.

East Asian characters fill squares of one size, set at one pitch. The strokes' column profile of a line therefore repeats
with the pitch, and its row profile ends where the squares' ink does. The autocorrelation of the column profile votes for the
pitch; the votes of all lines of a clip, added up, are far surer than any of them, and tell how high the ink of a line of
that pitch is. So a line of one character, of dots only, or with a drawing behind it gets the width and the rows that the other
lines of the clip agree on.

The paper names the transform and what it yields; its formula is not public, this one is ours.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster

Plane = NDArray[np.uint8]
Profile = NDArray[np.float32]

RATIO = 0.92  # ink height over pitch: 0.86 to 0.95 in most faces, 0.81 and 1.13 in extreme ones
RATIOS = 0.78, 1.22  # beyond, a box holds more than a line
REMEMBERED = 96  # lines
MOST_STYLES = 3
LARGEST = 0.075  # of the frame's width: letters of subtitles are smaller, mostly 0.025 to 0.05
LEAST_WEIGHT = 0.15  # `Measure.weight` of a style: one line of four clear characters
AGREE = 0.06  # relative difference of two pitches that are the same
HEIGHTS_AGREE = 0.12  # the same of two ink heights
OWN_HEIGHT = 0.2  # by which a line's height differs from every style's when it may be of none: single characters reach 0.16
MOST_LINES = 3
EMPTY = 0.35  # of the ink of a full row: what stands between two lines, or less
MOST_AGAINST = 3.0  # nats by which one sign speaks against a style at most
NEARBY = 10  # lines before and after, over which the weight of a style falls to a third
TWO_WIDE = 2.0  # width of what may be two lines, in its heights
LINE_PITCH = 1.4  # distance of two lines of a cue, in ink heights: 1.25 to 1.6
# Ink heights of what may hold more, or less, than one clear line; and how far apart, in SCW, its possible rows are looked at.
LOW, TALL, ROW_STEP, MOST_ROWS = 0.75, (1.25, 3.6), 0.36, 8


@dataclass(frozen=True, slots=True)
class Measure:
    """A line's strokes and what they tell. Lengths in px of the frame.

    ink        [h, w] uint8: not 0 on strokes
    origin     frame (x, y) of ink[0, 0]
    rows, columns  sums of ink
    top, bottom, left, right   extent of the ink, right and bottom exclusive, in px of `ink`
    pitch      distance after which the strokes repeat best; the height's guess where the line is too short to tell
    score      how well they repeat: autocorrelation at the pitch, 0 to 1
    """

    ink: Plane
    origin: tuple[int, int]
    rows: Profile
    top: int
    bottom: int
    left: int
    right: int
    pitch: float
    score: float

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def weight(self) -> float:
        """How much the line's pitch can be believed."""
        return max(0.0, min(0.5, self.score)) * min(8.0, (self.right - self.left) / self.height) / 8


@dataclass(frozen=True, slots=True)
class Fit:
    """A line in frame px: ink from `left` to `right`, em box of side `scw` centred on row `centre`."""

    left: float
    right: float
    centre: float
    scw: float


def measure_line(ink: Plane, origin: tuple[int, int]) -> Measure | None:
    """Measures the line whose strokes are the pixels of `ink` that are not 0 (see ink.py). None when there are none.

    origin: frame (x, y) of ink[0, 0].
    """
    rows, columns = _profile(ink, 1), _profile(ink, 0)
    if rows.max() <= 0:
        return None
    top, bottom = extent(rows, 0.12, 0.85)
    left, right = extent(columns, 0.06, 0.9)
    pitch, score = _pitch(columns[left:right], (bottom - top) / RATIO)
    return Measure(ink, origin, rows, top, bottom, left, right, pitch, score)


def _divided(measure: Measure) -> bool:
    """Whether there is a row with next to no ink well inside of what was measured, as between two lines."""
    inner = measure.rows[measure.top : measure.bottom]
    third = len(inner) // 3
    filled = float(np.sort(inner)[int(0.75 * len(inner))])
    return third > 0 and float(inner[third : len(inner) - third].min()) < EMPTY * filled


def _profile(ink: Plane, axis: int) -> Profile:
    return ink.sum(axis, dtype=np.int32).astype(np.float32)


def extent(profile: Profile, share: float, quantile: float) -> tuple[int, int]:
    """First and one past the last place with at least a `share` of the profile's `quantile` (of places with ink)."""
    filled = np.sort(profile[profile > 0])
    places = np.flatnonzero(profile > share * filled[int(quantile * (len(filled) - 1))])
    return int(places[0]), int(places[-1]) + 1


def _pitch(columns: Profile, guess: float) -> tuple[float, float]:
    """Lag of the best repetition of the profile near `guess`, and its autocorrelation (0 where the line is too short)."""
    if len(columns) < 3 * guess or guess < 4:
        return guess, 0.0
    signal = raster.smooth(columns, max(0.5, guess / 24))
    # gaps tell the pitch, dense strokes do not
    signal = np.minimum(signal, np.sort(signal)[int(0.75 * len(signal))])
    signal = signal - raster.mean_of(signal, int(guess) | 1)
    size = 1 << (2 * len(signal) - 1).bit_length()
    spectrum = np.fft.rfft(signal, size)
    auto = np.fft.irfft(np.abs(spectrum) ** 2, size)[: len(signal)]
    auto /= max(1e-6, float(auto[0])) * (1 - np.arange(len(signal)) / len(signal))
    lags = np.arange(int(0.75 * guess), int(1.3 * guess) + 1)
    lags = lags[(lags > 1) & (lags < len(auto) - 1)]
    if len(lags) == 0:
        return guess, 0.0
    twice = auto[np.minimum(2 * lags, len(auto) - 1)] if len(signal) > 4 * guess else auto[lags]
    score = (auto[lags] + 0.5 * twice) * np.exp(-0.5 * (np.log(lags / guess) / 0.12) ** 2)
    best = int(lags[np.argmax(score)])
    a, b, c = auto[best - 1], auto[best], auto[best + 1]
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < 0 else 0.0
    return best + float(np.clip(shift, -0.5, 0.5)), float(auto[best])


@dataclass(frozen=True, slots=True)
class Style:
    """pitch in px; ratio: ink height over pitch; weight of the lines that agree on it."""

    pitch: float
    ratio: float
    weight: float

    @property
    def high(self) -> float:
        """Ink height in px."""
        return self.ratio * self.pitch


class Scale:
    """What the lines of a clip have in common: their one, two or three styles, and the rows that they stand on."""

    def __init__(self, width: int) -> None:
        """width: of the frame, px."""
        self._largest = LARGEST * width
        self._seen: deque[Measure] = deque(maxlen=REMEMBERED)
        self._starts: deque[Fraction] = deque(maxlen=REMEMBERED)
        self._centres: deque[float] = deque(maxlen=REMEMBERED)
        self._styles: list[Style] = []  # most weight first

    def copy(self) -> Scale:
        """As it is now: lines that come later do not change it."""
        other = copy(self)
        other._seen, other._starts = self._seen.copy(), self._starts.copy()
        other._centres = self._centres.copy()
        return other

    def add(self, measure: Measure, start: Fraction = Fraction(0)) -> None:
        """Takes a line into account that appeared at `start`."""
        self._seen.append(measure)
        self._starts.append(start)
        self._agree()
        if any(abs(measure.height / style.high - 1) < HEIGHTS_AGREE for style in self._styles):
            self._centres.append(measure.origin[1] + (measure.top + measure.bottom) / 2)

    def _agree(self) -> None:
        """The pitches around which most weight gathers, and the ink heights of those lines."""
        self._styles = []
        # The lines that a drawing is taken for appear in one moment, with its scene: they share one vote.
        moments = Counter(self._starts)
        seen = [(m, m.weight / moments[start]) for m, start in zip(self._seen, self._starts, strict=True)]
        voters = [(m, w) for m, w in seen if w > 0 and RATIOS[0] < m.height / m.pitch < RATIOS[1]]
        voters = [(m, w) for m, w in voters if m.pitch < self._largest] or voters
        while voters and len(self._styles) < MOST_STYLES:
            pitch, weight = np.log([m.pitch for m, _ in voters]), np.array([w for _, w in voters])
            density = (weight * np.exp(-0.5 * ((pitch[:, None] - pitch) / (AGREE / 2)) ** 2)).sum(axis=1)
            same = np.abs(pitch - pitch[np.argmax(density)]) < AGREE
            shapes = [m.height / m.pitch for (m, _), s in zip(voters, same, strict=True) if s]
            ratio = raster.median(np.array(shapes))
            mean = float(np.exp(np.average(pitch[same], weights=weight[same])))
            style = Style(mean, ratio, float(weight[same].sum()))
            if style.weight < (max(0.6, 0.2 * self._styles[0].weight) if self._styles else LEAST_WEIGHT):
                break
            self._styles.append(style)
            voters = [m for m, p in zip(voters, pitch, strict=True) if abs(p - log(mean)) > 2 * AGREE]

    def _style(self, measure: Measure) -> tuple[Style, int]:
        """The style that was most likely measured, and the number of lines: by its pitch, as far as that can be believed, by
        its height, and by what the lines before and after it are set in."""
        if not self._styles:
            return Style(measure.height / RATIO, RATIO, 0.0), 1
        most = MOST_LINES if _divided(measure) else 1
        choices = [(style, count) for style in self._styles for count in range(1, most + 1)]
        likely, count = min(choices, key=lambda choice: self._unlikely(measure, *choice))
        larger = min(measure.height / likely.high, measure.pitch / likely.pitch) > 1.2
        shaped = RATIOS[0] < measure.height / measure.pitch < RATIOS[1]
        if count == 1 and larger and measure.score > 0.5 and shaped:
            return Style(measure.pitch, measure.height / measure.pitch, 0.0), 1
        return likely, count

    def _unlikely(self, measure: Measure, style: Style, count: int) -> float:
        """How much speaks against so many lines of a style, about in nats. Drawings beside a line change its height by any
        amount, so that no single sign may decide."""
        high = style.high * (1 + LINE_PITCH * (count - 1))
        against = min(MOST_AGAINST, (log(measure.height / high) / HEIGHTS_AGREE) ** 2) + 0.5 * (count - 1)
        if count == 1:
            believed = min(1.0, measure.weight / 0.25)
            against += believed * min(MOST_AGAINST, (log(measure.pitch / style.pitch) / AGREE) ** 2)
        return against - log(0.05 + self._nearby(measure, style))

    def _nearby(self, measure: Measure, style: Style) -> float:
        """Weight of the lines around this one in time that are set in a style."""
        seen = list(self._seen)
        at = next((i for i, other in enumerate(seen) if other is measure), len(seen))
        widest, highest = exp(AGREE), exp(2 * HEIGHTS_AGREE)
        pitches = style.pitch / widest, style.pitch * widest
        heights = style.high / highest, style.high * highest
        return sum(
            other.weight * exp(-abs(i - at) / NEARBY)
            for i, other in enumerate(seen)
            if pitches[0] < other.pitch < pitches[1]
            and heights[0] < other.bottom - other.top < heights[1]
            and i != at
        )

    def fit(self, measure: Measure) -> list[Fit]:
        """The line or lines in what was measured as one."""
        style, count = self._style(measure)
        # Narrow and wide faces, and spaced letters: the size lies between what the pitch and what the height says.
        scw = (style.pitch * style.high / RATIO) ** 0.5
        bounds = np.linspace(measure.top, measure.bottom, count + 1).round().astype(int).tolist()
        return [self._line(measure, a, b, style.high, scw) for a, b in pairwise(bounds)]

    def rows(self, measure: Measure, others: Sequence[float] = ()) -> list[Fit]:
        """Every other line that may stand in what was measured: in each of the clip's styles, one line where its height fits,
        and rows of lines where it is too high for one, as that of two lines close to each other is, or of a line that
        texture touches; one of its own size where no style fits. Too many to be right; who reads them tells which are.

        Where others are known, empty for what is as high as a line of the only style.

        others: SCW of lines that were read, and of those of the same cue, which are mostly set in one size."""
        likely, number = self._style(measure)
        styles = list(self._styles)
        for scw in others:
            if all(abs(scw / (s.pitch * s.high / RATIO) ** 0.5 - 1) > AGREE for s in styles):
                styles.append(Style(scw, RATIO, 0.0))
        top, bottom = measure.origin[1] + measure.top, measure.origin[1] + measure.bottom
        middle = (top + bottom) / 2
        fits = []
        own_size = all(abs(measure.height / style.high - 1) > OWN_HEIGHT for style in self._styles)
        if own_size:
            shaped = RATIOS[0] < measure.height / measure.pitch < RATIOS[1]
            own = (measure.height * (measure.pitch if shaped else measure.height / RATIO) / RATIO) ** 0.5
            fits.append(self._row(measure, middle, measure.height, own))
        # Where no line was read yet, drawings may have told the styles, and two lines are as high as a line of theirs.
        wide = measure.right - measure.left >= TWO_WIDE * measure.height
        if (own_size and _divided(measure)) or (not others and wide):
            high = measure.height / (1 + LINE_PITCH)
            rows = top + high / 2, bottom - high / 2
            fits += [self._row(measure, row, high, high / RATIO) for row in rows]
        for style in styles:
            scw = (style.pitch * style.high / RATIO) ** 0.5
            centres: list[float] = []
            if measure.height >= TALL[0] * style.high:
                centres = [row for row in self._usual_rows(scw) if top < row < bottom]
            elif measure.height <= LOW * style.high:  # a part of a character, where the ground hides the rest
                centres = [
                    row for row in self._usual_rows(scw) if top > row - scw / 2 and bottom < row + scw / 2
                ]
            elif style is not likely or number > 1:
                centres = [self._usual(middle, scw)]
            if TALL[0] * style.high <= measure.height < TALL[1] * style.high:
                first, last = top + 0.4 * scw, bottom - 0.1 * scw
                count = min(MOST_ROWS, max(2, round((last - first) / (ROW_STEP * scw)) + 1))
                grid = np.linspace(first, last, count).tolist()
                centres += [row for row in grid if all(abs(row - other) > 0.1 * scw for other in centres)]
            fits += [self._row(measure, row, style.high, scw) for row in centres]
        return fits

    def _usual_rows(self, scw: float) -> list[float]:
        """Rows on which at least two lines of the clip are centred."""
        rows = np.sort(np.array(self._centres))
        groups = np.split(rows, np.flatnonzero(np.diff(rows) > 0.1 * scw) + 1) if len(rows) else []
        return [raster.median(group) for group in groups if len(group) >= 2]

    def _row(self, measure: Measure, centre: float, high: float, scw: float) -> Fit:
        """A line centred on a row of the frame, from the first to the last of its ink."""
        x0, y0 = measure.origin
        first, last = max(0, int(centre - y0 - high / 2)), max(0, int(centre - y0 + high / 2) + 1)
        columns = _profile(measure.ink[first:last], 0) if last > first else np.zeros(0, np.float32)
        left, right = measure.left, measure.right
        if columns.size and columns.max() > 0:
            left, right = extent(columns, 0.06, 0.9)
        return Fit(x0 + left, x0 + right, centre, scw)

    def _line(self, measure: Measure, top: int, bottom: int, high: float, scw: float) -> Fit:
        """One line between two rows of what was measured: the window of the ink height that holds most ink."""
        length = max(2, round(high))
        y0 = measure.origin[1]
        centre = y0 + (top + bottom) / 2
        if bottom - top > 1.15 * length:
            inside = np.convolve(measure.rows[top:bottom], np.ones(length, np.float32), "valid")
            best = np.flatnonzero(inside >= 0.98 * inside.max())
            centre = y0 + top + float(best.mean()) + length / 2
        if not 0.88 < (bottom - top) / high < 1.12 or measure.right - measure.left < 3 * scw:
            centre = self._usual(centre, scw)
        return self._row(measure, centre, length, scw)

    def _usual(self, centre: float, scw: float) -> float:
        """The row on which other lines near this one are centred, where there are at least two."""
        rows = np.array(self._centres)
        near = rows[np.abs(rows - centre) < 0.4 * scw]
        if len(near) < 2:
            return centre
        together = max((near[np.abs(near - row) < 0.1 * scw] for row in near), key=len)
        return raster.median(together) if len(together) >= 2 else centre
