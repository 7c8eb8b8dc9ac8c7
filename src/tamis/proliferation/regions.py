"""Where to look first: squares of 2 mm2 on tissue, ranked by how many cells they hold (Lunit, arXiv 1612.07180)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.stain import haematoxylin

if TYPE_CHECKING:
    from tamis.slides import Slide

Mask = tuple[NDArray[np.bool_], float]
AREA_MM2 = 2.0  # ten high-power fields
OFFSETS = 2  # regions start at every half side
LEAST_TISSUE = 0.25  # share of a region
MOST_OVERLAP = 0.1  # of two ranked regions
CELLS_UM_PER_PX = 1.0
NUCLEUS_UM = 7.0  # centres of two nuclei are at least this far apart
NUCLEUS_OD = 0.18  # of haematoxylin above its surroundings
BLOCK_PX = 1024


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the slide, from its upper left corner, and the nuclei in it."""

    x_um: float
    y_um: float
    width_um: float
    height_um: float
    cells: int

    @property
    def area_mm2(self) -> float:
        return self.width_um * self.height_um / 1e6


def rank_regions(
    slide: Slide, mask: Mask, *, area_mm2: float = AREA_MM2, limit: int | None = None
) -> list[Region]:
    """Squares of `area_mm2` on tissue, most cells first, hardly overlapping; at most `limit`.

    mask   as from `tissue_mask`

    A slide smaller than one such square is one region if it holds tissue at all.
    """
    side = math.sqrt(area_mm2) * 1000
    nuclei = cell_centres(slide, mask)
    width, height = slide.size_um
    regions = []
    for y in _starts(height, side):
        across = np.sort(nuclei[(nuclei[:, 1] >= y) & (nuclei[:, 1] < y + side), 0])
        for x in _starts(width, side):
            if _share(mask, x, y, side, min(side, width), min(side, height)) >= LEAST_TISSUE:
                first, end = np.searchsorted(across, (x, x + side))
                regions.append(Region(x, y, min(side, width), min(side, height), int(end - first)))
    regions.sort(key=lambda region: -region.cells)
    kept: list[Region] = []
    for region in regions:
        if limit is not None and len(kept) >= limit:
            break
        if all(_overlap(region, other) <= MOST_OVERLAP for other in kept):
            kept.append(region)
    return kept


def cell_centres(slide: Slide, mask: Mask) -> NDArray[np.float64]:
    """Estimated nuclei of the tissue, [n, 2] (x_um, y_um): peaks of smoothed haematoxylin at 1 um/px.

    Counts touching nuclei as one more often than a segmentation would; it ranks regions, and is no cell count to publish.
    """
    um_per_px = max(CELLS_UM_PER_PX, slide.um_per_px)
    found = []
    for x_um, y_um, pixels in _blocks(slide, mask, um_per_px):
        places = nuclei_in(pixels, um_per_px)
        core = BLOCK_PX * um_per_px
        margin = NUCLEUS_UM * 2
        inside = ((places >= margin) & (places < margin + core)).all(1)
        found.append(places[inside] - margin + (x_um, y_um))
    if not found:
        return np.empty((0, 2))
    centres = np.concatenate(found)
    return centres[_in_mask(centres, mask)]


def nuclei_in(pixels: NDArray[np.uint8], um_per_px: float) -> NDArray[np.float64]:
    """Centres (x_um, y_um) [n, 2] of dark blue blobs, from the picture's corner."""
    density = haematoxylin(pixels)
    smooth = cv2.GaussianBlur(density, (0, 0), 1.6 / um_per_px)
    around = cv2.GaussianBlur(density, (0, 0), 12 / um_per_px)
    reach = 2 * max(1, round(NUCLEUS_UM / 2 / um_per_px)) + 1
    peak = smooth >= cv2.dilate(smooth, np.ones((reach, reach), np.uint8))
    y, x = np.nonzero(peak & (smooth - around > NUCLEUS_OD / 2) & (smooth > NUCLEUS_OD))
    return np.asarray((np.stack([x, y], 1) + 0.5) * um_per_px, np.float64)


def _blocks(slide: Slide, mask: Mask, um_per_px: float) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """Squares of BLOCK_PX with a margin around them, where there is tissue. (x_um, y_um) is without the margin."""
    side = BLOCK_PX * um_per_px
    margin = NUCLEUS_UM * 2
    size = math.ceil((side + 2 * margin) / um_per_px)
    width, height = slide.size_um
    for y in np.arange(0, height, side):
        for x in np.arange(0, width, side):
            if _share(mask, float(x), float(y), side, side, side) > 0:
                yield float(x), float(y), slide.read_region(x - margin, y - margin, size, size, um_per_px)


def _starts(length: float, side: float) -> list[float]:
    """Evenly spaced starts, at most `side / OFFSETS` apart, the last one ending at the edge."""
    if length <= side:
        return [0.0]
    count = math.ceil((length - side) / (side / OFFSETS)) + 1
    return [float(v) for v in np.linspace(0, length - side, count)]


def _share(mask: Mask, x: float, y: float, side: float, width: float, height: float) -> float:
    um = mask[1]
    rows, columns = mask[0].shape
    top, left = min(int(y / um), rows - 1), min(int(x / um), columns - 1)
    part = mask[0][
        top : max(top + 1, round((y + height) / um)), left : max(left + 1, round((x + width) / um))
    ]
    return float(part.mean()) if part.size else 0.0


def _in_mask(centres: NDArray[np.float64], mask: Mask) -> NDArray[np.bool_]:
    index = (centres / mask[1]).astype(int)
    rows, columns = mask[0].shape
    inside = (index >= 0).all(1) & (index[:, 0] < columns) & (index[:, 1] < rows)
    inside[inside] = mask[0][index[inside, 1], index[inside, 0]]
    return inside


def _overlap(a: Region, b: Region) -> float:
    """Shared area as a share of the smaller one."""
    width = min(a.x_um + a.width_um, b.x_um + b.width_um) - max(a.x_um, b.x_um)
    height = min(a.y_um + a.height_um, b.y_um + b.height_um) - max(a.y_um, b.y_um)
    return max(0.0, width) * max(0.0, height) / min(a.width_um * a.height_um, b.width_um * b.height_um)
