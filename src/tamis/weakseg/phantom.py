"""A drawn picture of stained tissue with known cancer: for tests, the demo, and the golden input of weights.

Round glands with an orderly rim of nuclei stand for healthy tissue; crowded, ragged ones with dark, unruly nuclei for
cancer. It teaches no network about people: it shows that the machinery works.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

STROMA = (236, 200, 222)
CYTOPLASM = (205, 150, 190)
LUMEN = (245, 240, 246)
NUCLEUS = (112, 80, 150)
DARK_NUCLEUS = (78, 48, 112)


def phantom(
    width: int, height: int, *, seed: int = 0, cancer: bool = True, um_per_px: float = 2.0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(RGB [height, width, 3], mask of cancer [height, width]). With `cancer`, one half of the plane holds it."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), STROMA, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    _sprinkle(image, generator, round(width * height * um_per_px**2 / 900), NUCLEUS, 4.0 / um_per_px)
    radius = 38.0 / um_per_px
    step = 2.5 * radius
    side = generator.integers(2)
    for y in np.arange(radius, height, step):
        for x in np.arange(radius, width, step):
            sick = cancer and (x < width / 2) == bool(side)
            centre = np.array([x, y]) + generator.uniform(-0.15, 0.15, 2) * step
            _gland(image, mask, centre, radius, sick, generator, um_per_px)
    noise = generator.normal(0, 5, image.shape)
    blurred = cv2.GaussianBlur(image, (0, 0), 0.7).astype(np.float32) + noise
    return np.rint(blurred.clip(0, 255)).astype(np.uint8), mask > 0


def _gland(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    centre: NDArray[np.float64],
    radius: float,
    sick: bool,
    generator: np.random.Generator,
    um_per_px: float,
) -> None:
    ragged = 0.3 if sick else 0.06
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = (
        1 + ragged * np.convolve(np.tile(generator.uniform(-1, 1, 24), 3), [0.25, 0.5, 0.25], "same")[24:48]
    )
    rim = radius * (1.25 if sick else 1.0) * wobble
    outline = centre + rim[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    polygon = np.rint(outline).astype(np.int32)
    cv2.fillPoly(image, [polygon], CYTOPLASM)
    if sick:
        cv2.fillPoly(mask, [polygon], 1)
    lumen = centre + (0.25 if sick else 0.45) * (outline - centre)
    cv2.fillPoly(image, [np.rint(lumen).astype(np.int32)], LUMEN)
    count = round(2 * np.pi * radius * um_per_px / (5 if sick else 8)) * (2 if sick else 1)
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        far = generator.uniform(0.4, 0.95) if sick else 0.85
        at = np.interp(angle, angles, rim, period=2 * np.pi) * far
        place = np.rint(centre + at * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        axes = (4.5, 3.5) if sick else (4.0, 2.0)
        size = tuple(max(1, round(axis / um_per_px)) for axis in axes)
        turn = generator.uniform(0, 180) if sick else np.degrees(angle)
        cv2.ellipse(image, place.tolist(), size, float(turn), 0, 360, DARK_NUCLEUS if sick else NUCLEUS, -1)


def _sprinkle(
    image: NDArray[np.uint8],
    generator: np.random.Generator,
    count: int,
    colour: tuple[int, int, int],
    radius: float,
) -> None:
    height, width = image.shape[:2]
    for x, y, angle in generator.uniform((0, 0, 0), (width, height, 180), (count, 3)):
        size = max(1, round(radius)), max(1, round(radius / 3))
        cv2.ellipse(image, (int(x), int(y)), size, float(angle), 0, 360, colour, -1)
