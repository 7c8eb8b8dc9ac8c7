"""Boundaries that follow the tissue: a guided filter (He, Sun & Tang, TPAMI 2013) of the map, led by the red channel.

Within each window the map becomes an affine function of the guide, q = a I + b, fitted by least squares, and the fits of
overlapping windows are averaged. Red is where haematoxylin and eosin differ most, so that nuclei-rich epithelium parts
from stroma. Four box filters, whatever the radius.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.weakseg.maps import Map

RADIUS_PX = 32
"""Half a window: 40 um at 1.24 um/px, about the width of a gland."""
EPSILON = 1e-3
"""Of the guide in [0, 1]: contrasts below its root, 0.03, count as flat."""
SMOOTHING_PX = 2.0
"""Of the guide: nuclei are to be a texture, not edges."""


def refine(probability: Map, image: NDArray[np.uint8]) -> Map:
    """Map [H, W] and image [H, W, 3], both at the working resolution -> map [H, W] in [0, 1]."""
    guide = cv2.GaussianBlur(image[..., 0], (0, 0), SMOOTHING_PX).astype(np.float32) / np.float32(255)
    mean_guide, mean_map = _box(guide), _box(probability)
    covariance = _box(guide * probability) - mean_guide * mean_map
    variance = _box(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + EPSILON)
    offset = mean_map - slope * mean_guide
    return np.asarray((_box(slope) * guide + _box(offset)).clip(0, 1), np.float32)


def _box(plane: NDArray[Any]) -> NDArray[np.float32]:
    side = 2 * RADIUS_PX + 1
    return np.asarray(cv2.boxFilter(plane, -1, (side, side), borderType=cv2.BORDER_REFLECT_101))
