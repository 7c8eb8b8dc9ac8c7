"""The frames that the detector still remembers: all of the last second and a half, and samples of the last twenty.

Memory is constant. Frames of full rate are held by reference where the decoder allows it; samples are copies, all of
the last three seconds and every fourth beyond.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

RECENT = 13  # samples whose frames are all kept, for frame-exact times
DENSE = 24  # samples kept without gaps
SPARSE = 4  # of older samples every fourth is kept
LONGEST_S = 21  # for so long


@dataclass(frozen=True, slots=True)
class Shot:
    """One remembered frame, visible from `time` until `end`. `sample`: number of samples taken up to this frame."""

    time: Fraction
    end: Fraction
    luma: NDArray[np.uint8]
    sample: int


class Spare:
    """Memory for copies of frames, filled again once nobody holds them: pages that are new to a process cost more than
    copying into them."""

    def __init__(self) -> None:
        self._planes: list[NDArray[np.uint8]] = []
        self._unheld = _holders([np.empty(0, np.uint8)], 0)

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A plane of any content, which nobody else holds."""
        for i in range(len(self._planes)):
            if _holders(self._planes, i) == self._unheld and self._planes[i].shape == shape:
                return self._planes[i]
        self._planes.append(np.empty(shape, np.uint8))
        return self._planes[-1]


def _holders(planes: list[NDArray[np.uint8]], which: int) -> int:
    """References to one of the planes, or to parts of it, with those of the list and of this call."""
    return sys.getrefcount(planes[which])


class Reel:
    """Remembers frames as they pass."""

    def __init__(self) -> None:
        self._recent: deque[Shot] = deque()
        self._dense: deque[Shot] = deque()
        self._sparse: deque[Shot] = deque()

    def add(self, shot: Shot, sampled: bool) -> None:
        self._recent.append(shot)
        while self._recent[0].sample < shot.sample - RECENT:
            self._recent.popleft()
        if not sampled:
            return
        self._dense.append(shot)
        if len(self._dense) > DENSE:
            old = self._dense.popleft()
            if old.sample % SPARSE == 0:
                self._sparse.append(old)
        while self._sparse and self._sparse[0].time < shot.time - LONGEST_S:
            self._sparse.popleft()

    def frames(self, first: int, last: int) -> list[Shot]:
        """All frames from sample `first` to `last`, as far as they are remembered."""
        return [s for s in self._recent if first <= s.sample <= last]

    def shown(self, start: Fraction, end: Fraction) -> list[Shot]:
        """Remembered samples (or, if there is none, frames) that began in [start, end)."""
        samples = [s for part in (self._sparse, self._dense) for s in part if start <= s.time < end]
        return samples or [s for s in self._recent if start <= s.time < end]
