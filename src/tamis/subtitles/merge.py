"""All frames of a cue merged into one picture, its text polarity, and the strip that is read.

Averaging over the frames wears down a moving background and codec noise and leaves the text; the minimum (of bright
text) removes whatever was darker for a moment. Both become channels of the strip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster
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
    averaged = spread(shots, MOST_AVERAGED)
    return raster.merged(_parts(averaged, box), [True] * len(averaged))[0]


def merge(shots: Sequence[Shot], box: Box) -> Merged:
    """Merges the part `box` (inside the picture) of the shots, at least one."""
    averaged, looked = spread(shots, MOST_AVERAGED), spread(shots, MOST_EXTREME)
    if len(shots) <= MOST_EXTREME:
        wanted = {id(shot) for shot in averaged}
        mean, low, high = raster.merged(_parts(looked, box), [id(shot) in wanted for shot in looked])
    else:  # not all that are averaged are among them
        mean = mean_picture(shots, box)
        _, low, high = raster.merged(_parts(looked, box), [True] + [False] * (len(looked) - 1))
    return Merged(mean, low, high, box)


def _parts(shots: Sequence[Shot], box: Box) -> list[Plane]:
    left, top, right, bottom = box
    return [shot.luma[top:bottom, left:right] for shot in shots]


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
    if polarity > 0:
        channels = merged.mean[part], merged.low[part]
    else:
        channels = ~merged.mean[part], ~merged.high[part]
    high, wide = channels[0].shape
    # From strip to picture, so that pixel centres meet.
    columns = raster.between((np.arange(width) + 0.5) / zoom + (x0 - 0.5 - near), wide)
    rows = raster.between((np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / zoom + (y0 - 0.5 - top), high)
    if 1 / zoom > 1.3:  # made smaller: averaged
        channels = raster.gaussian(channels[0], BLUR / zoom), raster.gaussian(channels[1], BLUR / zoom)
    return np.stack([raster.resample(channel, columns, rows) for channel in channels])
