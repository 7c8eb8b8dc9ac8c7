"""Character Width Transform of a line: the width of one character (SCW) and its top and bottom boundary (STBB).

East Asian characters fill squares of one size at one pitch. The strokes' column profile therefore repeats with the
pitch, and their row profile ends where the squares' ink does. The profile's autocorrelation votes for the width, the ink
height says where to look.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]

INK_HEIGHT = 0.93  # height of the ink of several characters, in em


@dataclass(frozen=True, slots=True)
class Measure:
    """A line's ink in px of the picture it was measured in (floats: edges between pixels), and its character width.

    pitch_score  how clearly the profile repeats: autocorrelation at the pitch, 0 to 1
    """

    left: float
    top: float
    right: float
    bottom: float
    scw: float
    pitch_score: float


def edges(picture: Plane, mask: Plane) -> Plane:
    """Brightness steps across each pixel (largest of across and down), where `mask` is not 0."""
    across = cv2.absdiff(picture[1:-1, 2:], picture[1:-1, :-2])
    down = cv2.absdiff(picture[2:, 1:-1], picture[:-2, 1:-1])
    inner = cv2.max(across, down)
    out = np.zeros_like(picture)
    out[1:-1, 1:-1] = cv2.bitwise_and(inner, mask[1:-1, 1:-1])
    return out


def measure_line(picture: Plane, mask: Plane) -> Measure | None:
    """Measures the line of which `mask` (0 or 255) holds the strokes. None when there is no ink."""
    ink = edges(picture, mask)
    rows = cv2.reduce(ink, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F).ravel()
    columns = cv2.reduce(ink, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32F).ravel()
    if rows.max() <= 0:
        return None
    top, bottom = _extent(rows, 0.12 * float(np.percentile(rows[rows > 0], 85)))
    left, right = _extent(columns, 0.06 * float(np.percentile(columns[columns > 0], 90)))
    height = bottom - top
    guess = height / INK_HEIGHT
    scw, score = _pitch(columns[int(left) : int(right)], guess)
    return Measure(left, top, right, bottom, scw, score)


def _extent(profile: NDArray[np.float32], level: float) -> tuple[float, float]:
    filled = np.flatnonzero(profile > level)
    return float(filled[0]), float(filled[-1] + 1)


def _pitch(columns: NDArray[np.float32], guess: float) -> tuple[float, float]:
    """Lag of the best repetition of the profile near `guess`, and its autocorrelation."""
    if len(columns) < 3 * guess:
        return guess, 0.0
    signal = cv2.GaussianBlur(columns.reshape(1, -1), (0, 0), max(0.5, guess / 24)).ravel()
    signal = np.minimum(signal, np.percentile(signal, 75))
    slow = cv2.blur(signal.reshape(1, -1), (int(guess) | 1, 1)).ravel()
    signal = signal - slow
    size = 1 << (2 * len(signal) - 1).bit_length()
    spectrum = np.fft.rfft(signal, size)
    auto = np.fft.irfft(spectrum * np.conj(spectrum), size)[: len(signal)]
    auto = auto / max(1e-6, auto[0]) * len(signal) / np.maximum(1, len(signal) - np.arange(len(signal)))
    lags = np.arange(int(0.75 * guess), int(1.3 * guess) + 1)
    lags = lags[(lags > 1) & (lags < len(auto) - 1)]
    if len(lags) == 0:
        return guess, 0.0
    double = np.interp(2 * lags, np.arange(len(auto)), auto) if len(signal) > 4 * guess else auto[lags]
    score = (auto[lags] + 0.5 * double) * np.exp(-0.5 * (np.log(lags / guess) / 0.12) ** 2)
    best = int(lags[np.argmax(score)])
    a, b, c = auto[best - 1], auto[best], auto[best + 1]
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < 0 else 0.0
    return best + float(np.clip(shift, -0.5, 0.5)), float(auto[best])


class Scale:
    """What the lines of a clip have in common: the character width, its ratio to the ink height, the rows of lines."""

    def __init__(self) -> None:
        self.seen: list[tuple[Measure, int]] = []

    def add(self, measure: Measure, top: int) -> None:
        """Takes a line's measure; `top`: frame row of the picture it was measured in."""
        self.seen.append((measure, top))
        del self.seen[:-64]

    def fit(self, measure: Measure, top: int) -> tuple[float, float]:
        """(SCW in px, frame row of the middle of the em box) of a line."""
        return measure.scw, top + (measure.top + measure.bottom) / 2
