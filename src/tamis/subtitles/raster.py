"""Operations on grey pictures, uint8 [height, width]: what the reader needs of image processing, and no more.

Each is defined here in NumPy and compiled in csrc/raster.inl, with the same results; the compiled form runs where it was built
(`tamis doctor` says so). TAMIS_ISA chooses between them as for all kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tamis import native
from tamis.subtitles.raster_native import Floats, Ints, Kernels, Plane

Taps = tuple[
    Ints, Floats
]  # per place of the result: which places of the picture [n, k], and their weights [n, k]
FAR = 8192  # distance to a border that is nowhere


@cache
def kernels() -> Kernels | None:
    """The compiled kernels; None where they were not built, or TAMIS_ISA says `none`."""
    library, isa = native.load(), native.chosen()
    if library is None or isa is None or not hasattr(library, "tamis_raster_halve"):
        return None
    return Kernels(library, isa)


# sizes


def halve(plane: Plane, copy: Plane | None = None) -> Plane:
    """The means of 2 x 2 pixels of a plane of even height and width. copy: gets the plane itself."""
    if compiled := kernels():
        return compiled.halve(plane, copy)
    four = plane[::2, ::2].astype(np.uint16)
    for rest in (plane[::2, 1::2], plane[1::2, ::2], plane[1::2, 1::2]):
        four += rest
    if copy is not None:
        copy[:] = plane
    return ((four + 2) >> 2).astype(np.uint8)


def shrink(plane: Plane, size: tuple[int, int]) -> Plane:
    """To (width, height), neither larger than now: every pixel is the mean of the area it covers."""
    if plane.shape == (2 * size[1], 2 * size[0]):
        return halve(plane)
    height, width = plane.shape
    return resample(plane, area_taps(width, size[0]), area_taps(height, size[1]))


def stretch(plane: Plane, size: tuple[int, int]) -> Plane:
    """To (width, height) by linear interpolation between pixels."""
    height, width = plane.shape
    columns, rows = (linear_taps(old, new) for old, new in zip((width, height), size, strict=True))
    return resample(plane, columns, rows)


def nearest(plane: Plane, size: tuple[int, int]) -> Plane:
    """To (width, height), each pixel that of the place."""
    height, width = plane.shape
    columns, rows = (
        np.minimum(np.arange(new) * (1 / (new / old)), old - 1).astype(np.intp)
        for old, new in zip((width, height), size, strict=True)
    )
    return plane.take(rows, 0).take(columns, 1)


def resample(plane: Plane, columns: Taps, rows: Taps) -> Plane:
    """Weighted sums over places along rows, then along columns, rounded to nearest."""
    if compiled := kernels():
        return compiled.resample(plane, columns, rows)
    across = np.zeros((plane.shape[0], len(columns[0])), np.float32)
    for place, weight in zip(columns[0].T, columns[1].T, strict=True):
        across += plane[:, place] * weight
    down = np.zeros((len(rows[0]), across.shape[1]), np.float32)
    for place, weight in zip(rows[0].T, rows[1].T, strict=True):
        down += across[place] * weight[:, None]
    return np.clip(np.rint(down), 0, 255).astype(np.uint8)


@lru_cache(16)
def area_taps(old: int, new: int) -> Taps:
    """Taps of `new` equal parts of `old` pixels."""
    scale = old / new
    first = np.arange(new) * scale
    count = ceil(scale) + 1
    places = np.floor(first).astype(np.int32)[:, None] + np.arange(count, dtype=np.int32)
    covered = np.minimum(first[:, None] + scale, places + 1.0) - np.maximum(first[:, None], places)
    weights = np.where(covered > 1e-3, covered, 0)
    weights /= weights.sum(1, keepdims=True)
    return _taps(places, weights, old)


@lru_cache(16)
def linear_taps(old: int, new: int) -> Taps:
    """Taps between the two nearest of `old` pixels, so that pixel edges meet."""
    return between((np.arange(new) + 0.5) * (old / new) - 0.5, old)


def between(places: NDArray[np.floating], size: int) -> Taps:
    """Taps for linear interpolation at `places`; beyond the edge stands the last pixel."""
    first = np.floor(places)
    share = places - first
    return _taps(first[:, None] + [0, 1], np.stack([1 - share, share], 1), size)


def _taps(places: NDArray[np.floating | np.integer], weights: NDArray[np.float64], size: int) -> Taps:
    clipped = np.clip(places, 0, size - 1)
    return np.ascontiguousarray(clipped, np.int32), np.ascontiguousarray(weights, np.float32)


def difference(a: Plane, b: Plane) -> Plane:
    """|a - b| of each pixel."""
    return np.maximum(a, b) - np.minimum(a, b)


# smoothing


def gaussian(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur in fixed point, edges mirrored."""
    kernel = gaussian_kernel(sigma)
    if compiled := kernels():
        return compiled.blur(plane, kernel)
    radius = len(kernel) // 2
    height, width = plane.shape
    padded = plane[np.ix_(_mirrored(height, radius), _mirrored(width, radius))]
    across = np.zeros((height + 2 * radius, width), np.uint32)
    for i, weight in enumerate(kernel.tolist()):
        across += weight * padded[:, i : i + width].astype(np.uint32)
    down = np.full((height, width), 1 << 15, np.uint32)
    for i, weight in enumerate(kernel.tolist()):
        down += weight * across[i : i + height]
    return (down >> 16).astype(np.uint8)


def _mirrored(size: int, beyond: int) -> NDArray[np.intp]:
    """Places 0 to size - 1 and so many beyond each end, mirrored without repeating the last."""
    return np.pad(np.arange(size), beyond, "reflect" if size > 1 else "edge")


