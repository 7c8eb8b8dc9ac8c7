"""How well maps agree with masks: plain mathematics, one image at a time, then over images with bootstrap intervals.

    pooled_f1             F1 of cancer pixels, counts summed over all images, positive and negative
    f1_positives          the same over positive images alone; a mask of all foreground scores 2a / (1 + a) at area a
    iou_positives         TP / (TP + FP + FN), summed over positive images
    f1_negatives          F1 of the background over negative images
    area_on_negatives     mean share of a negative image that is marked
    hd95_um               mean over positive images of the 95th percentile of both directed boundary distances
    area_error            mean |marked share - true share| over positive images

Units that are drawn again for the intervals are images, or patients where they are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.agreement import Estimate, bootstrap


@dataclass(frozen=True, slots=True)
class Scored:
    """Counts of one image, in pixels, and its boundary distance."""

    name: str
    unit: str
    """What the bootstrap draws: a patient or an image."""
    positive: bool
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    hd95_um: float
    """NaN on negatives."""

    @property
    def pixels(self) -> int:
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def marked(self) -> float:
        return (self.true_positives + self.false_positives) / self.pixels

    @property
    def area(self) -> float:
        return (self.true_positives + self.false_negatives) / self.pixels

    @property
    def f1(self) -> float:
        """1 where there is nothing to find and nothing was marked."""
        whole = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 1.0 if whole == 0 else 2 * self.true_positives / whole


def score(
    marked: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    name: str,
    unit: str,
    positive: bool,
    um_per_px: float,
) -> Scored:
    """Compare two masks [H, W]."""
    both = int((marked & truth).sum())
    found, true = int(marked.sum()), int(truth.sum())
    distance = hd95_px(marked, truth) * um_per_px if positive else math.nan
    return Scored(
        name, unit, positive, both, found - both, true - both, truth.size - found - true + both, distance
    )


def hd95_px(marked: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """The larger of the two 95th percentiles of boundary-to-boundary distances. Nothing marked: the image's diagonal."""
    edges = [_boundary(mask) for mask in (marked, truth)]
    if not all(edge.any() for edge in edges):
        same = not edges[0].any() and not edges[1].any()
        return 0.0 if same else math.hypot(*truth.shape)
    farthest = []
    for one, other in (edges, edges[::-1]):
        to_other = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        farthest.append(float(np.percentile(to_other[one], 95)))
    return max(farthest)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask beside one that is not in it; the frame of the image bounds it too."""
    padded = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return mask & (inner == 0)


def _f1(images: Sequence[Scored]) -> float:
    hit = 2 * sum(i.true_positives for i in images)
    whole = hit + sum(i.false_positives + i.false_negatives for i in images)
    return hit / whole if whole else math.nan


def _iou(images: Sequence[Scored]) -> float:
    whole = sum(i.true_positives + i.false_positives + i.false_negatives for i in images)
    return sum(i.true_positives for i in images) / whole if whole else math.nan


def _background_f1(images: Sequence[Scored]) -> float:
    hit = 2 * sum(i.true_negatives for i in images)
    whole = hit + sum(i.false_positives + i.false_negatives for i in images)
    return hit / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


FIGURES: Mapping[str, Callable[[Sequence[Scored]], float]] = {
    "pooled_f1": _f1,
    "f1_positives": lambda images: _f1([i for i in images if i.positive]),
    "iou_positives": lambda images: _iou([i for i in images if i.positive]),
    "f1_negatives": lambda images: _background_f1([i for i in images if not i.positive]),
    "area_on_negatives": lambda images: _mean([i.marked for i in images if not i.positive]),
    "hd95_um": lambda images: _mean([i.hd95_um for i in images if i.positive]),
    "area_error": lambda images: _mean([abs(i.marked - i.area) for i in images if i.positive]),
}


def figures(images: Sequence[Scored], *, seed: int = 0, resamples: int = 2000) -> dict[str, Estimate]:
    """Every figure with its 95 % interval over units."""
    groups: dict[str, list[Scored]] = {}
    for image in images:
        groups.setdefault(image.unit, []).append(image)
    units = list(groups.values())
    found = {}
    for name, figure in FIGURES.items():
        generator = np.random.default_rng(seed)
        found[name] = bootstrap(
            units,
            lambda drawn, figure=figure: figure([image for unit in drawn for image in unit]),  # type: ignore[misc]
            generator=generator,
            resamples=resamples,
        )
    return found
