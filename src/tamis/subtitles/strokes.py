"""The image operator on consecutive frames: strokes that stay in place while the picture behind them moves.

A subtitle's strokes keep their pixels from its first frame to its last. The operator takes the signed brightness step
between two pixels that are `STEP_X` columns and `STEP_Y` rows apart and keeps the smaller of its values in two
consecutive samples: moving background loses its steps, standing strokes keep them. Every pixel's steps are counted
from the sample in which they appeared, so a new subtitle shows as many pixels of age one in the shape of a line.

Steps are taken with their sign (`rise`: brighter to the lower right; `fall`: darker). Two texts at the same place share
about a sixth of their signed steps by chance, but a third of their ink, so signed steps tell neighbours apart; and a
bright stroke has as many rises as falls whatever its colour, so text polarity need not be known yet.

The idea that a sequence of frames shows where subtitles are and how wide a character is: Xu et al., arXiv 1611.06159.
The operator itself is ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster

Plane = NDArray[np.uint8]

# A working picture is this wide: a character of 1/55 to 1/12 of the picture width is then 12 to 50 px.
WORKING_WIDTH = 640
# The step crosses vertical strokes (2 columns) and horizontal ones (1 row); a stroke along (2, 1) is missed, and no
# script has strokes rising or falling at 27 degrees only.
STEP_X, STEP_Y = 2, 1
# Brightness step of the faintest stroke that counts. Codec noise on plain areas stays below 10.
FAINTEST = 22
# A stroke pixel is newborn for so many samples: in a fade, dark and bright ones do not pass FAINTEST together.
NEWBORN = 2


def reduce(luma: Plane, width: int = WORKING_WIDTH, *, copy: Plane | None = None) -> Plane:
    """The working picture of a frame: about `width` px wide, or the frame itself when it is not wider than 1.25 times.

    copy: gets the frame; one pass over it does both.
    """
    while luma.shape[1] >= 1.75 * width and min(luma.shape) >= 2:
        if luma.shape[0] % 2 == luma.shape[1] % 2 == 0:
            luma, copy = raster.halve(luma, copy), None
        else:
            _keep(luma, copy)
            luma, copy = raster.shrink(luma, (luma.shape[1] // 2, luma.shape[0] // 2)), None
    _keep(luma, copy)
    if luma.shape[1] > 1.25 * width:
        height = max(1, round(luma.shape[0] * width / luma.shape[1]))
        luma = raster.stretch(luma, (width, height))
    return np.ascontiguousarray(luma)


def _keep(luma: Plane, copy: Plane | None) -> None:
    if copy is not None:
        copy[:] = luma


class StrokeOperator:
    """Persistent signed steps of the newest two samples, and for how many samples each has persisted.

    Planes have the shape [H - STEP_Y, W - STEP_X] of the working picture [H, W]; pixel (y, x) compares picture pixels
    (y, x) and (y + STEP_Y, x + STEP_X).
    """

    def __init__(self) -> None:
        self._planes: list[Plane] = []  # rise and fall of the last sample, and the ages of either
        self.newborn: Plane | None = None
        self.count = 0

    def observe(self, picture: Plane) -> None:
        """Takes the next sample's working picture. Afterwards `newborn` holds the brightness step of every stroke pixel
        that stands since at most NEWBORN samples (and stood in the one before), 0 elsewhere; None after the first. `count`
        says how many there are."""
        first = not self._planes
        shape = picture.shape[0] - STEP_Y, picture.shape[1] - STEP_X
        if first:
            self._planes = [np.zeros(shape, np.uint8) for _ in range(4)]
        newborn = np.empty(shape, np.uint8)
        if compiled := raster.kernels():
            self.count = compiled.strokes(picture, not first, FAINTEST, NEWBORN, self._planes, newborn)
        else:
            self.count = _observe(picture, first, self._planes, newborn)
        self.newborn = None if first else newborn

    def claim(self, y: NDArray[np.int32], x: NDArray[np.int32]) -> None:
        """These pixels belong to a track: they are newborn no longer."""
        for age in self._planes[2:]:
            age[y, x] += NEWBORN  # at most 2 + 2, far from wrapping


def _observe(picture: Plane, first: bool, planes: list[Plane], newborn: Plane) -> int:
    low, high = picture[:-STEP_Y, :-STEP_X], picture[STEP_Y:, STEP_X:]
    steps = np.maximum(high, low) - low, np.maximum(low, high) - high
    if not first:
        risen, fallen = (_stand(planes[i], steps[i], planes[2 + i]) for i in range(2))
        np.maximum(risen, fallen, out=newborn)
    planes[:2] = steps
    return int(np.count_nonzero(newborn)) if not first else 0


def _stand(before: Plane, now: Plane, age: Plane) -> Plane:
    """Advances `age` in place (saturating) where a step stands in both samples; returns the steps that are newborn."""
    step = np.minimum(before, now)
    stands = step > FAINTEST
    age += age < 255
    age *= stands
    return step * (stands & (age <= NEWBORN))
