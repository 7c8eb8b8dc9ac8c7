"""What segmentation leaves behind: a pyramidal OME-TIFF of the probabilities, an overlay, a summary."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from tamis.writing import replacing

TILE_PX = 256
SMALLEST_LEVEL_PX = 256
OVERLAY_MAX_PX = 2048
DEFLATE_LEVEL = 4
"""Of libdeflate: a third of the time of zlib's usual 6, and a tenth larger."""
STEPS = 255
"""Probabilities are kept in steps of 1/255: a byte a pixel on the way, and floats that compress tenfold at the end."""
OUTLINE = (200, 0, 0)


def write_probability(kept: NDArray[np.uint8], path: Path, um_per_px: float | None) -> None:
    """[H, W] in steps of 1/255 (an array or a memory map) -> float32 pyramid, tiled and deflated, in bounded memory.

    Levels below the full size are means of 2 x 2, down to one tile; `PhysicalSizeX` says um per px.
    """
    levels = [kept]
    while max(levels[-1].shape) > SMALLEST_LEVEL_PX:
        levels.append(_halved(levels[-1]))
    metadata: dict[str, Any] = {"axes": "YX", "Channel": {"Name": ["probability of cancer"]}}
    resolution: dict[str, Any] = {}
    if um_per_px is not None:
        metadata |= {
            "PhysicalSizeX": um_per_px,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": um_per_px,
            "PhysicalSizeYUnit": "µm",
        }
        resolution = {"resolutionunit": "CENTIMETER"}
    options: dict[str, Any] = {"tile": (TILE_PX, TILE_PX), "compression": "zlib", "photometric": "minisblack"}
    with (
        replacing(path) as beside,
        tifffile.TiffWriter(beside, bigtiff=kept.size > 1 << 29, ome=True) as file,
    ):
        for index, level in enumerate(levels):
            if um_per_px is not None:
                resolution["resolution"] = (1e4 / (um_per_px * 2**index),) * 2
            file.write(
                _tiles(level),
                shape=level.shape,
                dtype=np.float32,
                subifds=len(levels) - 1 if index == 0 else 0,
                subfiletype=1 if index else 0,
                metadata=metadata if index == 0 else None,
                **options,
                **resolution,
            )


def _tiles(level: NDArray[np.uint8]) -> Iterator[bytes]:
    """Deflated as TIFF wants it."""
    values = (np.arange(STEPS + 1) / STEPS).astype(np.float32)
    for y in range(0, level.shape[0], TILE_PX):
        for x in range(0, level.shape[1], TILE_PX):
            tile = np.zeros((TILE_PX, TILE_PX), np.uint8)
            part = level[y : y + TILE_PX, x : x + TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield bytes(imagecodecs.deflate_encode(values[tile].tobytes(), level=DEFLATE_LEVEL))


def _halved(level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels, a band of rows at a time; an odd last row or column stands for itself."""
    height, width = (-(-length // 2) for length in level.shape)
    out = np.empty((height, width), np.uint8)
    for top in range(0, height, 1024):
        band = np.asarray(level[2 * top : 2 * (top + 1024)])
        band = np.pad(band, ((0, band.shape[0] % 2), (0, band.shape[1] % 2)), mode="edge")
        out[top : top + 1024] = cv2.resize(band, (width, band.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return out


def write_overlay(picture: NDArray[np.uint8], mask: NDArray[np.bool_], path: Path) -> None:
    """The picture [h, w, 3], what is marked tinted and outlined. `mask` may be larger; it is resampled."""
    height, width = picture.shape[:2]
    small = cv2.resize(
        mask.astype(np.uint8),
        (width, height),
        interpolation=cv2.INTER_AREA if mask.size > picture.size // 3 else cv2.INTER_NEAREST,
    )
    colour = np.full_like(picture, OUTLINE)
    tinted = picture.copy()
    cv2.copyTo(cv2.addWeighted(picture, 0.75, colour, 0.25, 0), small, tinted)
    contours, _ = cv2.findContours(small, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(width, height) / 800))
    cv2.drawContours(tinted, contours, -1, OUTLINE, thickness)
    with replacing(path) as beside:
        beside.write_bytes(png(tinted))


def png(picture: NDArray[np.uint8]) -> bytes:
    """[H, W, 3] RGB: each row less the one above (filter 2), by libdeflate: a third of the time of OpenCV's, half the size."""
    height, width = picture.shape[:2]
    flat = picture.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256, as the format has it
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # eight bits, RGB
    body = bytes(imagecodecs.deflate_encode(rows.tobytes(), level=1))
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    # A file name that is no UTF-8 holds half characters, and their escape by Python is that of JSON, too.
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
