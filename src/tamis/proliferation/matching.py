"""Detections against annotated mitoses: each is matched with at most one of the other, within 7.5 um.

Task 3 of TUPAC16 and its predecessor AMIDA13 call a detection a hit within 30 px at 0.25 um/px. Several detections of
one mitosis are one hit; whether the surplus are false positives is not published, so the caller says.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from tamis.agreement import Detections

RADIUS_UM = 7.5
Surplus = Literal["false-positive", "ignore"]


def match(
    found_um: NDArray[np.float64],
    truth_um: NDArray[np.float64],
    *,
    radius_um: float = RADIUS_UM,
    surplus: Surplus = "false-positive",
) -> Detections:
    """One-to-one matching with the most hits, and among those the shortest distances (Kuhn 1955).

    found_um, truth_um  [n, 2] and [m, 2] in the same micrometres; a distance of exactly `radius_um` is a hit
    surplus             what a detection is that lies within the radius of a mitosis which another one has hit
    """
    if not len(found_um) or not len(truth_um):
        return Detections(0, len(found_um), len(truth_um))
    distances = cdist(found_um, truth_um)
    near = distances <= radius_um * (1 + 1e-9)  # 30 px times 0.25 um/px must not fail by a rounding
    # Out of reach costs more than all distances within reach together: a further hit always pays.
    rows, columns = linear_sum_assignment(np.where(near, distances, (radius_um + 1) * (min(near.shape) + 1)))
    hit = near[rows, columns]
    false = np.ones(len(found_um), bool)
    false[rows[hit]] = False
    if surplus == "ignore":
        false &= ~near.any(axis=1)
    hits = int(hit.sum())
    return Detections(hits, int(false.sum()), len(truth_um) - hits)
