"""What the samples of a TIFF look like: palettes, inks and white-is-zero as the colours that they stand for.

TIFF 6.0 calls it PhotometricInterpretation. Three or four samples of a pixel need not be red, green and blue.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tamis.errors import InputError


def as_shown(
    pixels: NDArray[Any], kind: Any, table: NDArray[np.uint16] | None, compression: Any, path: Path
) -> NDArray[Any]:
    """Grey [h, w], or RGB with whatever stands behind it [h, w, 3 or more], of pixels [h, w] or [h, w, samples].

    kind         the page's photometric interpretation
    table        the page's palette [3, n] of 16 bits

    Raises InputError, which names `path`, for colours that are not known here, such as CIELAB.
    """
    if kind == tifffile.PHOTOMETRIC.MINISWHITE:
        return np.asarray((np.iinfo(pixels.dtype).max if pixels.dtype == np.uint8 else pixels.max()) - pixels)
    if kind == tifffile.PHOTOMETRIC.PALETTE and table is not None:
        return (table[:, pixels.clip(0, table.shape[1] - 1)] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if kind == tifffile.PHOTOMETRIC.SEPARATED and pixels.dtype == np.uint8 and pixels.shape[2:] == (4,):
        light = 255 - pixels.astype(np.uint16)  # of cyan, magenta, yellow and black
        return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
    decoded = kind == tifffile.PHOTOMETRIC.YCBCR and compression == tifffile.COMPRESSION.JPEG  # to RGB
    if not decoded and kind not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
        name = getattr(kind, "name", kind)
        raise InputError(f"{path} has colours of the kind {name}, which are not read here: save it as RGB.")
    return pixels
