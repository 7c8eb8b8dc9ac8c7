"""The brightness plane of a decoded frame, as 8 bits, without copying where the format allows.

Nearly every video stores luma as a plane of its own; the array is then a view of the decoder's memory. Limited
(16-235) and full (0-255) range are both passed on as they are: everything downstream compares neighbouring pixels, and
the 14 % between the two ranges do not matter to that.
"""

from __future__ import annotations

import re

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Luma = NDArray[np.uint8]

_PLANE_8 = re.compile(r"(yuv|yuvj|yuva)4\d\dp|nv(12|21|16|24|42)|gray")
_PLANE_DEEP = re.compile(r"(?:yuva?4\d\dp|gray)(9|10|12|14|16)le")  # samples in the low bits of 16
_PLANE_DEEP_HIGH = re.compile(r"(?:p[024](?:10|12|16)|nv20)le")  # samples in the high bits of 16

# ITU-R BT.2408: the signal level of graphics white, as a share of full scale. White text in HDR video is that dark.
_GRAPHICS_WHITE = {16: 0.58, 18: 0.75}  # AVColorTransferCharacteristic: SMPTE ST 2084 (PQ), ARIB STD-B67 (HLG)


def luma_plane(frame: av.VideoFrame) -> Luma:
    """Luma [height, width] uint8 of the frame as stored (not turned, not stretched).

    A read-only view of the frame's memory for 8-bit formats with a luma plane. The view keeps the frame alive, so it
    may be held, but each one held is one more frame in memory. Deeper formats are shifted to 8 bits; packed, palette
    and RGB formats are converted (BT.601 weights). HDR (PQ, HLG) is stretched so that graphics white becomes white.
    """
    name = frame.format.name
    deep = _PLANE_DEEP.fullmatch(name)
    if _PLANE_8.fullmatch(name):
        luma = _rows(frame, np.uint8)
    elif deep:
        luma = cv2.convertScaleAbs(_rows(frame, np.uint16), alpha=2.0 ** (8 - int(deep[1])))
    elif _PLANE_DEEP_HIGH.fullmatch(name):
        luma = cv2.convertScaleAbs(_rows(frame, np.uint16), alpha=1 / 256)
    else:
        luma = _rows(frame.reformat(format="gray"), np.uint8)
    white = _GRAPHICS_WHITE.get(frame.color_trc)
    return luma if white is None else cv2.LUT(luma, _hdr_table(white))


def _rows(frame: av.VideoFrame, sample: type[np.uint8] | type[np.uint16]) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    stride = plane.line_size  # bytes, with padding; negative when the rows are stored bottom up
    bytes_used = frame.width * np.dtype(sample).itemsize
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(stride))[:, :bytes_used]
    if stride < 0:
        rows = np.ascontiguousarray(rows[::-1])
    rows.flags.writeable = False  # the decoder may still predict other frames from this memory
    return rows.view(sample)  # type: ignore[return-value]


def _hdr_table(white: float) -> Luma:
    """[256]: limited-range levels, black to graphics white stretched to black to white."""
    level = (np.arange(256) - 16) / (219 * white)
    return np.clip(16 + 219 * level, 0, 255).astype(np.uint8)
