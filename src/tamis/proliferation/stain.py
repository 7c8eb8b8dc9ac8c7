"""Haematoxylin and eosin as amounts of dye: fixed or estimated stain vectors, and colours changed through them.

Optical density -log10(I / Io) is linear in the amount of each dye (Beer-Lambert). `haematoxylin` unmixes with the fixed
vectors of Ruifrok & Johnston (2001), cheap enough for every pixel. `macenko` finds a picture's own two vectors (Macenko
2009: the extreme directions in the plane of the two largest principal components) and `normalise` repaints it with
others; `stain_of` and `repainted` do it more roughly, by the colours' means and deviations. `Shift` describes a random
change of the amounts, as training uses it (Tellez 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
IO = 245.0  # what glass lets through
LEAST_OD = 0.15  # below lies glass; natural logarithm in the paper, decimal here
RUIFROK = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]], np.float32)  # rows: H, E
RESIDUAL = np.array([0.268, 0.570, 0.776], np.float32)
REFERENCE_MOST = np.array(
    [0.85, 0.45], np.float32
)  # 99th percentile of H and E in an average slide, decimal OD

_TABLE = (-np.log10((np.arange(256, dtype=np.float32) + 1) / (IO + 1))).clip(0).astype(np.float32)


def optical_density(pixels: NDArray[np.uint8]) -> Float:
    """[..., 3] uint8 -> decimal optical density, at least 0."""
    return _TABLE[pixels]


def haematoxylin(pixels: NDArray[np.uint8]) -> Float:
    """[h, w] amount of haematoxylin of RGB pixels [h, w, 3], with the fixed vectors; about 0 on glass, 1 in dark nuclei."""
    row = np.linalg.inv(np.stack([*RUIFROK, RESIDUAL]))[:, 0].astype(np.float32)
    # One table per channel and a sum: faster than logarithms and a matrix product.
    parts = [cv2.LUT(np.ascontiguousarray(pixels[..., i]), _TABLE * row[i]) for i in range(3)]
    return np.maximum(cv2.add(cv2.add(parts[0], parts[1]), parts[2]), 0)


def macenko(pixels: NDArray[np.uint8], *, angle_percentile: float = 1.0) -> Float | None:
    """The stain vectors [2, 3] (H, E; unit length) of a picture; None when too little of it is stained."""
    density = optical_density(pixels.reshape(-1, 3))
    density = density[(density > LEAST_OD / np.log(10)).all(1)]
    if len(density) < 100:
        return None
    _, vectors = np.linalg.eigh(np.cov(density, rowvar=False))
    plane = vectors[:, 1:].astype(np.float64)  # the two largest
    plane *= np.where(plane.sum(0) < 0, -1, 1)
    projected = density @ plane
    angle = np.arctan2(projected[:, 0], projected[:, 1])
    ends = [
        plane @ (np.sin(a), np.cos(a))
        for a in np.percentile(angle, (angle_percentile, 100 - angle_percentile))
    ]
    stains = np.stack([v / np.linalg.norm(v) for v in ends])
    # Haematoxylin absorbs red, eosin hardly.
    return stains[np.argsort(-stains[:, 0])].astype(np.float32)


def normalise(
    pixels: NDArray[np.uint8], stains: Float | None = None, to: Float = RUIFROK, most: Float = REFERENCE_MOST
) -> NDArray[np.uint8]:
    """Repaint [h, w, 3] with the vectors `to`, the 99th percentile of each dye brought to `most`.

    `stains` are the picture's own vectors (by default estimated); a picture with too little dye comes back as it was.
    """
    stains = macenko(pixels) if stains is None else stains
    if stains is None:
        return pixels
    amounts = np.maximum(optical_density(pixels.reshape(-1, 3)) @ np.linalg.pinv(stains), 0)
    highest = np.percentile(amounts, 99, axis=0)
    amounts *= most / np.maximum(highest, 0.05)
    return transmitted(amounts @ (to / np.linalg.norm(to, axis=1, keepdims=True))).reshape(pixels.shape)


@dataclass(frozen=True)
class Stain:
    """Mean [3] and standard deviation [3] of the stained pixels in CIE Lab (Reinhard 2001), as OpenCV scales it."""

    mean: Float
    deviation: Float


def stain_of(pixels: NDArray[np.uint8], *, sample: int = 100_000) -> Stain | None:
    """The colours of a picture, or of many fields' pixels [n, 3] together; None when too little of it is stained."""
    flat = pixels.reshape(-1, 3)
    flat = flat[:: max(1, len(flat) // sample)]
    flat = flat[optical_density(flat).mean(1) > LEAST_OD / 2]
    if len(flat) < 100:
        return None
    lab = cv2.cvtColor(np.ascontiguousarray(flat)[None], cv2.COLOR_RGB2LAB)[0].astype(np.float32)
    return Stain(lab.mean(0), np.maximum(lab.std(0), 2))


def repainted(pixels: NDArray[np.uint8], own: Stain, to: Stain) -> NDArray[np.uint8]:
    """A picture with the colours `own` as if it had the colours `to`; glass stays glass.

    Dyes unmixed with each case's own vectors (Macenko) turned grey slides green and brown: between two vectors that are nearly
    parallel the amounts are noise. Means and deviations cannot do that.
    """
    gain = np.clip(to.deviation / own.deviation, 0.6, 1.6)
    lab = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2LAB).astype(np.float32)
    moved = (lab - own.mean) * gain + to.mean
    # From the lightness of glass on, nothing is changed; below, more and more until where tissue is.
    share = np.clip((240 - lab[..., :1]) / 40, 0, 1)
    mixed = np.clip(lab + (moved - lab) * share + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), np.uint8)


@dataclass(frozen=True, slots=True)
class Shift:
    """New amount = amount * gain + offset, for H, E and the rest that neither explains."""

    gain: tuple[float, float, float]
    offset: tuple[float, float, float]

    @classmethod
    def random(cls, generator: np.random.Generator, strength: float = 1.0) -> Shift:
        gain = np.exp(generator.normal(0, 0.18 * strength, 3))
        offset = generator.normal(0, 0.02 * strength, 3)
        return cls(tuple(gain.tolist()), tuple(offset.tolist()))

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        basis = np.stack([*RUIFROK, RESIDUAL])
        matrix = np.linalg.inv(basis) @ np.diag(self.gain) @ basis
        moved = np.asarray(self.offset) @ basis
        density = optical_density(pixels).reshape(-1, 3) @ matrix.astype(np.float32) + moved.astype(
            np.float32
        )
        return transmitted(density).reshape(pixels.shape)


def transmitted(density: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Decimal optical density -> uint8, the inverse of `optical_density`."""
    light = (IO + 1) * np.power(10.0, -density) - 1
    return np.clip(light + 0.5, 0, 255).astype(np.uint8)
