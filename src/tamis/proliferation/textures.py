"""The ground of a composed slide: real tumour fields in cells of a grid, blended over seams, on glass.

The fields are UCSB's (breast, 0.25 um/px). They are few, so they are split by patient: what a tested slide is made of, no
network was trained or tuned on. Nobody labelled them; three figures in them that we read as mitoses, or could not exclude, are
painted over. Every field is brought to the slide's one stain (`stain.repainted`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.proliferation.stain import Stain, repainted, stain_of
from tamis.proliferation.windows import painted_over

Pixels = NDArray[np.uint8]
CELL_PX, SEAM_PX = 640, 96  # a texture fills a cell and half a seam around it
COARSE_PX = 32  # of the map of tissue
GLASS = 243
PARTS_OF_PATIENTS = (
    "train", "test", "train", "validation", "test", "validation", "train", "test", "train",
)  # fmt: skip
"""In the order of their names, and from the beginning again if there are more."""
MITOSES = {"ytma12_010804_malignant2_ccd": ((298.0, 684.0), (454.0, 190.0), (510.0, 526.0))}
"""Unlabelled figures in the fields, (x, y) in px: two metaphases and a shrunken nucleus."""


def grounds_of(folder: Path, part: str) -> list[Pixels]:
    """The fields of `part`, without the figures of MITOSES. Raises InputError where there are none."""
    paths = [path for path in sorted(folder.glob("*")) if path.is_file()]
    patients = sorted({_patient(path) for path in paths})
    role = {p: PARTS_OF_PATIENTS[i % len(PARTS_OF_PATIENTS)] for i, p in enumerate(patients)}
    generator = np.random.default_rng(0)
    grounds = []
    for path in paths:
        if role[_patient(path)] == part:
            figures = MITOSES.get(path.stem, ())
            grounds.append(painted_over(_read(path), figures, figures, generator))
    if not grounds:
        raise InputError(
            f"{folder} holds no pictures of {len(PARTS_OF_PATIENTS)} patients: expected breast_ucsb (docs/data.md)."
        )
    return grounds


class Ground:
    """Tissue without objects, a function of seed and place: any rectangle of an endless plane, and where it is glass."""

    def __init__(self, textures: Sequence[Pixels], stain: Stain, *, size_px: int, seed: int) -> None:
        self.textures = [repainted(t, own, stain) if (own := stain_of(t)) else t for t in textures]
        self.size_px, self.seed = size_px, seed
        self._cells: dict[tuple[int, int], Pixels] = {}
        self.tissue = self._layout()

    def pixels(self, left: int, top: int, width: int, height: int) -> Pixels:
        """[height, width, 3]; the same wherever its borders lie."""
        shares = self._tissue_around(left, top, width, height)
        if shares.max() <= 0:
            return np.full((height, width, 3), GLASS, np.uint8)
        out = np.empty((height, width, 3), np.uint8)
        first, last = (
            (top // CELL_PX, left // CELL_PX),
            ((top + height - 1) // CELL_PX, (left + width - 1) // CELL_PX),
        )
        for row in range(first[0], last[0] + 1):
            for column in range(first[1], last[1] + 1):
                x, y = column * CELL_PX, row * CELL_PX
                for part in (
                    (x + SEAM_PX, y + SEAM_PX, x + CELL_PX, y + CELL_PX),
                    (x, y, x + CELL_PX, y + SEAM_PX),
                    (x, y + SEAM_PX, x + SEAM_PX, y + CELL_PX),
                ):
                    a, b = max(left, part[0]), max(top, part[1])
                    c, d = min(left + width, part[2]), min(top + height, part[3])
                    if c > a and d > b:
                        whole = part[0] == x + SEAM_PX
                        out[b - top : d - top, a - left : c - left] = (
                            self._cell(row, column)[b - y : d - y, a - x : c - x]
                            if whole
                            else self._blend(a, b, c, d)
                        )
        if shares.min() >= 1:
            return out
        columns = (np.arange(left, left + width, dtype=np.float32) + 0.5) / COARSE_PX
        rows = (np.arange(top, top + height, dtype=np.float32) + 0.5) / COARSE_PX
        here = cv2.remap(
            self.tissue, *np.meshgrid(columns, rows), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        mixed = GLASS + (out.astype(np.float32) - GLASS) * here[..., None]
        return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)

    def tissue_share(self, left: int, top: int, side: int) -> float:
        ends = (left + side) // COARSE_PX, (top + side) // COARSE_PX
        return float(self.tissue[top // COARSE_PX : ends[1], left // COARSE_PX : ends[0]].mean())

    def _blend(self, left: int, top: int, right: int, bottom: int) -> Pixels:
        """Textures weighted by their distance to the edges of their cells."""
        total = np.zeros((bottom - top, right - left, 3), np.float32)
        weight = np.zeros((bottom - top, right - left), np.float32)
        reach = CELL_PX + SEAM_PX
        for row in range((top - SEAM_PX) // CELL_PX, (bottom - 1) // CELL_PX + 1):
            for column in range((left - SEAM_PX) // CELL_PX, (right - 1) // CELL_PX + 1):
                x, y = column * CELL_PX, row * CELL_PX
                a, b, c, d = max(left, x), max(top, y), min(right, x + reach), min(bottom, y + reach)
                if c <= a or d <= b:
                    continue
                ramp = _RAMP[b - y : d - y, None] * _RAMP[None, a - x : c - x]
                texture = self._cell(row, column)[b - y : d - y, a - x : c - x]
                total[b - top : d - top, a - left : c - left] += texture * ramp[..., None]
                weight[b - top : d - top, a - left : c - left] += ramp
        return np.clip(total / weight[..., None] + 0.5, 0, 255).astype(np.uint8)

    def origin(self, x: int, y: int) -> tuple[int, int, int]:
        """Which texture (x, y) shows, and the place in it; at a seam the texture of the cell that begins there."""
        row, column = y // CELL_PX, x // CELL_PX
        texture, top, left, turns, mirrored = self._drawn(row, column)
        reach = CELL_PX + SEAM_PX
        places = np.rot90(np.arange(reach * reach).reshape(reach, reach), turns)
        places = places[:, ::-1] if mirrored else places
        down, across = divmod(int(places[y - row * CELL_PX, x - column * CELL_PX]), reach)
        return texture, left + across, top + down

    def _cell(self, row: int, column: int) -> Pixels:
        """[736, 736, 3]: some part of some texture, turned and mirrored."""
        if (row, column) not in self._cells:
            texture, y, x, turns, mirrored = self._drawn(row, column)
            reach = CELL_PX + SEAM_PX
            part = np.rot90(self.textures[texture][y : y + reach, x : x + reach], turns)
            # A view: the cells of a large slide take no memory.
            self._cells[row, column] = part[:, ::-1] if mirrored else part
        return self._cells[row, column]

    def _drawn(self, row: int, column: int) -> tuple[int, int, int, int, bool]:
        """A cell's texture, the top and left of its part, quarter turns, and whether it is mirrored then."""
        generator = np.random.default_rng((self.seed, 3, row + 1000, column + 1000))
        texture = int(generator.integers(len(self.textures)))
        height, width = self.textures[texture].shape[:2]
        reach = CELL_PX + SEAM_PX
        y, x = int(generator.integers(height - reach + 1)), int(generator.integers(width - reach + 1))
        return texture, y, x, int(generator.integers(4)), bool(generator.random() < 0.5)

    def _layout(self) -> NDArray[np.float32]:
        """Where there is tissue: a smooth random field, above its third decile, at COARSE_PX."""
        generator = np.random.default_rng((self.seed, 2))
        side = max(8, math.ceil(self.size_px / COARSE_PX) + 2)
        coarse = max(4, round(self.size_px / 2500))
        noise = cv2.resize(
            generator.normal(0, 1, (coarse, coarse)), (side, side), interpolation=cv2.INTER_CUBIC
        )
        fine = cv2.resize(
            generator.normal(0, 0.25, (coarse * 6,) * 2), (side, side), interpolation=cv2.INTER_CUBIC
        )
        y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
        height = noise + fine - 2.5 * np.maximum(np.hypot(x, y) - 0.75, 0)
        return np.clip((height - np.quantile(height, 0.3)) * 12 + 0.5, 0, 1).astype(np.float32)

    def _tissue_around(self, left: int, top: int, width: int, height: int) -> NDArray[np.float32]:
        """The part of the map that the rectangle is interpolated from."""
        side = len(self.tissue)
        a, b = np.clip((top // COARSE_PX - 1, (top + height) // COARSE_PX + 2), 0, side).tolist()
        c, d = np.clip((left // COARSE_PX - 1, (left + width) // COARSE_PX + 2), 0, side).tolist()
        return self.tissue[min(a, side - 1) : max(b, 1), min(c, side - 1) : max(d, 1)]


def _patient(path: Path) -> str:
    return path.stem.split("_malignant")[0].split("_benign")[0]


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None or min(bgr.shape[:2]) < CELL_PX + SEAM_PX:
        raise InputError(f"{path} is no picture of at least {CELL_PX + SEAM_PX} px.")
    return np.ascontiguousarray(bgr[..., ::-1])


_EDGE = np.minimum((np.arange(CELL_PX + SEAM_PX) + 0.5) / SEAM_PX, 1)
_RAMP = np.minimum(_EDGE, _EDGE[::-1]).astype(np.float32)
