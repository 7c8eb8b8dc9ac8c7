"""Ink and ground of a text line: which pixels are the strokes, and whether text is bright or dark.

Ink is thin; what surrounds it is not. Where the dark side of the line's edges is the thicker, text is bright. The other
way round there are two cases: dark text on a bright ground, and bright text with a dark outline on a bright ground, whose
dark parts are thin as well. There the outline encloses the bright ink, stroke by stroke: many enclosed bright parts to a
character and few dark ones, against the few holes and several separate strokes of a dark character.

Outlines, shadows and boxes are ground, so the ink's extent tells the size of the letters whatever is around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster

Plane = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Box = tuple[int, int, int, int]

# A row with steps this strong over this share of the line is an edge of a caption box.
RULE_STEP, RULE_FILLED = 7, 0.8
# Share of a text's ink that keeps its brightness within so much when the ground changes. Measured: 0.8 and more in
# every place; where a character is another, 0.4 and less.
SAME, SAME_BRIGHTNESS = 0.75, 32
WINDOW = 4  # characters that are judged together; the ground may change along a line
# Measured on rendered lines on bright ground: medians of dark text 1.0, 0.06, 3.0, of outlined bright text 4.5, 0.38, 1.9.
ENCLOSED_PER_EM, ENCLOSED_SHARE, DARK_PER_EM = 2.2, 0.17, 2.4


def steps(picture: Plane, mask: Plane) -> Plane:
    """Brightness steps across each pixel (the larger of across and down) where `mask` is not 0."""
    out = np.zeros_like(picture)
    across = raster.difference(picture[1:-1, 2:], picture[1:-1, :-2])
    down = raster.difference(picture[2:, 1:-1], picture[:-2, 1:-1])
    out[1:-1, 1:-1] = np.maximum(across, down) & mask[1:-1, 1:-1]
    return out


def inside_frame(picture: Plane, mask: Plane, box: Box) -> tuple[Box, int]:
    """The box of a line without the edges of a caption box around it, and the margin beyond it that is of one ground.

    A caption box shows as rows and columns of steps that all have one sign; text has none such.
    """
    left, top, right, bottom = box
    high, wide = bottom - top, right - left
    if wide < 1.5 * high or high < 8:
        return box, max(2, high // 8)
    rows = _rules(picture, mask, box, 0)
    upper, lower = rows[rows < 0.35 * high], rows[rows > 0.65 * high]
    first = int(upper[-1]) + 2 if len(upper) else 0
    last = int(lower[0]) - 1 if len(lower) else high
    if (not len(upper) and not len(lower)) or last - first < 0.3 * high:
        return box, max(2, high // 8)
    columns = _rules(picture, mask, (left, top + first, right, top + last), 1)
    near, far = columns[columns < 0.6 * high], columns[columns > wide - 0.6 * high]
    x0 = int(near[-1]) + 2 if len(near) else 0
    x1 = int(far[0]) - 1 if len(far) else wide
    if x1 - x0 < 0.3 * high:
        x0, x1 = 0, wide
    return (left + x0, top + first, left + x1, top + last), 0


def _rules(picture: Plane, mask: Plane, box: Box, axis: int) -> NDArray[np.intp]:
    """Rows (axis 0) or columns (axis 1) of a box, relative to it, that are a straight edge all along."""
    left, top, right, bottom = box
    part, near = picture[top:bottom, left:right], mask[top:bottom, left:right]
    if axis:
        part, near = np.ascontiguousarray(part.T), np.ascontiguousarray(near.T)
    if min(part.shape) < 4:
        return np.zeros(0, np.intp)
    filled = np.zeros(len(part), np.float64)
    for high, low in ((part[2:], part[:-2]), (part[:-2], part[2:])):
        steps_of_sign = (np.maximum(high, low) - low) & near[1:-1]
        share = np.count_nonzero(steps_of_sign > RULE_STEP, axis=1) / part.shape[1]
        filled[1:-1] = np.maximum(filled[1:-1], share)
    return np.flatnonzero(filled > RULE_FILLED)


def find_ink(picture: Plane, mask: Plane, box: Box, margin: int) -> tuple[Plane, float]:
    """Ink (255, elsewhere 0) of the text line in a box of `picture`, and the vote for its polarity: positive when the text
    is bright, negative when it is dark; the more, the surer.

    mask: not 0 around the strokes' edges; margin: px beyond the box that are looked at.
    """
    left, top, right, bottom = box
    em = bottom - top
    count = max(1, round((right - left) / (WINDOW * em)))
    bounds = np.linspace(left, right, count + 1).astype(int).tolist()
    ink = np.zeros_like(picture)
    total = 0.0
    y0, y1 = max(0, top - margin), bottom + margin
    for a, b in pairwise(bounds):
        x0, x1 = max(0, a - margin), b + margin
        found, vote = _window(picture[y0:y1, x0:x1], mask[y0:y1, x0:x1], em)
        total += vote
        if found is not None:
            ink[y0:y1, a:b] = found[:, a - x0 : b - x0]
    return ink, total


def _window(part: Plane, near: Plane, em: int) -> tuple[Plane | None, float]:
    """Ink and vote of a few characters."""
    if min(part.shape) < 6:
        return None, 0.0
    low, high = np.minimum(part[:, 2:], part[:, :-2]), np.maximum(part[:, 2:], part[:, :-2])
    across = (high - low) & near[:, 1:-1]
    some = across[across > 0]
    if len(some) < 20:
        return None, 0.0
    strong = across > max(20.0, 0.5 * float(np.sort(some)[int(0.95 * (len(some) - 1))]))
    if np.count_nonzero(strong) < 8:
        return None, 0.0
    level = raster.median(low[strong].astype(np.int16) + high[strong]) / 2
    bright = (part > int(level)).astype(np.uint8)
    dark = 1 - bright
    around = raster.widen(near, 1, 1, 1, 1)
    thick_bright, thick_dark = _thickness(bright), _thickness(dark)
    if thick_dark > thick_bright:
        return bright * around, min(3.0, 2 * log(thick_dark / max(0.1, thick_bright)))
    enclosed, parts = _enclosed(bright, em)
    inside = int(np.count_nonzero(enclosed))
    share = inside / max(1, inside + int(np.count_nonzero((bright > enclosed) & (near > 0))))
    ems = max(1.0, float(part.shape[1]) / em)
    evidence = (
        log((parts / ems + 0.1) / ENCLOSED_PER_EM)
        + log((share + 0.01) / ENCLOSED_SHARE)
        - log((_count(dark, em) / ems + 0.1) / DARK_PER_EM)
    )
    return (enclosed if evidence > 0 else dark) * around, min(2.0, max(-2.0, evidence))


def _thickness(mask: Plane) -> float:
    """Typical width of a mask's parts in px: a ribbon's mean distance to its edge is a quarter of its width."""
    total, count = raster.depth(np.pad(mask, 1, "edge"))
    return 4 * total / count if count else 0.0


def _enclosed(mask: Plane, em: int) -> tuple[Plane, int]:
    """The parts of a mask (0, 1) that do not touch the border, and their number without specks."""
    labels, stats = raster.components(mask, 4)
    free = np.ones(len(stats) + 1, np.uint8)
    free[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = 0
    free[0] = 0
    large = stats[:, 4] > max(3, 0.003 * em * em)
    return free[labels], int(np.count_nonzero(free[1:][large]))


def _count(mask: Plane, em: int) -> int:
    """Number of connected parts of a mask without specks."""
    stats = raster.components(mask, 8)[1]
    return int(np.count_nonzero(stats[:, 4] > max(3, 0.003 * em * em)))


@dataclass(frozen=True, slots=True)
class Inked:
    """A picture of a line and its ink, both [h, w], and the frame (x, y) of their first pixel."""

    picture: Plane
    ink: Plane
    at: tuple[int, int]


def same_text(a: Inked, b: Inked, em: int) -> bool:
    """Whether two pictures show one text on two grounds: where one has ink, the other is as bright, in every character.

    On a difficult ground some of it is taken for ink, so that one of the two inks may disagree with the other picture.
    em: character width in px, roughly.
    """
    shares = [_unchanged(a, b, em), _unchanged(b, a, em)]
    return max(share.min() for share in shares) >= SAME and min(share.mean() for share in shares) >= 0.5


def _unchanged(a: Inked, b: Inked, em: int) -> NDArray[np.float64]:
    """Share of the ink of `a` that is as bright in `b`, for each place along the line (in steps of half an em)."""
    left, top = max(a.at[0], b.at[0]), max(a.at[1], b.at[1])
    right = min(a.at[0] + a.ink.shape[1], b.at[0] + b.ink.shape[1])
    bottom = min(a.at[1] + a.ink.shape[0], b.at[1] + b.ink.shape[0])
    if right - left < em or bottom <= top:
        return np.zeros(1)
    cut_a, cut_b = (np.s_[top - y : bottom - y, left - x : right - x] for x, y in (a.at, b.at))
    ink = a.ink[cut_a] > 0
    same = ink & (raster.difference(a.picture[cut_a], b.picture[cut_b]) <= SAME_BRIGHTNESS)
    places = np.arange(0, right - left, max(1, em // 2))
    inks = np.add.reduceat(ink.sum(axis=0, dtype=np.float64), places)
    sames = np.add.reduceat(same.sum(axis=0, dtype=np.float64), places)
    written = inks > 0.2 * inks.max()
    if inks.sum() < 0.9 * np.count_nonzero(a.ink):
        return np.zeros(1)  # much of the ink lies outside of the other picture
    return sames[written] / np.maximum(1, inks[written])
