"""The hot spot: the window of a given area that holds most mitoses. Exact, for a square and for a circle.

A best window can be moved until it touches points: a square until some point lies on its left edge and one on its top
edge; a circle until two points lie on its rim, or one (Chazelle & Lee 1986). So it is enough to look at those. Points on
the edge count. Squares stand parallel to the slide's edges and may reach beyond the slide; `HotSpot.on_slide` moves them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.mitosis import Mitosis

Shape = Literal["square", "circle"]
SLACK = 1e-9  # of the window's size: what rounding may add to a distance
LEAST_DRAWS, MOST_DRAWS, MOST_DRAWN = (
    40,
    100,
    60_000,
)  # of `spread_evenly`: draws; mitoses over all of them, seconds of work


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A window centred on (x_um, y_um). `size_um` is the side of the square or the diameter of the circle."""

    x_um: float
    y_um: float
    size_um: float
    shape: Shape
    count: int

    @property
    def area_mm2(self) -> float:
        side = self.size_um / 1000
        return side * side * (1 if self.shape == "square" else math.pi / 4)

    @property
    def per_mm2(self) -> float:
        return self.count / self.area_mm2

    def on_slide(self, size_um: tuple[float, float]) -> HotSpot:
        """The same square moved onto a slide of this size; where the slide is narrower, centred on it. A circle stays.

        It holds the same mitoses: what it leaves behind lay outside the slide.
        """
        if self.shape == "circle":
            return self
        half = self.size_um / 2
        x, y = (
            side / 2 if side < self.size_um else min(max(place, half), side - half)
            for place, side in zip((self.x_um, self.y_um), size_um, strict=True)
        )
        return replace(self, x_um=x, y_um=y)


def hot_spot(mitoses: Sequence[Mitosis], area_mm2: float = 2.0, shape: Shape = "square") -> HotSpot | None:
    """The window of `area_mm2` with most mitoses, centred on what it holds; None without mitoses. O(n^2 log n) at worst."""
    if not mitoses:
        return None
    points = np.array([(m.x_um, m.y_um) for m in mitoses], float)
    if shape == "square":
        size = math.sqrt(area_mm2) * 1000
        x, y, count = _best_square(points, size)
    elif shape == "circle":
        size = math.sqrt(area_mm2 * 4 / math.pi) * 1000
        x, y, count = _centred(points, *_best_circle(points, size / 2), size / 2)
    else:
        raise ValueError(f"a hot spot is a square or a circle, not {shape!r}")
    return HotSpot(x, y, size, shape, count)


def spread_evenly(
    n: int, tissue: NDArray[np.bool_], um_per_px: float, area_mm2: float
) -> tuple[float, float, float] | None:
    """What the hot spot of `n` mitoses would hold if they lay evenly over the tissue [h, w]: the mean and the limits of 95 %.

    The fullest of all windows holds more than an average one also where there is no hot spot at all; this is how much more.
    Mitoses are drawn anew at places of the tissue, 40 to 100 times, and counted in squares: a circle of the same area holds as
    many, to some 2 %, and takes four times as long. None without mitoses, and for more than 1,500, which would take long.
    """
    draws = min(MOST_DRAWS, MOST_DRAWN // max(1, n))
    rows, columns = np.nonzero(tissue)
    if n == 0 or draws < LEAST_DRAWS or len(rows) == 0:
        return None
    generator = np.random.default_rng(0)
    counts = []
    for _ in range(draws):
        at = generator.integers(0, len(rows), n)
        x, y = ((places[at] + generator.uniform(0, 1, n)) * um_per_px for places in (columns, rows))
        spot = hot_spot(
            [Mitosis(*place, 1.0) for place in zip(x.tolist(), y.tolist(), strict=True)], area_mm2
        )
        counts.append(spot.count if spot else 0)
    low, high = np.quantile(counts, [0.025, 0.975])
    return float(np.mean(counts)), float(low), float(high)


def _best_square(points: NDArray[np.float64], side: float) -> tuple[float, float, int]:
    """Sweep: with the left edge on each point in turn, the best vertical run among the points of that column."""
    side += side * SLACK
    order = points[np.argsort(points[:, 0], kind="stable")]
    ends = np.searchsorted(order[:, 0], order[:, 0] + side, side="right")
    best, held = 0, order[:1]
    for i, end in enumerate(ends):
        if end - i <= best:
            continue
        column = order[i:end]
        column = column[np.argsort(column[:, 1], kind="stable")]
        counts = np.searchsorted(column[:, 1], column[:, 1] + side, side="right") - np.arange(len(column))
        j = int(counts.argmax())
        if counts[j] > best:
            best, held = int(counts[j]), column[j : j + int(counts[j])]
    middle = (held.min(0) + held.max(0)) / 2
    return float(middle[0]), float(middle[1]), best


def _best_circle(points: NDArray[np.float64], radius: float) -> tuple[float, float, int]:
    """For each point, roll a circle around it: every other point enters and leaves over an arc of angles."""
    reach = 2 * radius * (1 + SLACK)
    order = points[np.argsort(points[:, 0], kind="stable")]
    starts = np.searchsorted(order[:, 0], order[:, 0] - reach, side="left")
    ends = np.searchsorted(order[:, 0], order[:, 0] + reach, side="right")
    best, centre = 0, order[0]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if end - start <= best:
            continue
        away = order[start:end] - order[i]
        distance = np.hypot(away[:, 0], away[:, 1])
        near = distance <= reach
        if near.sum() <= best:
            continue
        same = near & (distance <= radius * SLACK)
        other = near & ~same
        angle = np.arctan2(away[other, 1], away[other, 0])
        # The centre at angle a holds the other point while |a - angle| <= arccos(distance / 2r).
        half = np.arccos(np.minimum(1.0, distance[other] / (2 * radius))) + SLACK
        count, at = _most_overlapping(angle - half, angle + half)
        count += int(same.sum())
        if count > best:
            best = count
            centre = order[i] + radius * np.array([math.cos(at), math.sin(at)])
    return float(centre[0]), float(centre[1]), best


def _centred(
    points: NDArray[np.float64], x: float, y: float, count: int, radius: float
) -> tuple[float, float, int]:
    """The same circle moved to the middle of the smallest one around what it holds, which lies between the points."""
    away = points - (x, y)
    held = away[np.hypot(away[:, 0], away[:, 1]) <= radius * (1 + 1e-6)]
    (dx, dy), _ = cv2.minEnclosingCircle(held.astype(np.float32))
    moved = np.hypot(*(held - (dx, dy)).T)
    if len(held) != count or moved.max() > radius * (1 + 1e-6):  # where rounding decides, as it was found
        return x, y, count
    return x + dx, y + dy, count


def _most_overlapping(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[int, float]:
    """Most closed arcs that share an angle, and such an angle."""
    if len(low) == 0:
        return 0, 0.0
    width = high - low
    low = np.mod(low, 2 * math.pi)
    edges = np.concatenate([low, low + 2 * math.pi, low + width, low + width + 2 * math.pi])
    gain = np.repeat([1, -1], 2 * len(low))
    order = np.lexsort((-gain, edges))  # at one angle, arcs open before others close
    running = np.cumsum(gain[order])
    k = int(running.argmax())
    return int(running[k]), float(edges[order[k]])
