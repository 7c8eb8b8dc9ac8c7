"""All frames of a cue merged into one picture, its text polarity, and the strip that is read.

Averaging over the frames wears down a moving background and codec noise and leaves the text; the minimum (of bright
text) removes whatever was darker for a moment. Both become channels of the strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.subtitles.reel import Shot
from tamis.subtitles.strip import EM, HEIGHT

Plane = NDArray[np.uint8]
Box = tuple[int, int, int, int]

BLUR = 0.4  # sigma in px of the strip, before a picture is made smaller
MOST_AVERAGED = 16
MOST_EXTREME = 40


@dataclass(frozen=True, slots=True)
class Merged:
    """Mean, minimum and maximum over frames of the part `box` of the picture, uint8 [h, w] each."""

    mean: Plane
    low: Plane
    high: Plane
    box: Box


def spread(shots: Sequence[Shot], most: int) -> list[Shot]:
    """At most `most` of the shots, evenly spread."""
    if len(shots) <= most:
        return list(shots)
    return [shots[i] for i in np.linspace(0, len(shots) - 1, most).round().astype(int)]


def mean_picture(shots: Sequence[Shot], box: Box) -> Plane:
    """The mean of the shots' part `box`."""
    left, top, right, bottom = box
    total = np.zeros((bottom - top, right - left), np.float32)
    averaged = spread(shots, MOST_AVERAGED)
    for shot in averaged:
        cv2.accumulate(shot.luma[top:bottom, left:right], total)
    return cast(Plane, cv2.convertScaleAbs(total, alpha=1 / len(averaged)))


def merge(shots: Sequence[Shot], box: Box) -> Merged:
    """Merges the part `box` (inside the picture) of the shots, at least one."""
    left, top, right, bottom = box
    mean = mean_picture(shots, box)
    low = high = shots[0].luma[top:bottom, left:right]
    for shot in spread(shots, MOST_EXTREME)[1:]:
        part = shot.luma[top:bottom, left:right]
        low, high = cv2.min(low, part), cv2.max(high, part)
    return Merged(mean, low, high, box)


def cut_strip(merged: Merged, left: float, right: float, centre: float, scw: float, polarity: int) -> Plane:
    """The strip uint8 [2, HEIGHT, W] of a line between `left` and `right` (frame px), its em box centred on row `centre`."""
    zoom = EM / scw
    width = max(EM, round((right - left) * zoom))
    x0, y0 = left - merged.box[0], centre - merged.box[1]
    # Only what the strip shows, and what its edges are averaged with.
    high, wide = merged.mean.shape
    reach = ceil(3 * BLUR / zoom) + 2
    first, last = floor(y0 - HEIGHT / 2 / zoom) - reach, ceil(y0 + HEIGHT / 2 / zoom) + reach
    top, bottom = min(max(0, first), high - 1), max(min(high, last), 1)
    near = min(max(0, floor(x0) - reach), wide - 1)
    far = max(min(wide, ceil(x0 + width / zoom) + reach), 1)
    part = np.s_[top : max(bottom, top + 1), near : max(far, near + 1)]
    # From strip to picture, so that pixel centres meet.
    matrix = np.array(
        [
            [1 / zoom, 0, 0.5 / zoom + x0 - 0.5 - near],
            [0, 1 / zoom, (0.5 - HEIGHT / 2) / zoom + y0 - 0.5 - top],
        ],
        np.float32,
    )
    if polarity > 0:
        channels = merged.mean[part], merged.low[part]
    else:
        channels = cv2.bitwise_not(merged.mean[part]), cv2.bitwise_not(merged.high[part])
    return np.stack([_resample(c, matrix, (width, HEIGHT), 1 / zoom) for c in channels])


def _resample(image: Plane, matrix: NDArray[np.float32], size: tuple[int, int], step: float) -> Plane:
    """Affine resampling that averages when it shrinks (step > 1 picture px per strip px)."""
    if step > 1.3:
        image = cv2.GaussianBlur(image, (0, 0), BLUR * step)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
