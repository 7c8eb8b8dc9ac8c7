"""A slide in 21 numbers: seven statistics over its ranked regions, of mitoses, of cells and of their ratio.

The winner of TUPAC16 (Lunit, arXiv 1612.07180) described a slide by 21 statistics of this kind; their exact list is not
settled here, so this one is ours: mean, largest, smallest, standard deviation, median, sum, and mean of the top three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region

REGIONS = 30
AREA_MM2 = 2.0
STATISTICS: Mapping[str, Callable[[NDArray[np.float64]], Any]] = {
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "sd": np.std,
    "median": np.median,
    "sum": np.sum,
    "top3": lambda values: np.mean(np.sort(values)[-3:]),
}
QUANTITIES = ("mitoses", "cells", "mitoses_per_1000_cells")
NAMES = tuple(f"{quantity}_{statistic}" for quantity in QUANTITIES for statistic in STATISTICS)


def slide_features(mitoses: Sequence[Mitosis], regions: Sequence[Region]) -> NDArray[np.float64]:
    """[21], in the order of NAMES; zeros where there is no region.

    Counts are taken to 2 mm2, so that a region cut off by the slide's edge counts like any other; the ratio is pooled
    with half a cell, so that an empty region has one.
    """
    if not regions:
        return np.zeros(len(NAMES))
    places = np.array([(m.x_um, m.y_um) for m in mitoses], np.float64).reshape(-1, 2)
    found = np.array([count_inside(places, region) for region in regions], np.float64)
    cells = np.array([region.cells for region in regions], np.float64)
    scale = AREA_MM2 / np.array([region.area_mm2 for region in regions])
    columns = (found * scale, cells * scale, 1000 * found / (cells + 0.5))
    return np.array([float(statistic(column)) for column in columns for statistic in STATISTICS.values()])


def count_inside(places_um: NDArray[np.float64], region: Region) -> int:
    """How many of the places [n, 2] lie in the region, its left and upper edge included."""
    corner, size = np.array([region.x_um, region.y_um]), np.array([region.width_um, region.height_um])
    return int(((places_um >= corner) & (places_um < corner + size)).all(axis=1).sum())
