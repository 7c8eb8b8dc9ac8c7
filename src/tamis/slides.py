"""A whole-slide image, read in micrometres.

    with open_slide("breast.svs") as slide:
        pixels = slide.read_region(x_um=1500, y_um=800, width_px=512, height_px=512, um_per_px=0.25)

A place is given in um from the slide's upper left corner and a resolution in um per pixel; pyramid levels stay inside.
Tiled TIFF and Aperio SVS are decoded tile by tile (`tamis.slide_files`), several times faster than through openslide,
which stands behind for every other format. A slide that does not say how large its pixels are is refused unless `mpp`
is given: a detector trained at 0.25 um/px finds nothing, or everything, at a guessed scale.

A slide belongs to the process that opened it. Sent to another one it travels as a path and is opened there; after a
fork it opens itself again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, UsageError
from tamis.slide_files import Level, SlideFile, open_file
from tamis.tissue import refuse_fluorescence, tissue_mask

__all__ = [
    "Level",
    "Slide",
    "Tile",
    "UnknownResolution",
    "open_slide",
    "refuse_fluorescence",
    "tissue_mask",
]

Pixels = NDArray[np.uint8]
PLAUSIBLE_UM_PER_PX = (0.02, 50.0)  # outside lie screen resolutions (72 dpi = 353 um/px) and typing mistakes
WHITE = 255
MOST_SOURCE_PX = 1 << 24  # 48 MiB of pixels are resampled at once; larger reads are split
BLOCK_PX = 2048  # `tiles` decodes about this much at once


class UnknownResolution(InputError):
    """The file does not say how many micrometres a pixel is wide."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A square cut from a slide. `pixels` [size, size, 3] uint8, white outside the slide."""

    x_um: float
    y_um: float
    pixels: Pixels


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open a slide, a DICOM folder, or a plain image (PNG, JPEG, TIFF; needs `mpp`).

    mpp   um per pixel of the full resolution; goes before what the file says

    Raises InputError for what cannot be read, its subclass UnknownResolution when the scale is in doubt, and
    UsageError for an impossible `mpp`.
    """
    if mpp is not None and not PLAUSIBLE_UM_PER_PX[0] <= mpp <= PLAUSIBLE_UM_PER_PX[1]:
        raise UsageError(
            f"{mpp} um per pixel cannot be: slides have between {PLAUSIBLE_UM_PER_PX[0]} and {PLAUSIBLE_UM_PER_PX[1]}."
        )
    with ExitStack() as undo:
        file = open_file(Path(path))
        undo.callback(file.close)
        slide = Slide(Path(path), file, mpp)
        undo.pop_all()  # open from here on
        return slide


class Slide:
    """An open slide. Made by `open_slide`; close it, or use it in a `with` block."""

    def __init__(self, path: Path, file: SlideFile, mpp: float | None) -> None:
        found = file.um_per_px
        if found is not None and not PLAUSIBLE_UM_PER_PX[0] <= found <= PLAUSIBLE_UM_PER_PX[1]:
            found = None
        if mpp is None and found is None:
            raise UnknownResolution(
                f"{path}: the file does not say how large its pixels are; give it with --mpp (um per pixel; "
                "0.25 is usual for a 40x scan, 0.5 for 20x)."
            )
        self.path = path
        self.um_per_px: float = mpp if mpp is not None else float(found or math.nan)
        self.levels: tuple[Level, ...] = file.levels
        self._mpp = mpp
        self._file = file
        self._process = os.getpid()

    @property
    def reader(self) -> str:
        """What decodes the pixels, with its version."""
        return self._file.reader

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height at full resolution."""
        return self.levels[0].width_px, self.levels[0].height_px

    @property
    def origin_px(self) -> tuple[int, int]:
        """The corner from which QuPath counts: that of what was scanned, where the file notes it (MRXS, SCN)."""
        x, y = getattr(self._file, "origin_px", (0, 0))
        return x, y

    @property
    def size_um(self) -> tuple[float, float]:
        width, height = self.size_px
        return width * self.um_per_px, height * self.um_per_px

    def read_region(
        self, x_um: float, y_um: float, width_px: int, height_px: int, um_per_px: float | None = None
    ) -> Pixels:
        """Pixels [height_px, width_px, 3] uint8 RGB of any place at any resolution; white outside the slide.

        x_um, y_um   upper left corner, from the slide's own
        um_per_px    of the result; by default the slide's full resolution

        At a resolution that the file holds, these are its own pixels, uninterpolated, from the nearest whole pixel.
        Between levels, boxes of whole pixels are averaged and the rest is interpolated.
        """
        um_per_px = self.um_per_px if um_per_px is None else um_per_px
        if width_px < 1 or height_px < 1 or not um_per_px > 0:
            raise UsageError(f"A region of {width_px} x {height_px} px at {um_per_px} um/px holds no pixel.")
        level = self._level_for(um_per_px)
        scale = um_per_px / (self.um_per_px * self.levels[level].downsample)
        return self._read(level, x_um, y_um, width_px, height_px, um_per_px, scale)

    def read_level(self, level: int, x_px: int, y_px: int, width_px: int, height_px: int) -> Pixels:
        """The file's own pixels of one level, x_px and y_px counted in that level; white outside."""
        if self._process != os.getpid():  # the file offset is shared with the parent: never read through it
            self._file = open_file(self.path)
            self._process = os.getpid()
        size = self.levels[level]
        left, top = max(0, x_px), max(0, y_px)
        right, bottom = min(size.width_px, x_px + width_px), min(size.height_px, y_px + height_px)
        if (left, top, right, bottom) == (x_px, y_px, x_px + width_px, y_px + height_px):
            return self._file.read(level, x_px, y_px, width_px, height_px)
        out = np.full((height_px, width_px, 3), WHITE, np.uint8)
        if right > left and bottom > top:
            out[top - y_px : bottom - y_px, left - x_px : right - x_px] = self._file.read(
                level, left, top, right - left, bottom - top
            )
        return out

    def thumbnail(self, um_per_px: float | None = None, *, max_px: int | None = None) -> Pixels:
        """The whole slide, small: at `um_per_px`, or with its longer side `max_px` (default 1024). Memory stays bounded
        also when the file has one level only."""
        longer = max(self.size_um)
        um_per_px = um_per_px or max(longer / (max_px or 1024), self.um_per_px)
        width, height = (max(1, math.ceil(side / um_per_px - 1e-6)) for side in self.size_um)
        return self.read_region(0, 0, width, height, um_per_px)

    def tiles(
        self,
        size_px: int = 256,
        um_per_px: float | None = None,
        mask: tuple[NDArray[np.bool_], float] | None = None,
    ) -> Iterator[Tile]:
        """The slide as a grid of squares from its upper left corner, row by row (of large blocks, where the squares are
        not the file's own tiles); each tile of the file is decoded once.

        mask   (bool [h, w], um_per_px) as from `tissue_mask`: only tiles that touch it are read
        """
        um_per_px = self.um_per_px if um_per_px is None else um_per_px
        side_um = size_px * um_per_px
        columns, rows = (max(1, math.ceil(side / side_um - 1e-6)) for side in self.size_um)
        wanted = np.ones((rows, columns), bool) if mask is None else _touched(mask, rows, columns, side_um)
        level = self.levels[self._level_for(um_per_px)]
        native = math.isclose(um_per_px, self.um_per_px * level.downsample)
        if native and (level.tile_width_px, level.tile_height_px) == (size_px, size_px):
            step = 1  # the file's own tiles need no block to be cut from
        else:
            step = max(1, BLOCK_PX // size_px)
        for top in range(0, rows, step):
            for left in range(0, columns, step):
                block = wanted[top : top + step, left : left + step]
                if not block.any():
                    continue
                used_rows, used_columns = np.flatnonzero(block.any(1)), np.flatnonzero(block.any(0))
                row0, column0 = int(used_rows[0]), int(used_columns[0])
                pixels = self.read_region(
                    (left + column0) * side_um,
                    (top + row0) * side_um,
                    int(used_columns[-1] - column0 + 1) * size_px,
                    int(used_rows[-1] - row0 + 1) * size_px,
                    um_per_px,
                )
                for row, column in np.argwhere(block):
                    y, x = (row - row0) * size_px, (column - column0) * size_px
                    yield Tile(
                        float(left + column) * side_um,
                        float(top + row) * side_um,
                        pixels[y : y + size_px, x : x + size_px],
                    )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return open_slide, (self.path, self._mpp)

    def _level_for(self, um_per_px: float) -> int:
        """The coarsest level that is not coarser than `um_per_px`."""
        fine = [i for i, s in enumerate(self.levels) if self.um_per_px * s.downsample <= um_per_px * 1.005]
        return max(fine, key=lambda i: self.levels[i].downsample, default=0)

    def _read(
        self, level: int, x_um: float, y_um: float, width: int, height: int, um_per_px: float, scale: float
    ) -> Pixels:
        """`scale` is the number of source pixels that a target pixel is wide."""
        per_px = self.um_per_px * self.levels[level].downsample
        x, y = x_um / per_px, y_um / per_px
        if abs(scale - 1) * max(width, height) < 0.5:
            return self.read_level(level, round(x), round(y), width, height)
        if width * height * scale * scale > MOST_SOURCE_PX and max(width, height) > 1:
            if width >= height:
                cut = width // 2
                first = self._read(level, x_um, y_um, cut, height, um_per_px, scale)
                rest = self._read(level, x_um + cut * um_per_px, y_um, width - cut, height, um_per_px, scale)
                return np.concatenate([first, rest], axis=1)
            cut = height // 2
            first = self._read(level, x_um, y_um, width, cut, um_per_px, scale)
            rest = self._read(level, x_um, y_um + cut * um_per_px, width, height - cut, um_per_px, scale)
            return np.concatenate([first, rest])
        box = max(1, math.floor(scale + 1e-6))
        # One box more on each side, so that interpolation sees neighbours; the left edge lies on a multiple of the
        # box, so that neighbouring regions average the same boxes.
        left, top = (math.floor(v / box) * box - box for v in (x, y))
        columns = math.ceil((x + width * scale - left) / box) + 1
        rows = math.ceil((y + height * scale - top) / box) + 1
        source = self.read_level(level, left, top, columns * box, rows * box)
        if box > 1:
            source = cv2.resize(source, (columns, rows), interpolation=cv2.INTER_AREA)
        # Centres of pixels: target column i lies at (i + 0.5) * scale + x in the source.
        step = scale / box
        shift_x, shift_y = ((v - edge) / box + 0.5 * step - 0.5 for v, edge in ((x, left), (y, top)))
        if abs(step - 1) < 1e-9 and abs(shift_x - round(shift_x)) + abs(shift_y - round(shift_y)) < 1e-6:
            i, j = round(shift_y), round(shift_x)
            return np.ascontiguousarray(source[i : i + height, j : j + width])
        matrix = np.array([[step, 0, shift_x], [0, step, shift_y]])
        return np.asarray(
            cv2.warpAffine(
                source,
                matrix,
                (width, height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )


def _touched(
    mask: tuple[NDArray[np.bool_], float], rows: int, columns: int, side_um: float
) -> NDArray[np.bool_]:
    """Which tiles of a grid of `side_um` hold a pixel of the mask. [rows, columns]"""
    found = np.zeros((rows, columns), bool)
    y, x = np.nonzero(mask[0])
    for dy in (0.01, 0.99):  # a mask pixel may lie across the border of two tiles
        for dx in (0.01, 0.99):
            row = ((y + dy) * mask[1] / side_um).astype(int)
            column = ((x + dx) * mask[1] / side_um).astype(int)
            inside = (row < rows) & (column < columns)
            found[row[inside], column[inside]] = True
    return found
