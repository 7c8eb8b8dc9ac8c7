"""Probability maps on disk, and images at the resolution that a network works at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.weakseg.images import BROKEN
from tamis.writing import replacing

Map = NDArray[np.float32]
"""[H, W], probability of cancer: the waist between every network and everything that follows."""


def to_working_size(
    image: NDArray[np.uint8], um_per_px: float | None, working_um_per_px: float | None, path: Path
) -> NDArray[np.uint8]:
    """Resample [H, W, 3] to the working resolution. Without one the image stays; without its own it is refused."""
    if working_um_per_px is None:
        return image
    if um_per_px is None:
        raise InputError(
            f"{path}: its um/px is unknown, and the network works at {working_um_per_px:g} um/px: add a column um_per_px to "
            "labels.csv, or train with --set um_per_px=null to take images as they are."
        )
    scale = um_per_px / working_um_per_px
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method))


def write_map(probability: Map, path: Path) -> None:
    """A 16-bit PNG, 65535 = 1."""
    encoded = cv2.imencode(".png", np.rint(probability.clip(0, 1) * 65535).astype(np.uint16))[1].tobytes()
    with replacing(path) as beside:
        beside.write_bytes(encoded)


def read_map(path: Path) -> Map:
    """[H, W] in [0, 1] from a PNG or the full-size level of an (OME-)TIFF. Integers are scaled by their largest value."""
    try:
        if path.suffix.lower() in {".tif", ".tiff"}:
            import tifffile

            values = np.asarray(tifffile.imread(path, series=0, level=0))
        else:
            found = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if found is None:
                raise ValueError("neither PNG nor another picture")
            values = np.asarray(found)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: there is no map to score.") from None
    except (cv2.error, *BROKEN) as fault:
        raise InputError(f"{path} is no readable map ({fault}).") from None
    if values.ndim != 2:
        raise InputError(
            f"{path} is no probability map: it has the shape {values.shape}, and [H, W] is expected."
        )
    if np.issubdtype(values.dtype, np.integer):
        return (values / np.iinfo(values.dtype).max).astype(np.float32)
    return values.astype(np.float32)
