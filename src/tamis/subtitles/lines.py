"""Line-shaped groups of newborn stroke pixels: where a subtitle line may just have appeared (a first STBB).

Pixels are counted in cells of `CELL` x `CELL` px; cells that hold strokes are joined along the row; a group that is
wider than high, and not higher than a character can be, is a line. A group that is too high (a line amid the newborn
texture of a scene cut) is looked at again with stronger strokes only, for subtitles are made to stand out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster

Plane = NDArray[np.uint8]
Box = tuple[int, int, int, int]

CELL = 4  # px of the working picture
HIGHEST = 64  # px of the working picture (640 wide): a character of a tenth of the width
LOWEST = 7
FEWEST = 24  # stroke pixels of a line; measured: one character has 130 and more
LIGHTEST = 1200  # `Group.weight` of a line; measured: one character weighs 3500 and more
SMALLEST = 4  # cells of a piece
MOST_PIECES = 14  # looked at, the largest: a picture full of newborn texture must not cost more
DENSE = 0.3  # share of stroke pixels in a line that a cut through a cluttered box is believed to have found
SPARSE = 0.6  # of the cells in its box are filled at least, where text is; crossing lines leave more empty
GAP = 0.8  # pieces of one line stand at most so many line heights apart; wider ones are joined when their times agree


@dataclass(frozen=True, slots=True)
class Look:
    """One way of looking at newborn pixels: which count, and how closely they must stand.

    strength  brightness step that a pixel must exceed
    filled    share of pixels that count, around a cell (measured over whole lines of text: 0.3 to 0.7)
    run       cells that must be filled side by side; cuts the lines of drawings that cross the text
    """

    strength: int
    filled: float
    run: int


# Of the strokes of a full row: what divides lines, in clear and in cluttered pictures.
EMPTY, THIN = 0.06, 0.35
TWO_LINES = 36  # px: pieces so high are mostly two lines, or a line with a drawing
LOOKS = (Look(0, 0.20, 1), Look(0, 0.30, 4), Look(0, 0.42, 3), Look(60, 0.3, 3), Look(110, 0.3, 3))


@dataclass(frozen=True, slots=True)
class Group:
    """Box of a line-shaped group in px of the stroke plane (right and bottom exclusive) and its number of pixels.

    weight: how much it stands out, the sum of its brightness steps times their density
    """

    left: int
    top: int
    right: int
    bottom: int
    count: int
    weight: float

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


def find_lines(newborn: Plane) -> list[Group]:
    """Line-shaped groups in `newborn` ([H, W], 0 = no stroke pixel), heaviest first."""
    high, wide = newborn.shape[0] // CELL, newborn.shape[1] // CELL
    if high < 2 or wide < 2:
        return []
    plane = np.ascontiguousarray(newborn[: high * CELL, : wide * CELL])
    found: list[Group] = []
    loose: list[Group] = []
    for look in LOOKS:
        pieces, blobs = _pieces(plane, look)
        for piece in _join(pieces):
            thin = THIN if piece[3] - piece[1] >= TWO_LINES else EMPTY
            found.extend(_rows(plane, look.strength, piece, thin))
        rest = np.zeros_like(plane)
        for left, top, right, bottom in blobs:
            lines = _split(plane, look.strength, (left, top, right, bottom))
            dense = all(line.count >= DENSE * line.width * line.height for line in lines)
            if lines and look.run > 1 and dense:
                found.extend(lines)
            else:
                loose.extend(lines)
                rest[top:bottom, left:right] = plane[top:bottom, left:right]
        if not blobs:
            break
        plane = rest
    found.extend(line for line in loose if not any(_inside(other, line) for other in found))
    return sorted((g for g in found if _texty(g)), key=lambda g: -g.weight)


def _inside(group: Group, other: Group) -> bool:
    x, y = (group.left + group.right) / 2, (group.top + group.bottom) / 2
    return other.left <= x < other.right and other.top <= y < other.bottom


def _texty(group: Group) -> bool:
    area = group.width * group.height
    if group.count < FEWEST or group.weight < LIGHTEST:
        return False
    return group.height >= LOWEST and group.count >= max(0.14 * area, 0.25 * group.height**2)


def _pieces(plane: Plane, look: Look) -> tuple[list[Box], list[Box]]:
    """Connected groups of filled cells, as boxes in px: those that may be (part of) a line, and those too high or sparse."""
    if compiled := raster.kernels():
        groups = compiled.pieces(plane, look.strength, int(255 * look.filled), look.run, SMALLEST)
    else:
        groups = _groups(plane, look)
    if len(groups) > MOST_PIECES:
        areas = np.array([group[4] for group in groups])
        groups = [groups[i] for i in np.argpartition(areas, -MOST_PIECES)[-MOST_PIECES:]]
    pieces: list[Box] = []
    blobs: list[Box] = []
    for left, top, width, height, area in groups:
        box = (left * CELL, top * CELL, (left + width) * CELL, (top + height) * CELL)
        sparse = height > 3 and area < SPARSE * width * height
        (blobs if height * CELL > HIGHEST or height > 2 * width + 1 or sparse else pieces).append(box)
    return pieces, blobs


def _groups(plane: Plane, look: Look) -> list[list[int]]:
    """Left, top, width, height and area, in cells, of the groups that have at least the area SMALLEST."""
    high, wide = plane.shape[0] // CELL, plane.shape[1] // CELL
    counts = (plane > look.strength).reshape(high, CELL, wide, CELL).sum((1, 3), dtype=np.uint8)
    density = np.rint(counts * (255 / CELL**2)).astype(np.uint16)
    beside = np.pad(density, ((0, 0), (1, 1)), "reflect")
    cells = (beside[:, :-2] + density + beside[:, 2:] + 1) // 3 > int(255 * look.filled)
    cells = _all(_any(cells, 3), 3)  # gaps of a cell or two are closed
    if look.run > 1:
        cells = _any(_all(cells, look.run), look.run)
    stats = raster.components(cells.astype(np.uint8))[1]
    kept: list[list[int]] = stats[stats[:, 4] >= SMALLEST].tolist()
    return kept


def _any(cells: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Whether one of `length` cells around each, along the row, is filled."""
    before = length // 2
    padded = np.pad(cells, ((0, 0), (before, length - 1 - before)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis=1)
    return np.asarray(windows.any(axis=2), bool)


def _all(cells: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Whether all of them are; what lies beyond the picture does not count."""
    return ~_any(~cells, length)


def _join(pieces: list[Box]) -> list[Box]:
    """Joins pieces that lie on the same rows with gaps of at most `GAP` heights (clause spaces, narrow strokes)."""
    lines: list[Box] = []
    for piece in sorted(pieces):
        fitting = [i for i, line in enumerate(lines) if _same_line(line, piece)]
        if not fitting:
            lines.append(piece)
            continue
        nearest = max(fitting, key=lambda i: lines[i][2])
        left, top, right, bottom = lines[nearest]
        lines[nearest] = (left, min(top, piece[1]), max(right, piece[2]), max(bottom, piece[3]))
    return lines


def _same_line(line: Box, piece: Box) -> bool:
    """Whether a piece right of a line continues it. The wider of the two says how high the line is."""
    heights = line[3] - line[1], piece[3] - piece[1]
    wider = heights[0] if line[2] - line[0] >= piece[2] - piece[0] else heights[1]
    overlap = min(line[3], piece[3]) - max(line[1], piece[1])
    union = max(line[3], piece[3]) - min(line[1], piece[1])
    return overlap >= 0.5 * min(heights) and union <= 1.2 * wider + CELL and piece[0] - line[2] <= GAP * wider


def _split(plane: Plane, strength: int, blob: Box) -> list[Group]:
    """The lines of a box that is too high for one: cut at thin rows, at the thinnest only where that does. None where
    nothing does."""
    for thin in (THIN, 0.5, 0.65):
        lines = _rows(plane, strength, blob, thin)
        if all(line.height <= HIGHEST for line in lines):
            return lines
    return []


def _rows(plane: Plane, strength: int, box: Box, thin: float) -> list[Group]:
    """The lines inside a box, of the pixels above `strength`: split at rows with less than the share `thin` of the strokes of
    full rows, where both parts are large enough to be lines of their own, and trimmed to the rows and columns with strokes."""
    if compiled := raster.kernels():
        return [Group(*line) for line in compiled.rows(plane, box, strength, thin)]
    left, top, right, bottom = box
    part = plane[top:bottom, left:right]
    mask = part > strength
    profile = np.count_nonzero(mask, axis=1)
    level = thin * float(np.sort(profile)[int(0.9 * (len(profile) - 1))])
    runs = _runs((profile > level).tolist())
    lines: list[tuple[int, int]] = []
    for first, last in runs:
        if lines and not _separate(lines[-1], (first, last), right - left):
            lines[-1] = (lines[-1][0], last)
        else:
            lines.append((first, last))
    groups = []
    for first, last in lines:
        columns = np.flatnonzero(mask[first:last].any(0))
        if len(columns):
            x0, x1 = int(columns[0]), int(columns[-1]) + 1
            inside = mask[first:last, x0:x1]
            count = int(np.count_nonzero(inside))
            weight = count / ((x1 - x0) * (last - first)) * float(part[first:last, x0:x1][inside].sum())
            groups.append(Group(left + x0, top + first, left + x1, top + last, count, weight))
    return groups


def _runs(filled: list[bool]) -> list[tuple[int, int]]:
    """First and one past the last index of every run of true values."""
    edges = [i for i, (a, b) in enumerate(zip([False, *filled], [*filled, False], strict=True)) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _separate(above: tuple[int, int], below: tuple[int, int], width: int) -> bool:
    """Whether two runs of rows are two lines, not the parts of one character such as 二."""
    heights = above[1] - above[0], below[1] - below[0]
    if below[0] - above[1] > 0.8 * max(heights):
        return True
    return min(heights) >= 10 and min(heights) > 0.5 * max(heights) and width >= 1.5 * max(heights)
