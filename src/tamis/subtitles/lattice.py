"""The narrow waist between seeing and searching: a lattice of characters over positions along one line.

The recogniser makes it, the dynamic-programming search reads it; neither needs the other, so the search is tested
without an image and any recogniser can stand in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Lattice:
    """Character hypotheses of one text line.

    There are n candidate centres, left to right. A path visits some of them; skipping centre i costs
    `log_skip[i]`, visiting it gains `log_centre[i]` plus the class score. Positions are in units of one character
    width (SCW): the ink centre of candidate i lies at `position[i]`.

    position     [n]     float32, increasing, in SCW
    log_centre   [n]     float32, log P(a character is centred here)
    log_skip     [n]     float32, log P(no character is centred here)
    log_space    [n + 1] float32, log-odds that a space stands directly before candidate i (index n: after the last); for a
                         path that skips candidates, the odds of a gap are the maximum over the boundaries inside it
    labels       [n, k]  int32, class indices into `tamis.subtitles.characters.classes()`, best first
    log_class    [n, k]  float32, log P(class | a character is centred here), calibrated
    """

    position: NDArray[np.float32]
    log_centre: NDArray[np.float32]
    log_skip: NDArray[np.float32]
    log_space: NDArray[np.float32]
    labels: NDArray[np.int32]
    log_class: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.position)
