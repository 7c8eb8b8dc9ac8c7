"""Training windows as other laboratories and scanners might have shown them.

A network trained on 90 cases in the stains of their own lost half of its confidence on stains it had not seen. Windows are
therefore brought to the colours of any other known picture or on the way there and beyond (means and deviations in Lab), or
the amounts and the colours of the dyes are changed, then tones, focus, noise and compression. A quarter keeps its stain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.stain import RESIDUAL, RUIFROK, Stain, optical_density, repainted, transmitted

Pixels = NDArray[np.uint8]
CENTRE_JITTER_PX = 9.0
SOURCE_PX = 240  # a turned, scaled and moved window fits inside: 128 * sqrt(2) * 1.16 + 2 * 9 = 228
AS_IT_IS, TO_OTHERS = 0.25, 0.4  # shares of windows; the dyes of the rest are changed


def augmented(
    source: Pixels,
    at: tuple[float, float],
    size: int,
    generator: np.random.Generator,
    *,
    own: Stain | None = None,
    others: Sequence[Stain] = (),
) -> Pixels:
    """[size, size, 3] from `source` [SOURCE_PX, SOURCE_PX, 3]: turned, mirrored, scaled by up to 15 %, moved, in another stain.

    at      the nucleus, in px from the middle of the source
    own     the stain of its case, needed to bring it to one of `others`
    """
    return varied(placed(source, at, size, generator), generator, own=own, others=others)


def placed(source: Pixels, at: tuple[float, float], size: int, generator: np.random.Generator) -> Pixels:
    angle = generator.uniform(0, 2 * np.pi)
    scale = np.exp(generator.uniform(-0.15, 0.15))
    jitter = generator.uniform(-CENTRE_JITTER_PX, CENTRE_JITTER_PX, 2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if generator.random() < 0.5:
        turn[:, 0] *= -1
    middle = np.array([size / 2 - 0.5] * 2)
    centre = np.array(at) + SOURCE_PX / 2 + jitter
    matrix = np.concatenate([turn, (centre - turn @ middle)[:, None]], axis=1)
    return np.asarray(
        cv2.warpAffine(
            source,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )


def varied(
    pixels: Pixels, generator: np.random.Generator, *, own: Stain | None = None, others: Sequence[Stain] = ()
) -> Pixels:
    """A window in another stain and tone, and sometimes blurred, sharpened, noisy or compressed."""
    out: Any = pixels
    kind = generator.random()
    if kind >= AS_IT_IS:
        if kind < AS_IT_IS + TO_OTHERS and own is not None and others:
            out = repainted(out, own, _towards(own, others[int(generator.integers(len(others)))], generator))
        else:
            out = other_dyes(out, generator)
        if generator.random() < 0.5:
            out = other_tones(out, generator)
    soft = generator.random()
    if soft < 0.3:
        out = cv2.GaussianBlur(out, (0, 0), generator.uniform(0.4, 1.4))
    elif soft < 0.42:
        out = cv2.addWeighted(out, 1.6, cv2.GaussianBlur(out, (0, 0), 1.0), -0.6, 0)
    if generator.random() < 0.1:
        noise = generator.normal(0, generator.uniform(2, 7), out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    if generator.random() < 0.3:
        quality = int(generator.integers(30, 85))
        coded = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded: Any = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        out = decoded[..., ::-1]
    return np.ascontiguousarray(out)


def _towards(own: Stain, other: Stain, generator: np.random.Generator) -> Stain:
    share = np.float32(generator.uniform(0.2, 1.25))
    mean = own.mean + share * (other.mean - own.mean) + generator.normal(0, (8, 3, 3)).astype(np.float32)
    deviation = own.deviation * (other.deviation / own.deviation) ** share
    return Stain(mean, deviation * np.exp(generator.normal(0, 0.1, 3)).astype(np.float32))


def other_dyes(pixels: Pixels, generator: np.random.Generator, strength: float = 1.0) -> Pixels:
    """More or less of haematoxylin, of eosin and of what neither explains, and the colours of all three moved a little."""
    basis = np.stack([*RUIFROK, RESIDUAL]).astype(np.float64)
    gain = np.exp(generator.normal(0, 0.3 * strength, 3))
    moved = np.maximum(basis + generator.normal(0, 0.06 * strength, (3, 3)), 0)
    offset = generator.normal(0, 0.025 * strength, 3) @ basis
    matrix = (np.linalg.inv(basis) @ np.diag(gain) @ moved).astype(np.float32)
    density = optical_density(pixels).reshape(-1, 3) @ matrix + offset.astype(np.float32)
    return transmitted(density).reshape(pixels.shape)


def other_tones(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Another gamma, brightness and balance of the colours."""
    gamma, light = np.exp(generator.normal(0, 0.15)), np.exp(generator.normal(0, 0.06))
    balance = np.exp(generator.normal(0, 0.03, 3)) * light
    levels = (np.arange(256) / 255) ** gamma
    table = np.clip(levels[:, None] * balance * 255 + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table[None]), np.uint8)
