"""Cut a plane into overlapping tiles, and blend predictions on them into one plane, row by row, in bounded memory.

    grid = Grid(width, height, tile=512, overlap=64)
    blender = Blender(grid)
    for tile in grid:                                    # row by row, left to right
        for y, rows in blender.add(tile, prediction):    # rows that no later tile reaches: [n, width], at y
            sink(y, rows)

Weights fall linearly over the overlap and are divided by their sum: where two tiles agree the result is theirs, and no
seam shows where they differ. At the edges of the plane itself they do not fall. One row of tiles is held at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the plane, in pixels, all of it inside."""

    x: int
    y: int
    width: int
    height: int
    column: int
    row: int
    last_in_row: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles that cover width x height; neighbours have `overlap` pixels in common, the last ones end at the edge.

    With tile and overlap multiples of a network's stride all origins are, too, and tiled and undivided predictions are
    alike wherever the network does not reach past a tile.
    """

    width: int
    height: int
    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a plane of {self.width} x {self.height} has no tiles")
        if self.tile < 1 or not 0 <= 2 * self.overlap <= self.tile:
            raise ValueError(f"tiles of {self.tile} cannot overlap by {self.overlap}: by half a tile at most")

    def __iter__(self) -> Iterator[Tile]:
        xs, ys = self.starts(self.width), self.starts(self.height)
        for row, y in enumerate(ys):
            for column, x in enumerate(xs):
                width, height = min(self.tile, self.width - x), min(self.tile, self.height - y)
                yield Tile(x, y, width, height, column, row, column == len(xs) - 1)

    def __len__(self) -> int:
        return len(self.starts(self.width)) * len(self.starts(self.height))

    def starts(self, length: int) -> list[int]:
        """Origins along an axis of `length`."""
        return list(range(0, max(1, length - self.overlap), self.tile - self.overlap))


class Blender:
    """Takes tiles in the order of the grid; gives back finished rows, top to bottom, each exactly once."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._rows, self._columns = grid.starts(grid.height), grid.starts(grid.width)
        self._top = 0  # of the rows that are held
        self._sum = np.zeros((0, grid.width), np.float32)
        self._weight = np.zeros((0, grid.width), np.float32)

    def add(self, tile: Tile, prediction: Plane | None) -> Iterator[tuple[int, Plane]]:
        """Blend a prediction [tile.height, tile.width] in; None stands for zeros. Yields (y, finished rows)."""
        self._reserve(tile.y + tile.height)
        weight = np.outer(
            self._ramp(len(self._rows), tile.row, tile.height),
            self._ramp(len(self._columns), tile.column, tile.width),
        )
        rows = slice(tile.y - self._top, tile.y - self._top + tile.height)
        columns = slice(tile.x, tile.x + tile.width)
        self._weight[rows, columns] += weight
        if prediction is not None:
            self._sum[rows, columns] += weight * prediction
        if tile.last_in_row:
            yield from self._finished(tile.row)

    def _ramp(self, count: int, index: int, length: int) -> Plane:
        """Weights along one axis: up over the overlap with the tile before, down over that with the tile after."""
        overlap = self.grid.overlap
        rise = (np.arange(overlap, dtype=np.float32) + 0.5) / max(1, overlap)
        weight = np.ones(length, np.float32)
        if index > 0:
            weight[:overlap] = rise
        if index + 1 < count:
            weight[length - overlap :] = rise[::-1]
        return weight

    def _reserve(self, bottom: int) -> None:
        missing = bottom - self._top - len(self._sum)
        if missing > 0:
            more = np.zeros((missing, self.grid.width), np.float32)
            self._sum, self._weight = np.vstack([self._sum, more]), np.vstack([self._weight, more])

    def _finished(self, row: int) -> Iterator[tuple[int, Plane]]:
        """Rows above the next row of tiles are done."""
        end = self._rows[row + 1] if row + 1 < len(self._rows) else self.grid.height
        count = end - self._top
        rows = self._sum[:count] / self._weight[:count]
        top, self._top = self._top, end
        self._sum, self._weight = self._sum[count:].copy(), self._weight[count:].copy()
        yield top, rows
