"""The brightness plane of a decoded frame, as 8 bits, without copying where the format allows.

Nearly every video stores luma as a plane of its own; the array is then a view of the decoder's memory. Limited
(16-235) and full (0-255) range are both passed on as they are: everything downstream compares neighbouring
pixels, and the 14 % between the two ranges do not matter to that.
"""

from __future__ import annotations

import re
from functools import cache

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

Luma = NDArray[np.uint8]

_PLANE_8 = re.compile(r"(yuv|yuvj|yuva)4\d\dp|nv(12|21|16|24|42)|gray")
_PLANE_LOW_BITS = re.compile(r"(?:yuva?4\d\dp|gray)(9|10|12|14|16)le")
_PLANE_HIGH_BITS = re.compile(r"(?:p[024](?:10|12|16)|nv20)le")

# ITU-R BT.2408: level of graphics white as a share of full scale. White text in HDR video is as dark as that.
# Keys: AVColorTransferCharacteristic, SMPTE ST 2084 (PQ) and ARIB STD-B67 (HLG).
_GRAPHICS_WHITE = {16: 0.58, 18: 0.75}


def luma_plane(frame: av.VideoFrame) -> Luma:
    """Luma [height, width] uint8 of the frame as stored (not turned, not stretched).

    A read-only view of the frame's memory for 8-bit formats with a luma plane. The view keeps the frame alive, so
    it may be held, but each one held is one more frame in memory. Deeper formats are shifted to 8 bits; packed,
    palette and RGB formats are converted (BT.601 weights). HDR (PQ, HLG) is stretched so that graphics white
    comes to 205, about where white text lies in other video.
    """
    bits, shift = _layout(frame.format.name)
    if bits == 0:
        luma = _samples(frame.reformat(format="gray"), 8)
    elif bits == 8:
        luma = _samples(frame, 8)
    else:
        luma = np.empty((frame.height, frame.width), np.uint8)
        # shifting and narrowing in one pass, half the time of `(samples >> shift).astype(np.uint8)`
        np.right_shift(_samples(frame, 16), shift, out=luma, dtype=np.uint16, casting="unsafe")
    white = _GRAPHICS_WHITE.get(frame.color_trc)
    return luma if white is None else _hdr_table(white)[luma]


@cache
def _layout(format_name: str) -> tuple[int, int]:
    """Bits of a stored luma sample, and how far to shift it right to get 8; (0, 0) without a luma plane."""
    if _PLANE_8.fullmatch(format_name):
        return 8, 0
    low_bits = _PLANE_LOW_BITS.fullmatch(format_name)
    if low_bits:
        return 16, int(low_bits[1]) - 8
    return (16, 8) if _PLANE_HIGH_BITS.fullmatch(format_name) else (0, 0)


def _samples(frame: av.VideoFrame, bits: int) -> Luma:
    """The first plane [height, width] as it lies in memory, uint8 or uint16."""
    plane = VideoPlane(frame, 0)  # `frame.planes` would wrap the chroma planes as well
    stride = plane.line_size  # bytes, with padding; negative when rows are stored bottom up
    sample = np.uint8 if bits == 8 else np.uint16
    rows = np.ndarray((frame.height, frame.width), sample, memoryview(plane), 0, (abs(stride), bits // 8))
    if stride < 0:
        rows = np.ascontiguousarray(rows[::-1])
    rows.setflags(write=False)  # the decoder may still predict other frames from this memory
    return rows


@cache
def _hdr_table(white: float) -> Luma:
    """[256]: black to graphics white is stretched over most of the range; what is brighter keeps a little of it."""
    level = (np.arange(256) - 16) / 219  # limited range, as HDR video practically always is
    return np.interp(level, [0, white, 1], [16, 205, 255]).astype(np.uint8)
