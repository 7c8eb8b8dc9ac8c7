"""Tiles that cover, and blending without seams.  python -m pytest tests/test_tiles.py"""

from __future__ import annotations

import numpy as np
import pytest

from tamis.tiles import Blender, Grid

SIZES = [(1, 1), (64, 64), (65, 63), (100, 257), (300, 40), (129, 513)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_tiles_cover_the_plane(width: int, height: int) -> None:
    covered = np.zeros((height, width), int)
    grid = Grid(width, height, tile=64, overlap=16)
    tiles = list(grid)
    for tile in tiles:
        covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] += 1
        assert tile.x + tile.width <= width
        assert tile.y + tile.height <= height
    assert covered.min() >= 1
    assert covered.max() <= 4
    assert len(grid) == len(tiles)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_what_is_cut_is_put_back(width: int, height: int, overlap: int) -> None:
    plane = np.random.default_rng(1).random((height, width), np.float32)
    grid = Grid(width, height, tile=64, overlap=overlap)
    blender = Blender(grid)
    back = np.full_like(plane, np.nan)
    next_y = 0
    for tile in grid:
        cut = plane[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        for y, rows in blender.add(tile, cut):
            assert y == next_y  # each row once, top to bottom
            next_y += len(rows)
            back[y : y + len(rows)] = rows
    assert next_y == height
    np.testing.assert_allclose(back, plane, rtol=1e-5)


def test_neighbours_that_differ_are_blended_without_a_step() -> None:
    grid = Grid(112, 64, tile=64, overlap=16)
    blender = Blender(grid)
    rows = [
        rows for tile in grid for _, rows in blender.add(tile, np.full((64, 64), tile.column, np.float32))
    ]
    line = rows[0][0]
    assert line[0] == 0
    assert line[-1] == 1
    assert np.abs(np.diff(line)).max() < 0.08  # 1 / 16 a pixel


def test_a_tile_that_was_not_looked_at_is_zero() -> None:
    grid = Grid(50, 50, tile=64, overlap=16)
    blender = Blender(grid)
    (tile,) = grid
    ((_, rows),) = blender.add(tile, None)
    assert not rows.any()


def test_memory_is_one_row_of_tiles() -> None:
    grid = Grid(100, 10_000, tile=64, overlap=16)
    blender = Blender(grid)
    for tile in grid:
        for _ in blender.add(tile, None):
            pass
        assert len(blender._sum) <= 64


@pytest.mark.parametrize(("tile", "overlap"), [(64, 33), (0, 0), (64, -1)])
def test_impossible_grids_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        Grid(100, 100, tile, overlap)