@lru_cache(16)
def gaussian_kernel(sigma: float) -> NDArray[np.uint16]:
    """Weights that add up to 256; what rounding takes from one the next one nearer to the middle gets."""
    size = round(sigma * 6 + 1) | 1
    x = np.arange(size) - (size - 1) / 2
    exact = np.exp(-(x**2) / (2 * sigma**2))
    exact *= 256 / exact.sum()
    kernel = np.zeros(size, np.uint16)
    carried = 0.0
    for i in range(size // 2):
        wanted = float(exact[i]) + carried
        kernel[i] = kernel[-1 - i] = round(wanted)
        carried = wanted - round(wanted)
    kernel[size // 2] = 256 - int(kernel.sum())
    return kernel


def smooth(signal: Floats, sigma: float) -> Floats:
    """Gaussian blur of a row of numbers, edges mirrored."""
    size = round(sigma * 8 + 1) | 1
    x = np.arange(size) - (size - 1) / 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    return _convolved(signal, kernel / kernel.sum())


def mean_of(signal: Floats, size: int) -> Floats:
    """Mean over `size` (odd) places around each of a row of numbers, edges mirrored."""
    return _convolved(signal, np.full(size, 1 / size))


def _convolved(signal: Floats, kernel: NDArray[np.float64]) -> Floats:
    padded = signal[_mirrored(len(signal), len(kernel) // 2)]
    return np.convolve(padded, kernel.astype(np.float32), "valid").astype(np.float32)


def median(values: NDArray[np.generic]) -> float:
    """As `np.median`, whose first call imports `numpy.ma`: 50 ms, a twentieth of reading a clip of 20 s."""
    ordered = np.sort(values, axis=None)
    middle = (len(ordered) - 1) // 2, len(ordered) // 2
    return (float(ordered[middle[0]]) + float(ordered[middle[1]])) / 2


# shapes


def widen(mask: Plane, left: int, up: int, right: int, down: int) -> Plane:
    """The largest value among so many pixels to each side."""
    wide = mask.copy()
    for step in range(1, max(left, right) + 1):
        if step <= left:
            np.maximum(wide[:, : -step or None], mask[:, step:], out=wide[:, : -step or None])
        if step <= right:
            np.maximum(wide[:, step:], mask[:, :-step], out=wide[:, step:])
    high = wide.copy()
    for step in range(1, max(up, down) + 1):
        if step <= up:
            np.maximum(high[:-step], wide[step:], out=high[:-step])
        if step <= down:
            np.maximum(high[step:], wide[:-step], out=high[step:])
    return high


def components(mask: Plane, connectivity: int = 8) -> tuple[Ints, Ints]:
    """Connected parts of what is not 0: labels [h, w] from 1 on, and left, top, width, height, area of each [n, 5].

    Numbered in order of their first pixel or, where they connect diagonally, their first block of 2 x 2.
    """
    if compiled := kernels():
        return compiled.components(mask, connectivity)
    reach = 1 if connectivity == 8 else 0
    parent: list[int] = []

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    runs: list[tuple[int, int, int]] = []  # row, first, last (exclusive)
    above: list[int] = []
    for y, row in enumerate(mask != 0):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        here = []
        for first, last in edges.reshape(-1, 2).tolist():
            number = len(runs)
            runs.append((y, first, last))
            parent.append(number)
            for other in above:
                if runs[other][1] < last + reach and runs[other][2] > first - reach:
                    a, b = sorted((root(other), root(number)))
                    parent[b] = a
            here.append(number)
        above = here
    block = 1 + reach
    order: dict[int, tuple[int, int]] = {}
    for i, (y, first, _) in enumerate(runs):
        place = y // block, first // block
        order[root(i)] = min(order.get(root(i), place), place)
    numbers = {which: n for n, which in enumerate(sorted(order, key=lambda which: order[which]), 1)}
    labels = np.zeros(mask.shape, np.int32)
    boxes = [[mask.shape[1], mask.shape[0], 0, 0, 0] for _ in numbers]
    for i, (y, first, last) in enumerate(runs):
        number = numbers[root(i)]
        labels[y, first:last] = number
        left, top, right, bottom, area = boxes[number - 1]
        boxes[number - 1] = [
            min(left, first),
            min(top, y),
            max(right, last),
            max(bottom, y + 1),
            area + last - first,
        ]
    stats = [[left, top, right - left, bottom - top, area] for left, top, right, bottom, area in boxes]
    return labels, np.array(stats, np.int32).reshape(-1, 5)


def depth(mask: Plane) -> tuple[int, int]:
    """Distances, along rows and columns, from each pixel that is not 0 to the next that is: their sum and their number."""
    if compiled := kernels():
        return compiled.depth(mask, FAR)
    distance = np.where(mask != 0, FAR, 0).astype(np.int32)
    for _ in range(2):  # along columns, then along rows
        steps = np.arange(len(distance), dtype=np.int32)[:, None]
        before = np.minimum.accumulate(distance - steps, axis=0) + steps
        after = np.minimum.accumulate((distance + steps)[::-1], axis=0)[::-1] - steps
        distance = np.minimum(before, after).T
    return int(distance.sum()), int(np.count_nonzero(distance))


# pictures of several frames


def merged(planes: Sequence[Plane], averaged: Sequence[bool]) -> tuple[Plane, Plane, Plane]:
    """Mean of some (at least one), minimum and maximum of all of the planes, of one shape."""
    if compiled := kernels():
        return compiled.merge(planes, averaged)
    low, high = planes[0], planes[0]
    total = np.zeros(low.shape, np.float32)
    for plane, wanted in zip(planes, averaged, strict=True):
        low, high = np.minimum(low, plane), np.maximum(high, plane)
        if wanted:
            total += plane
    share = np.float32(1 / sum(averaged))
    return np.rint(total * share).astype(np.uint8), low, high
