"""A track: the stroke pixels of one line that appeared together, followed until they vanish.

A track is a list of points of the stroke plane. Each has a reference step (brightness difference across its stroke
edge at full visibility); a point is alive in a picture when at least half of that step is there. Everything that is
asked of a track (does it still stand, which characters of it changed, how visible is it in this frame) is a mean over
its points, so background, which adds steps of random sign, cancels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.subtitles.lines import Group
from tamis.subtitles.strokes import STEP_X, STEP_Y

Plane = NDArray[np.uint8]
Flags = NDArray[np.bool_]

YOUNG = 4  # samples during which a track still takes in newborn pixels and raises its reference (fades)
MOST_POINTS = 4000
CONTRAST_POINTS = 600


@dataclass(eq=False)
class Track:
    """y, x: points of the stroke plane; sign: +1 rise, -1 fall; step: reference, positive.

    born: number of the sample at which it was first seen (its pixels stand in samples born - 1 and born)
    """

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    sign: NDArray[np.int16]
    step: NDArray[np.int16]
    born: int
    shape: tuple[int, int]  # of the working picture
    group: Group
    alive: Flags = field(init=False)
    before: Flags = field(init=False)
    fresh: Flags = field(init=False)  # points that appeared with this track, not inherited from the text before
    share: list[float] = field(default_factory=list)  # of points alive, per sample since born
    weak: int = 0  # samples in a row with less than half of the points alive
    start: Fraction | None = None  # time of the first visible frame, once known
    full: float = 0.0  # contrast when fully shown
    prior: float = 0.0  # contrast just before the start, as a share of `full`
    static: bool = False  # stood too long for a subtitle

    def __post_init__(self) -> None:
        self.alive = self.before = self.fresh = np.ones(len(self.y), bool)

    def __len__(self) -> int:
        return len(self.y)

    def steps(self, picture: Plane) -> NDArray[np.int16]:
        """Signed steps of the points in a working picture: the reference where the text is fully visible."""
        flat = picture.ravel()
        at = self.y * picture.shape[1] + self.x
        across = flat.take(at + STEP_Y * picture.shape[1] + STEP_X).astype(np.int16) - flat.take(at)
        return across * self.sign

    def observe(self, picture: Plane) -> None:
        """Looks at the next sample: which points are alive, and while young, how strong they are at most."""
        now = self.steps(picture)
        self.before, self.alive = self.alive, 2 * now >= self.step
        share = float(np.count_nonzero(self.alive)) / len(self.alive)
        self.share.append(share)
        self.weak = self.weak + 1 if share < 0.5 else 0
        if len(self.share) <= YOUNG and share > 0.5:
            self.step = np.maximum(self.step, now)

    def box(self) -> tuple[int, int, int, int]:
        return int(self.x.min()), int(self.y.min()), int(self.x.max()) + 1, int(self.y.max()) + 1

    def add(
        self,
        y: NDArray[np.int32],
        x: NDArray[np.int32],
        sign: NDArray[np.int16],
        step: NDArray[np.int16],
        fresh: bool = True,
    ) -> None:
        self.y, self.x = np.concatenate([self.y, y]), np.concatenate([self.x, x])
        self.sign, self.step = np.concatenate([self.sign, sign]), np.concatenate([self.step, step])
        self.alive = np.concatenate([self.alive, np.ones(len(y), bool)])
        self.before = np.concatenate([self.before, np.ones(len(y), bool)])
        self.fresh = np.concatenate([self.fresh, np.full(len(y), fresh)])

    def keep(self, points: Flags) -> None:
        """Forgets the other points."""
        self.y, self.x, self.sign, self.step = self.y[points], self.x[points], self.sign[points], self.step[points]
        self.alive, self.before = self.alive[points], self.before[points]
        self.fresh = self.fresh[points]
