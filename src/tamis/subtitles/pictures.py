"""Grey pictures as files: PNG for keeping, WebP for pages. zlib and libav, which are there anyway, do it."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from io import BytesIO
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LEVEL = 3  # of zlib: higher ones take three times as long for a twentieth


def png(plane: Plane) -> bytes:
    """A PNG file of a plane [height, width]: 8 bits, grey, every row as differences from pixel to pixel."""
    height, width = plane.shape
    rows = np.empty((height, width + 1), np.uint8)
    rows[:, 0] = 1  # the filter "Sub"
    rows[:, 1:2] = plane[:, :1]
    np.subtract(plane[:, 1:], plane[:, :-1], out=rows[:, 2:])  # modulo 256
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)), (b"IEND", b"")
    return _SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def grey(picture: bytes) -> Plane | None:
    """The pixels of a picture file; None where it is none."""
    try:
        with av.open(BytesIO(picture), "r") as container:
            frame = next(container.decode(video=0), None)
    except (av.FFmpegError, IndexError):
        return None
    return None if frame is None else cast(Plane, frame.to_ndarray(format="gray"))


def for_page(plane: Plane, quality: int) -> tuple[str, bytes]:
    """A file that browsers show, and its kind: WebP, or PNG where libav was built without it."""
    try:
        return "webp", webp(plane, quality)
    except av.codec.codec.UnknownCodecError:
        return "png", png(plane)


def webp(plane: Plane, quality: int) -> bytes:
    """A WebP file of a plane."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(plane), format="gray").reformat(format="yuv420p")
    encoder = av.CodecContext.create("libwebp", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
    encoder.time_base = Fraction(1)
    encoder.options = {"quality": str(quality)}
    frame.pts = 0
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
