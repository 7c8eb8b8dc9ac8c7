"""Boundaries that follow the tissue: a guided filter (He, Sun & Tang, TPAMI 2013) of the map, led by the red channel.

Within each window the map becomes an affine function of the guide, q = a I + b, fitted by least squares, and the fits of
overlapping windows are averaged. Red is where haematoxylin and eosin differ most, so that nuclei-rich epithelium parts
from stroma. The fits are made on planes a quarter as wide (He & Sun, "Fast guided filter", 2015): a and b are smooth over a
window, and only the guide that they are applied to has edges.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.weakseg.maps import Map

RADIUS_PX = 20
"""Half a window: 25 um at 1.24 um/px, half a gland. Of 8 to 32 px the best on any four of the five folds (docs/weakseg.md)."""
EPSILON = 1e-3
"""Of the guide in [0, 1]: contrasts below its root, 0.03, count as flat."""
SMOOTHING_PX = 2.0
"""Of the guide: nuclei are to be a texture, not edges."""
STEP = 4
"""Pixels of the map to one of the planes that the fits are made on."""


def refine(
    probability: Map, image: NDArray[np.uint8], *, radius_px: int = RADIUS_PX, step: int = STEP
) -> Map:
    """Map [H, W] and image [H, W, 3], both at the working resolution -> map [H, W] in [0, 1].

    step  1 for the filter as first published: tests hold the fast one to it
    """
    height, width = probability.shape
    rest = -height % step, -width % step
    blurred = cv2.GaussianBlur(np.ascontiguousarray(image[..., 0]), (0, 0), SMOOTHING_PX)
    guide = cv2.copyMakeBorder(blurred, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE).astype(np.float32)
    guide *= np.float32(1 / 255)
    padded = cv2.copyMakeBorder(probability, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE)
    slope, offset = _fits(_shrunk(padded, step), _shrunk(guide, step), max(1, radius_px // step))
    if step > 1:
        slope, offset = (
            cv2.resize(plane, guide.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in (slope, offset)
        )
    cv2.multiply(slope, guide, dst=slope)
    cv2.add(slope, offset, dst=slope)
    return np.ascontiguousarray(np.clip(slope, 0, 1, out=slope)[:height, :width])


def _fits(
    probability: NDArray[np.float32], guide: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(a, b) of every window, averaged over the windows that a pixel lies in."""
    mean_guide, mean_map = _box(guide, radius), _box(probability, radius)
    covariance = _box(guide * probability, radius) - mean_guide * mean_map
    variance = _box(guide * guide, radius) - mean_guide * mean_guide
    slope = covariance / (variance + np.float32(EPSILON))
    return _box(slope, radius), _box(mean_map - slope * mean_guide, radius)


def _shrunk(plane: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    if step == 1:
        return plane
    size = plane.shape[1] // step, plane.shape[0] // step
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.float32)


def _box(plane: NDArray[Any], radius: int) -> NDArray[np.float32]:
    side = 2 * radius + 1
    return np.asarray(cv2.boxFilter(plane, -1, (side, side), borderType=cv2.BORDER_REFLECT_101))
