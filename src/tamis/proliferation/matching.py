"""Detections against annotated mitoses: each is matched with at most one of the other, within 7.5 um.

Task 3 of TUPAC16 and its predecessor AMIDA13 call a detection a hit within 30 px at 0.25 um/px. Several detections of
one mitosis are one hit; whether the surplus are false positives is not published, so the caller says.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

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
    """One-to-one matching with the most hits (Hopcroft & Karp 1973).

    found_um, truth_um  [n, 2] and [m, 2] in the same micrometres; a distance of exactly `radius_um` is a hit
    surplus             what a detection is that lies within the radius of a mitosis which another one has hit
    """
    if not len(found_um) or not len(truth_um):
        return Detections(0, len(found_um), len(truth_um))
    reach = radius_um * (1 + 1e-9)  # 30 px times 0.25 um/px must not fail by a rounding
    # Only the pairs within reach: all pairs of a slide that is full of detections would take gigabytes.
    near = cKDTree(found_um).sparse_distance_matrix(cKDTree(truth_um), reach, output_type="ndarray")
    pairs = csr_array(
        (np.ones(len(near), np.uint8), (near["i"], near["j"])), shape=(len(found_um), len(truth_um))
    )
    hits = int(np.sum(maximum_bipartite_matching(pairs, perm_type="column") >= 0))
    # What reaches no mitosis is false. What reaches one and hits none is surplus: another has hit it.
    false = len(found_um) - (len(np.unique(near["i"])) if surplus == "ignore" else hits)
    return Detections(hits, false, len(truth_um) - hits)
