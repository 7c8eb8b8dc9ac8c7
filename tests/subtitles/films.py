"""Small video files for the tests, made on the spot; every frame carries its own number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

MILLISECONDS = Fraction(1, 1000)
BITS = 6
DARK, BRIGHT = 40, 200


def numbered(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """[height, width]: six upright bars that spell `index` in binary, and one row of corners to tell up from down."""
    bars = [(BRIGHT if index >> bit & 1 else DARK) for bit in range(BITS)]
    picture = np.repeat(np.array(bars, np.uint8), -(-width // BITS))[:width]
    return np.tile(picture, (height, 1))


def number(luma: NDArray[np.uint8]) -> int:
    """The number that an upright frame carries."""
    width = luma.shape[1]
    middles = [int((bit + 0.5) * -(-width // BITS)) for bit in range(BITS)]
    return sum(int(luma[:, x].mean() > (DARK + BRIGHT) / 2) << bit for bit, x in enumerate(middles))


def film(
    path: Path,
    stamps: Sequence[int],
    *,
    time_base: Fraction = MILLISECONDS,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
    sound_s: float = 0,
    pictures: Sequence[NDArray[np.uint8]] | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes a video whose frame n is shown at `stamps[n] * time_base`. `rotation` is clockwise, in degrees."""
    width, height = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        fast = {"preset": "ultrafast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=fast | (codec_options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = time_base
        if rotation:
            stream.set_display_rotation(-rotation)
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        sound = container.add_stream("aac", rate=8000, layout="mono") if sound_s else None
        for index, stamp in enumerate(stamps):
            luma = numbered(index, width, height) if pictures is None else pictures[index]
            frame = av.VideoFrame.from_ndarray(luma, format="gray")
            frame.color_range = 2  # so that converting keeps the spread of levels
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, int(8000 * sound_s)), np.float32), "fltp", "mono"
            )
            silence.sample_rate, silence.pts, silence.time_base = 8000, 0, Fraction(1, 8000)
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path
