"""Pictures behind the end-to-end subtitle clips: real footage moved and graded, drawings, signs and logos.

Everything is drawn frame by frame with OpenCV from a seed, at any size, so that no two clips look alike although the
footage is short. Frames are uint8 BGR [height, width, 3].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from subtitles_sentences import Face

Frame = NDArray[np.uint8]
Size = tuple[int, int]  # width, height

HELD_OUT = ("bikes.mp4", "mdn_la_rabbit.mp4", "tree.avi")
FOOTAGE = {
    "test": HELD_OUT,
    "former": HELD_OUT,
    "previous": HELD_OUT,
    "third": HELD_OUT,
    "dev": ("mdn_la_pig.mp4", "mdn_friday.mp4"),
}


def _endless(path: Path, start: float) -> Iterator[tuple[float, Frame]]:
    """(time in s since the start, frame) for ever, from `start` (0..1 of the length), looped with a jump."""
    capture = cv2.VideoCapture(str(path))
    rate = min(max(capture.get(cv2.CAP_PROP_FPS), 5.0), 60.0)
    skip = int(start * capture.get(cv2.CAP_PROP_FRAME_COUNT))
    shown = 0
    while True:
        ok, image = capture.read()
        if not ok:
            capture.release()
            capture = cv2.VideoCapture(str(path))
            continue
        if skip > 0:
            skip -= 1
            continue
        yield shown / rate, np.asarray(image, dtype=np.uint8)
        shown += 1


def _at_times(source: Iterator[tuple[float, Frame]], times: NDArray[np.float64]) -> Iterator[Frame]:
    """The frame that is on screen at each time; the picture is repeated when the source is slower."""
    _moment, image = next(source)
    following, upcoming = next(source)
    for time in times:
        while following <= time:
            image = upcoming
            following, upcoming = next(source)
        yield image


def _grade(rng: np.random.Generator, kind: str) -> NDArray[np.uint8]:
    """Tone curve [256, 1, 3] of a shot: bright and dark looks, gamma, a slight tint."""
    ramp = np.linspace(0, 1, 256)
    gamma = float(rng.uniform(0.8, 1.25))
    low, high = 0.0, 1.0
    if kind == "bright":
        gamma, low, high = float(rng.uniform(0.45, 0.7)), float(rng.uniform(0.25, 0.4)), 1.15
    elif kind == "dark":
        gamma, high = float(rng.uniform(1.2, 1.8)), float(rng.uniform(0.4, 0.7))
    elif kind == "pale":  # light enough everywhere for dark letters without an outline
        gamma, low, high = 0.7, 0.66, 1.0
    curve = low + (high - low) * ramp**gamma
    tint = rng.uniform(0.94, 1.06, 3)
    return np.clip(255 * curve[:, None, None] * tint, 0, 255).astype(np.uint8)


def _patches(
    rng: np.random.Generator, size: Size, colours: list[tuple[int, int, int]]
) -> list[tuple[str, tuple]]:
    """Large flat regions over the lower part of the picture, such as snow, shirts, paper or neon."""
    width, height = size
    found: list[tuple[str, tuple]] = []
    for _ in range(int(rng.integers(2, 5))):
        colour = colours[int(rng.integers(len(colours)))]
        x, y = int(rng.uniform(-0.1, 0.6) * width), int(rng.uniform(0.45, 0.7) * height)
        w, h = int(rng.uniform(0.3, 0.8) * width), int(rng.uniform(0.25, 0.55) * height)
        found.append((str(rng.choice(["box", "oval"])), (x, y, w, h, colour)))
    return found


WHITES = [(255, 255, 255), (245, 250, 252), (235, 240, 244), (225, 232, 236)]
YELLOWS = [(60, 220, 250), (20, 200, 240), (120, 235, 255), (40, 180, 225)]


def _draw_patches(image: Frame, patches: list[tuple[str, tuple]]) -> Frame:
    image = image.copy()
    for kind, (x, y, w, h, colour) in patches:
        if kind == "box":
            cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.ellipse(image, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, colour, -1, cv2.LINE_AA)
    return image


@dataclass(frozen=True)
class Move:
    """Pan and zoom between two views of a picture. A view is (zoom, x, y): zoom >= 1, x and y in 0..1 of the slack."""

    first: tuple[float, float, float]
    last: tuple[float, float, float]
    flip: bool

    def view(self, image: Frame, part: float, size: Size) -> Frame:
        """The picture as seen after `part` (0..1) of the move, `size` large, to the nearest pixel of the result."""
        height, width = image.shape[:2]
        zoom, x, y = (a + (b - a) * part for a, b in zip(self.first, self.last, strict=True))
        scale = max(size[0] / width, size[1] / height) * zoom
        if self.flip:
            image = np.asarray(cv2.flip(image, 1), dtype=np.uint8)
        left, top = x * (width - size[0] / scale), y * (height - size[1] / scale)
        # Only what is seen is enlarged, and moved by whole pixels: a quarter of the time of an affine warp.
        right, bottom = math.ceil(left + size[0] / scale) + 1, math.ceil(top + size[1] / scale) + 1
        seen = image[int(top) : bottom, int(left) : right]
        wide = max(size[0], math.ceil(seen.shape[1] * scale)), max(size[1], math.ceil(seen.shape[0] * scale))
        seen = np.asarray(cv2.resize(seen, wide, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        dx = min(round((left - int(left)) * scale), wide[0] - size[0])
        dy = min(round((top - int(top)) * scale), wide[1] - size[1])
        return seen[dy : dy + size[1], dx : dx + size[0]]


def _move(rng: np.random.Generator) -> Move:
    first = (float(rng.uniform(1.02, 1.5)), float(rng.random()), float(rng.random()))
    still = rng.random() < 0.25
    last = first if still else (float(rng.uniform(1.02, 1.6)), float(rng.random()), float(rng.random()))
    return Move(first, last, bool(rng.random() < 0.5))


def live_shot(
    rng: np.random.Generator, paths: list[Path], kind: str, size: Size, times: NDArray[np.float64]
) -> Iterator[Frame]:
    """Real footage. `kind`: live, blurred, bright, pale, dark, white (bright regions) or yellow (yellow regions)."""
    path = paths[int(rng.integers(len(paths)))]
    move, curve = _move(rng), _grade(rng, kind)
    blur = float(rng.uniform(1.5, 5)) if kind == "blurred" else 0.0
    grain = _grain(rng, size) if rng.random() < 0.4 else None
    patches: list[tuple[str, tuple]] | None = None
    for number, image in enumerate(_at_times(_endless(path, float(rng.random())), times - times[0])):
        source = (image.shape[1], image.shape[0])
        image = np.asarray(cv2.LUT(image, curve), dtype=np.uint8)
        if kind in ("white", "yellow"):
            if patches is None:
                patches = _patches(rng, source, WHITES if kind == "white" else YELLOWS)
            image = _draw_patches(image, patches)
        if blur:
            # Blurred at a third of the size, since the detail goes anyway.
            image = np.asarray(
                cv2.resize(image, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA), dtype=np.uint8
            )
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur / 3), dtype=np.uint8)
        frame = move.view(image, number / len(times), size)
        if grain is not None:
            frame = np.asarray(cv2.add(frame, grain[number % len(grain)], dtype=cv2.CV_8U), dtype=np.uint8)
        yield frame


def _grain(rng: np.random.Generator, size: Size) -> NDArray[np.int16]:
    noise = rng.normal(0, rng.uniform(2, 5), (4, size[1], size[0], 1)).astype(np.int16)
    return np.repeat(noise, 3, axis=3)


def _curve(rng: np.random.Generator, size: Size) -> NDArray[np.int32]:
    """A smooth stroke through four random points (cubic Bezier), in pixels [n, 1, 2]."""
    centre = rng.uniform(0, 1, 2) * size
    points = centre + rng.normal(0, 0.18, (4, 2)) * size[1]
    t = np.linspace(0, 1, 40)[:, None]
    basis = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
    return np.asarray(sum(b * p for b, p in zip(basis, points, strict=True)), dtype=np.int32)[:, None]


def line_art(rng: np.random.Generator, size: Size) -> Frame:
    """A drawing: dark lines, hatching, grids and flat colours on a light ground, as in animation."""
    width, height = size
    ground = rng.integers(225, 256, 3)
    image = np.full((height, width, 3), ground, dtype=np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        colour = tuple(int(v) for v in rng.integers(120, 256, 3))
        cv2.fillPoly(image, [_curve(rng, size)], colour, cv2.LINE_AA)
    ink = tuple(int(v) for v in rng.integers(0, 60, 3))
    for _ in range(int(rng.integers(25, 70))):
        thickness = int(rng.integers(1, max(2, height // 150)))
        cv2.polylines(image, [_curve(rng, size)], bool(rng.random() < 0.2), ink, thickness, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 5))):
        _hatch(image, rng, ink)
    return image


def _hatch(image: Frame, rng: np.random.Generator, ink: tuple[int, ...]) -> None:
    """Regular short strokes, upright or slanting, or a grid: the texture most like a line of letters."""
    height, width = image.shape[:2]
    x0, y0 = int(rng.uniform(0, 0.7) * width), int(rng.uniform(0.2, 0.9) * height)
    step, tall = int(rng.integers(max(4, height // 120), height // 25)), int(rng.uniform(0.03, 0.12) * height)
    slant = int(rng.integers(-step, step + 1))
    count = int(rng.integers(6, 30))
    for k in range(count):
        cv2.line(
            image,
            (x0 + k * step, y0),
            (x0 + k * step + slant, y0 + tall),
            ink,
            1 + height // 500,
            cv2.LINE_AA,
        )
    if rng.random() < 0.5:
        for y in range(y0, y0 + tall + 1, step):
            cv2.line(image, (x0, y), (x0 + (count - 1) * step, y), ink, 1 + height // 500, cv2.LINE_AA)


def texture(rng: np.random.Generator, size: Size) -> Frame:
    """Dense short strokes of all colours: foliage, crowds, gravel."""
    width, height = size
    image = np.full((height, width, 3), rng.integers(20, 200, 3), dtype=np.uint8)
    palette = rng.integers(0, 256, (6, 3))
    reach = height * float(rng.uniform(0.01, 0.04))
    for _ in range(3000):
        x, y = rng.uniform(0, 1, 2) * size
        dx, dy = rng.normal(0, reach, 2)
        colour = tuple(int(v) for v in np.clip(palette[int(rng.integers(6))] + rng.normal(0, 12, 3), 0, 255))
        start, end = (int(x), int(y)), (int(x + dx), int(y + dy))
        cv2.line(image, start, end, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    return image


def gradient(rng: np.random.Generator, size: Size) -> Frame:
    """A plain sky or wall."""
    corners = rng.integers(30, 240, (2, 2, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(corners, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


DRAWN = {"line-art": line_art, "texture": texture, "gradient": gradient}


def drawn_shot(rng: np.random.Generator, kind: str, size: Size, count: int) -> Iterator[Frame]:
    """A drawn picture, held still or panned. Animation moves on every second or third frame."""
    still = rng.random() < (0.6 if kind == "line-art" else 0.3)
    picture = DRAWN[kind](rng, size if still else (size[0] * 5 // 4, size[1] * 5 // 4))
    hold = int(rng.integers(1, 4)) if kind == "line-art" else 1
    move = _move(rng)
    for number in range(count):
        if still:
            yield picture
            continue
        yield move.view(picture, (number - number % hold) / count, size)


def footage(
    seed: int, paths: list[Path], shots: list[tuple[str, int]], size: Size, rate: float
) -> Iterator[Frame]:
    """The frames of a clip: `shots` are (kind, number of frames) in order; every boundary is a scene cut."""
    for number, (kind, count) in enumerate(shots):
        rng = np.random.default_rng([seed, number])
        if kind in DRAWN:
            yield from drawn_shot(rng, kind, size, count)
        else:
            yield from live_shot(rng, paths, kind, size, np.arange(count) / rate)


@dataclass(frozen=True)
class Sticker:
    """A picture laid over the frames: a logo that stays, or a sign that slides. Velocity in pixels a frame."""

    image: Frame  # [h, w, 3]
    alpha: NDArray[np.float32]  # [h, w, 1], 0..1
    x: float
    y: float
    vx: float = 0.0
    vy: float = 0.0
    first: int = 0
    last: int = 1 << 30

    def paste(self, frame: Frame, number: int) -> None:
        """Lay the picture over `frame` in place at its position in frame `number`; the part outside is cut off."""
        if not self.first <= number < self.last:
            return
        height, width = self.image.shape[:2]
        x, y = (
            round(self.x + self.vx * (number - self.first)),
            round(self.y + self.vy * (number - self.first)),
        )
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, frame.shape[1]), min(y + height, frame.shape[0])
        if left >= right or top >= bottom:
            return
        part = np.s_[top - y : bottom - y, left - x : right - x]
        under = frame[top:bottom, left:right].astype(np.float32)
        frame[top:bottom, left:right] = under + (self.image[part] - under) * self.alpha[part]


def lettering(
    rng: np.random.Generator,
    text: str,
    face: Face,
    em: int,
    ink: tuple[int, ...],
    ground: tuple[int, ...] | None,
) -> tuple[Frame, NDArray[np.float32]]:
    """`text` as a picture and its alpha; on a framed board when `ground` is given, else letters alone."""
    font = ImageFont.truetype(str(face.path), em, index=face.index)
    left, top, right, bottom = font.getbbox(text)
    pad = em // 2 if ground else 2
    size = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).text((pad - left, pad - top), text, fill=255, font=font)
    letters = np.asarray(mask, dtype=np.float32)[:, :, None] / 255
    if ground is None:
        image = np.full((size[1], size[0], 3), ink, dtype=np.uint8)
        return image, letters * np.float32(rng.uniform(0.5, 1.0))
    board = np.full((size[1], size[0], 3), ground, dtype=np.uint8)
    cv2.rectangle(board, (2, 2), (size[0] - 3, size[1] - 3), ink, max(1, em // 12))
    image = (board + (np.array(ink) - board) * letters).astype(np.uint8)
    return image, np.ones((size[1], size[0], 1), dtype=np.float32)


def logo(rng: np.random.Generator, text: str, face: Face, size: Size) -> Sticker:
    """A station mark in a corner for the whole clip (mostly the upper corners, sometimes beside the subtitles)."""
    em = int(size[1] * rng.uniform(0.035, 0.06))
    ink = tuple(int(v) for v in rng.integers(200, 256, 3))
    ground = tuple(int(v) for v in rng.integers(0, 120, 3)) if rng.random() < 0.3 else None
    image, alpha = lettering(rng, text, face, em, ink, ground)
    margin = int(size[1] * 0.04)
    right, low = bool(rng.random() < 0.5), bool(rng.random() < 0.15)
    x = size[0] - margin - image.shape[1] if right else margin
    y = size[1] - margin - image.shape[0] if low else margin
    return Sticker(image, alpha, x, y)


def sign(rng: np.random.Generator, text: str, face: Face, size: Size, first: int, rate: float) -> Sticker:
    """A sign board that slides through the picture, often at the height of the subtitles."""
    em = int(size[1] * rng.uniform(0.05, 0.11))
    colours = rng.permutation(
        np.array([[250, 250, 250], [30, 30, 40], [40, 40, 200], [150, 60, 20], [60, 210, 240]])
    )
    ink, ground = (tuple(int(v) for v in colour) for colour in colours[:2])
    image, alpha = lettering(rng, text, face, em, ink, ground)
    speed = size[0] * float(rng.uniform(0.08, 0.3)) / rate
    height = size[1] - image.shape[0]
    y = height * float(rng.uniform(0.75, 0.98) if rng.random() < 0.4 else rng.uniform(0.1, 0.9))
    if rng.random() < 0.5:
        return Sticker(image, alpha, -image.shape[1], y, vx=speed, first=first)
    return Sticker(image, alpha, size[0], y, vx=-speed, vy=float(rng.uniform(-0.1, 0.1)) * speed, first=first)
