"""What lies behind synthetic subtitles, and what a codec does to both: footage, drawn grounds, H.264 round trips."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

TRAIN_FOOTAGE = ("bigbuckbunny.mp4", "vtest.avi", "mdn_flower.mp4", "mdn_la_elf.mp4")
DEV_FOOTAGE = ("mdn_la_pig.mp4", "mdn_friday.mp4")


class Footage:
    """Grey frames of unsubtitled video, and plain and drawn backgrounds, cut at random."""

    def __init__(self, data: Path, names: Sequence[str]) -> None:
        self.films = [self._load(data / "subtitles" / "backgrounds" / name) for name in names]

    @staticmethod
    def _load(path: Path, limit: int = 48) -> NDArray[np.uint8]:
        frames = []
        with av.open(str(path)) as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i % 3 == 0:
                    grey = frame.to_ndarray(format="gray")
                    frames.append(cv2.resize(grey, (640, 360), interpolation=cv2.INTER_AREA))
                if len(frames) >= limit:
                    break
        return np.stack(frames)

    def cut(self, rng: Generator, height: int, width: int, frames: int) -> NDArray[np.float32]:
        """[frames, height, width] float32 in 0..255."""
        kind = rng.random()
        if kind < 0.30:
            value = pick(rng, 0, 0, 16, 255, 235, 245, int(rng.integers(0, 256)))
            plain = np.full((height, width), value, np.float32)
            if rng.random() < 0.5:
                plain += np.linspace(0, rng.normal(0, 40), width, dtype=np.float32)[None]
            return np.repeat(plain.clip(0, 255)[None], frames, 0)
        if kind < 0.45:
            return np.repeat(_line_art(rng, height, width)[None], frames, 0)
        film = self.films[rng.integers(len(self.films))]
        start = int(rng.integers(0, len(film) - frames))
        zoom = float(rng.uniform(0.7, 3.0))
        part_h = min(359, max(8, int(height / zoom)))
        part_w = min(639, max(16, int(width / zoom)))
        y, x = int(rng.integers(0, 360 - part_h)), int(rng.integers(0, 640 - part_w))
        step = int(pick(rng, 0, 0, 1, 1, 3))  # a still shot, or motion
        gain, lift = rng.uniform(0.5, 1.4), pick(rng, 0, 0, 30, 90, -30)
        out = np.empty((frames, height, width), np.float32)
        for i in range(frames):
            part = film[start + min(i * step, frames - 1), y : y + part_h, x : x + part_w]
            out[i] = cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR)
        return (out * gain + lift).clip(0, 255)


def _line_art(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    picture = np.full((height, width), int(pick(rng, 255, 235, 200, 30, int(rng.integers(0, 256)))), np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        points = rng.integers(-20, max(width, height) + 20, (int(rng.integers(2, 5)), 2)).astype(np.int32)
        colour = int(pick(rng, 0, 20, 255, int(rng.integers(0, 256))))
        if rng.random() < 0.4:
            cv2.fillPoly(picture, [points], colour, cv2.LINE_AA)
        else:
            cv2.polylines(picture, [points], rng.random() < 0.5, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
    return picture.astype(np.float32)


def codec_round_trip(frames: NDArray[np.uint8], crf: int, codec: str = "libx264") -> NDArray[np.uint8]:
    """Encode and decode grey frames [n, h, w] (even sides) as video does; the loss is the point."""
    n, height, width = frames.shape
    encoder = cast(av.VideoCodecContext, av.CodecContext.create(codec, "w"))
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": "veryfast", "tune": "zerolatency"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    grey = np.full((height // 2, width), 128, np.uint8)
    out: list[NDArray[np.uint8]] = []

    def collect(packets: Sequence[av.Packet[Any]]) -> None:
        for packet in packets:
            out.extend(_luma(frame) for frame in decoder.decode(packet))

    for i in range(n):
        frame = av.VideoFrame.from_ndarray(np.vstack([frames[i], grey]), format="yuv420p")
        frame.pts = i
        collect(encoder.encode(frame))
    collect(encoder.encode(None))
    out.extend(_luma(frame) for frame in decoder.decode(None))
    return np.stack(out)


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    plane = frame.planes[0]
    return (
        np.frombuffer(memoryview(plane), np.uint8)
        .reshape(-1, plane.line_size)[: frame.height, : frame.width]
        .copy()
    )


def pick(rng: Generator, *values: float) -> float:
    return float(values[int(rng.integers(len(values)))])
