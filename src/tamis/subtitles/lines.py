"""Line-shaped groups of newborn stroke pixels: where a subtitle line may just have appeared (a first STBB).

Pixels are counted in cells of `CELL` x `CELL` px; cells that hold strokes are joined along the row; a group that is
wider than high, and not higher than a character can be, is a line. A group that is too high (a line amid the newborn
texture of a scene cut) is looked at again with stronger strokes only, for subtitles are made to stand out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

CELL = 4  # px of the working picture
FILLED = 0.11  # share of a cell's pixels that are strokes: 2 of 16
STRENGTHS = (0, 60, 110)  # brightness steps at which a group is looked at, weakest first
HIGHEST = 64  # px of the working picture (640 wide): a character of a tenth of the width
FEWEST = 12  # stroke pixels of a line; a lone full stop has about so many
GAP = 2.0  # pieces of one line stand at most so many line heights apart


@dataclass(frozen=True, slots=True)
class Group:
    """Box of a line-shaped group in px of the stroke plane (right and bottom exclusive) and its number of pixels."""

    left: int
    top: int
    right: int
    bottom: int
    count: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def find_lines(newborn: Plane) -> list[Group]:
    """Line-shaped groups in `newborn` ([H, W], 0 = no stroke pixel), most pixels first."""
    high, wide = newborn.shape[0] // CELL, newborn.shape[1] // CELL
    if high < 2 or wide < 2:
        return []
    plane = np.ascontiguousarray(newborn[: high * CELL, : wide * CELL])
    found: list[Group] = []
    for strength in STRENGTHS:
        _, ink = cv2.threshold(plane, strength, 255, cv2.THRESH_BINARY)
        pieces, blobs = _pieces(ink)
        for piece in _join(pieces):
            found.extend(_rows(ink, piece))
        if not blobs:
            break
        rest = np.zeros_like(plane)
        for left, top, right, bottom in blobs:
            rest[top:bottom, left:right] = plane[top:bottom, left:right]
        plane = rest
    return sorted((g for g in found if g.count >= FEWEST), key=lambda g: -g.count)


Box = tuple[int, int, int, int]


def _pieces(ink: Plane) -> tuple[list[Box], list[Box]]:
    """Connected groups of filled cells, as boxes in px: those that may be (part of) a line, and those too high."""
    density = cv2.resize(ink, (ink.shape[1] // CELL, ink.shape[0] // CELL), interpolation=cv2.INTER_AREA)
    _, cells = cv2.threshold(density, 255 * FILLED, 1, cv2.THRESH_BINARY)
    cells = cv2.morphologyEx(cells, cv2.MORPH_CLOSE, np.ones((1, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(cells, connectivity=8)
    pieces, blobs = [], []
    for left, top, width, height, area in stats[1:count].tolist():
        box = (left * CELL, top * CELL, (left + width) * CELL, (top + height) * CELL)
        if height * CELL > HIGHEST or height > 2 * width + 1:
            if area >= 6:
                blobs.append(box)
        else:
            pieces.append(box)
    return pieces, blobs


def _join(pieces: list[Box]) -> list[Box]:
    """Joins pieces that lie on the same rows with gaps of at most `GAP` heights (clause spaces, narrow strokes)."""
    lines: list[Box] = []
    for piece in sorted(pieces):
        best = None
        for i, line in enumerate(lines):
            overlap = min(line[3], piece[3]) - max(line[1], piece[1])
            tall = max(line[3] - line[1], piece[3] - piece[1])
            low = min(line[3] - line[1], piece[3] - piece[1])
            union = max(line[3], piece[3]) - min(line[1], piece[1])
            if overlap >= 0.5 * low and union <= 1.35 * tall + CELL and piece[0] - line[2] <= GAP * tall:
                if best is None or line[2] > lines[best][2]:
                    best = i
        if best is None:
            lines.append(piece)
        else:
            line = lines[best]
            lines[best] = (line[0], min(line[1], piece[1]), max(line[2], piece[2]), max(line[3], piece[3]))
    return lines


def _rows(ink: Plane, box: Box) -> list[Group]:
    """The lines inside a box: split at empty rows where both parts are wide enough to be lines of their own, and trimmed
    to the rows and columns that hold strokes."""
    left, top, right, bottom = box
    part = ink[top:bottom, left:right]
    profile = cv2.reduce(part, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel() // 255
    level = 0.06 * float(np.percentile(profile, 90))
    filled = np.flatnonzero(profile > level)
    if len(filled) == 0:
        return []
    runs = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    lines: list[tuple[int, int]] = []
    for run in runs:
        first, last = int(run[0]), int(run[-1]) + 1
        if lines and not _separate(lines[-1], (first, last), right - left):
            lines[-1] = (lines[-1][0], last)
        else:
            lines.append((first, last))
    groups = []
    for first, last in lines:
        columns = np.flatnonzero(part[first:last].any(axis=0))
        if len(columns):
            count = cv2.countNonZero(part[first:last])
            x0, x1 = left + int(columns[0]), left + int(columns[-1]) + 1
            groups.append(Group(x0, top + first, x1, top + last, count))
    return groups


def _separate(above: tuple[int, int], below: tuple[int, int], width: int) -> bool:
    """Whether two runs of rows are two lines, not the parts of one character such as 二."""
    heights = above[1] - above[0], below[1] - below[0]
    return min(heights) >= 8 and min(heights) > 0.5 * max(heights) and width >= 2 * max(heights)
