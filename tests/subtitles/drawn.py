"""Frames drawn for the tests of the detector: letters of random strokes on footage that moves.

A letter is drawn from its character alone, so that equal texts look alike and different ones do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
RATE = 25
WIDTH, HEIGHT = 640, 360
EM = 28


@dataclass(frozen=True)
class Frame:
    time: Fraction
    duration: Fraction
    luma: Plane


@dataclass(frozen=True)
class Shown:
    """A text from frame `first` until before frame `last`; `left` is its first letter's, the middle when None."""

    text: str
    first: int
    last: int
    top: int = 310
    left: int | None = None
    bright: int = 235
    around: int | None = 20
    drift: int = 0  # px a frame to the right: a sign in the scene
    fade: int = 0  # frames, at both ends


@cache
def letter(character: str, em: int = EM) -> Plane:
    """[em, em] uint8, 255 on ink: the strokes fill about 0.92 of the square, as those of most faces do."""
    rng = np.random.default_rng(ord(character))
    ink = np.zeros((em, em), np.uint8)
    low, high, thick = round(0.05 * em), round(0.93 * em), max(2, em // 12)
    rows = [low, high - thick, *rng.integers(low, high - thick, 2).tolist()]
    columns = [low, high - thick, *rng.integers(low, high - thick, 2).tolist()]
    for row in rows:
        a, b = sorted(rng.integers(low, high, 2).tolist())
        ink[row : row + thick, a : max(b, a + em // 2)] = 255
    for column in columns:
        a, b = sorted(rng.integers(low, high, 2).tolist())
        ink[a : max(b, a + em // 2), column : column + thick] = 255
    ink[:, high:] = ink[high:] = 0
    return ink


def ink_of(text: str, em: int = EM) -> Plane:
    """[em, em * letters]; a space is an empty square."""
    blank = np.zeros((em, em), np.uint8)
    return np.hstack([blank if c == " " else letter(c, em) for c in text])


def write(picture: Plane, shown: Shown, number: int) -> None:
    """Draws a text into frame `number`, with an outline of two pixels where `around` says how bright."""
    ink = ink_of(shown.text)
    left = (WIDTH - ink.shape[1]) // 2 if shown.left is None else shown.left
    left += shown.drift * (number - shown.first)
    high, wide = ink.shape
    part = picture[shown.top - 3 : shown.top + high + 3, left - 3 : left + wide + 3]
    ink = cv2.copyMakeBorder(ink, 3, 3, 3, 3, cv2.BORDER_CONSTANT)
    drawn = part.copy()
    if shown.around is not None:
        drawn[cv2.dilate(ink, np.ones((5, 5), np.uint8)) > 0] = shown.around
    drawn[ink > 0] = shown.bright
    edge = min(number - shown.first, shown.last - 1 - number)
    alpha = 1.0 if edge >= shown.fade else (edge + 1) / (shown.fade + 1)
    part[:] = cv2.addWeighted(drawn, alpha, part, 1 - alpha, 0)


@cache
def footage(seed: int = 0) -> Plane:
    """[HEIGHT, 3 * WIDTH]: soft shapes, dark enough for bright text, through which a camera pans."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (HEIGHT // 8, 3 * WIDTH // 8), dtype=np.uint8)
    soft = cv2.GaussianBlur(cv2.resize(noise, (3 * WIDTH, HEIGHT)), (0, 0), 3)
    return np.clip(soft.astype(np.float32) * 0.7 + 10, 0, 255).astype(np.uint8)


def panning(number: int) -> Plane:
    """Footage of frame `number`: a pan of 3 px a frame."""
    x = 3 * number % (2 * WIDTH)
    return footage()[:, x : x + WIDTH]


def flat(level: int) -> Callable[[int], Plane]:
    return lambda number: np.full((HEIGHT, WIDTH), level, np.uint8)


def clip(
    count: int,
    texts: Sequence[Shown] = (),
    ground: Callable[[int], Plane] = panning,
    times: Sequence[Fraction] | None = None,
) -> list[Frame]:
    """`count` frames at RATE, or at `times` (one more than frames: the end)."""
    times = times or [Fraction(n, RATE) for n in range(count + 1)]
    frames = []
    for n in range(count):
        picture = np.ascontiguousarray(ground(n)).copy()
        for shown in texts:
            if shown.first <= n < shown.last:
                write(picture, shown, n)
        frames.append(Frame(times[n], times[n + 1] - times[n], picture))
    return frames
