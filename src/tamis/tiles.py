"""Cut a plane into overlapping tiles, and blend predictions on them into one plane, row by row, in bounded memory.

    grid = Grid(width, height, tile=512, overlap=64)
    blender = Blender(grid)
    for tile in grid:                      # row by row, left to right
        for y, rows in blender.add(tile, prediction):   # rows that no later tile reaches: [n, width], at y
            sink(y, rows)

Weights fall linearly over the overlap, from 1 to nearly 0 at a tile's edge, and are normalised by their sum: where two
tiles agree the result is theirs, and no seam shows where they differ. Edges of the plane itself do not fall. At most
one row of tiles is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the plane, in pixels. Windows may reach past the right and lower edge of a plane smaller than a tile."""

    x: int
    y: int
    width: int
    height: int
    column: int
    row: int
    last_in_row: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of one size that cover width x height with at least `overlap` pixels in common between neighbours.

    The last tile of a row or column is moved back to end at the plane's edge, so that all tiles are whole; `align` keeps
    every other origin on multiples of the network's stride, where tiled and undivided predictions are alike.
    """

    width: int
    height: int
    tile: int
    overlap: int
    align: int = 1

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a plane of {self.width} x {self.height} has no tiles")
        if (
            not 0 <= self.overlap < self.tile
            or (self.tile - self.overlap) % self.align
            or self.tile % self.align
        ):
            raise ValueError(
                f"tiles of {self.tile} with an overlap of {self.overlap} do not advance in steps of {self.align}"
            )

    def __iter__(self) -> Iterator[Tile]:
        xs, ys = self.starts(self.width), self.starts(self.height)
        for row, y in enumerate(ys):
            for column, x in enumerate(xs):
                yield Tile(x, y, self.tile, self.tile, column, row, column == len(xs) - 1)

    def __len__(self) -> int:
        return len(self.starts(self.width)) * len(self.starts(self.height))

    def starts(self, length: int) -> list[int]:
        """Origins along one axis."""
        step = self.tile - self.overlap
        starts = list(range(0, max(1, length - self.overlap), step))
        end = -(-max(0, length - self.tile) // self.align) * self.align  # past the edge by less than a stride
        return [*starts[:-1], min(starts[-1], end)]


class Blender:
    """Takes tiles in the order of the grid; gives back finished rows, top to bottom, each exactly once."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._top = 0
        self._sum = np.zeros((0, grid.width), np.float32)
        self._weight = np.zeros((0, grid.width), np.float32)
        self._rows = grid.starts(grid.height)
        self._columns = grid.starts(grid.width)

    def add(self, tile: Tile, prediction: Plane | None) -> Iterator[tuple[int, Plane]]:
        """Blend a prediction [tile, tile] in; None is a tile of zeros that was not looked at."""
        grid = self.grid
        self._reserve(min(tile.y + tile.height, grid.height))
        height = min(tile.height, grid.height - tile.y)
        width = min(tile.width, grid.width - tile.x)
        weight = np.outer(
            self._ramp(self._rows, tile.row, tile.height)[:height],
            self._ramp(self._columns, tile.column, tile.width)[:width],
        )
        where = slice(tile.y - self._top, tile.y - self._top + height), slice(tile.x, tile.x + width)
        self._weight[where] += weight
        if prediction is not None:
            self._sum[where] += weight * prediction[:height, :width]
        if tile.last_in_row:
            yield from self._finished(tile.row)

    def _ramp(self, starts: list[int], index: int, length: int) -> Plane:
        """Weights along one axis: up over the overlap with the tile before, down over that with the tile after."""
        weight = np.ones(length, np.float32)
        if index > 0:
            overlap = starts[index - 1] + length - starts[index]
            weight[:overlap] = (np.arange(overlap) + 0.5) / overlap
        if index + 1 < len(starts):
            overlap = starts[index] + length - starts[index + 1]
            weight[length - overlap :] = np.minimum(
                weight[length - overlap :], (overlap - np.arange(overlap) - 0.5) / overlap
            )
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
        if count <= 0:
            return
        rows = self._sum[:count] / self._weight[:count]
        top, self._top = self._top, end
        self._sum, self._weight = self._sum[count:].copy(), self._weight[count:].copy()
        yield top, rows
