"""The frames that the detector still remembers: all of the last seconds, and samples of the last twenty.

Memory is constant: about 1.5 s of frames at full rate (by reference where the decoder allows), the last `DENSE` samples, and
beyond them every fourth sample up to `LONGEST_S`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

LONGEST_S = 20  # text that stands longer is a logo or a sign, see detect.py
RECENT = 13  # samples whose frames are all kept, for frame-exact times
DENSE = 24
SPARSE = 4


@dataclass(frozen=True, slots=True)
class Shot:
    """One remembered frame, visible from `time` until `end`. `sample`: number of samples taken up to this frame."""

    time: Fraction
    end: Fraction
    luma: NDArray[np.uint8]
    sample: int


class Reel:
    """Remembers frames as they pass."""

    def __init__(self) -> None:
        self.recent: deque[Shot] = deque()
        self._dense: deque[Shot] = deque()
        self._sparse: deque[Shot] = deque()

    def add(self, shot: Shot, sampled: bool) -> None:
        self.recent.append(shot)
        while self.recent[0].sample < shot.sample - RECENT:
            self.recent.popleft()
        if not sampled:
            return
        self._dense.append(shot)
        if len(self._dense) > DENSE:
            old = self._dense.popleft()
            if old.sample % SPARSE == 0:
                self._sparse.append(old)
        while self._sparse and self._sparse[0].time < shot.time - LONGEST_S - 1:
            self._sparse.popleft()

    def samples(self, start: Fraction, end: Fraction) -> list[Shot]:
        """Remembered samples that began in [start, end)."""
        return [s for part in (self._sparse, self._dense) for s in part if start <= s.time < end]
