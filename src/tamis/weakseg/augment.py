"""Augmentation that keeps the share of cancer in an image: flips, quarter turns, stain, light. NumPy only.

The stain is shaken in optical density along haematoxylin, eosin and the rest (Ruifrok & Johnston 2001; the recipe of
Tellez et al. 2018). Crops and strong zooms would change the area that the label states, so there are none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Rows: optical densities of haematoxylin, eosin, and the direction perpendicular to both, in R, G, B.
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]])
_STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
_REST = np.cross(_STAINS[0], _STAINS[1])
STAINS = np.vstack([_STAINS, _REST / np.linalg.norm(_REST)])
UNMIX = np.linalg.inv(STAINS)


def shake_stain(
    image: NDArray[np.uint8], generator: np.random.Generator, *, gain: float = 0.2, offset: float = 0.03
) -> NDArray[np.uint8]:
    """[H, W, 3] -> the same with each stain's density times 1 +- gain plus +- offset (uniform)."""
    scale = generator.uniform(1 - gain, 1 + gain, 3)
    shift = generator.uniform(-offset, offset, 3)
    # One affine map of optical densities: mixing back what was unmixed and changed.
    matrix = (UNMIX * scale) @ STAINS
    density = -np.log((image.astype(np.float32) + 1) / 256)
    changed = density @ matrix.astype(np.float32) + (shift @ STAINS).astype(np.float32)
    return np.rint((256 * np.exp(-changed) - 1).clip(0, 255)).astype(np.uint8)


def shake_light(
    image: NDArray[np.uint8], generator: np.random.Generator, *, gain: float = 0.2, offset: float = 20.0
) -> NDArray[np.uint8]:
    """[H, W, 3] -> contrast times 1 +- gain about the mean, plus +- offset: for images that are not stained."""
    values = image.astype(np.float32)
    mean = values.mean()
    changed = (
        (values - mean) * generator.uniform(1 - gain, 1 + gain) + mean + generator.uniform(-offset, offset)
    )
    return np.rint(changed.clip(0, 255)).astype(np.uint8)


def turn(plane: NDArray[np.generic], *, transpose: bool, flip_x: bool, flip_y: bool) -> NDArray[np.generic]:
    """One of the eight symmetries of the square, on [H, W] or [H, W, C]. With `transpose`, H and W change places."""
    if transpose:
        plane = plane.swapaxes(0, 1)
    return np.ascontiguousarray(plane[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
