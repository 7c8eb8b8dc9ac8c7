"""How well maps agree with masks: plain mathematics, one image at a time, then over images with bootstrap intervals.

    pooled_f1             F1 of cancer pixels, counts summed over all images, positive and negative
    f1_positives          the same over positive images alone; a mask of all foreground scores 2a / (1 + a) at area a
    iou_positives         TP / (TP + FP + FN), summed over positive images
    f1_negatives          F1 of the background over negative images
    area_on_negatives     mean share of a negative image that is marked
    hd95_um               mean over positive images of known scale of the 95th percentile of both directed boundary distances
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
    """NaN on negatives, and where the scale is unknown."""

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
    """Compare two masks [H, W]; `um_per_px` is NaN where it is unknown."""
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


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure that is one sum over images divided by another. Called on images; NaN where nothing is below the line."""

    terms: Callable[[Scored], tuple[float, float]]
    """What an image adds above and below the line."""

    def __call__(self, images: Sequence[Scored]) -> float:
        return divided(np.array([self.terms(image) for image in images]).reshape(-1, 2).sum(0))


def divided(sums: NDArray[np.float64]) -> float:
    """The ratio of two sums [2]."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan


def _f1(i: Scored) -> tuple[float, float]:
    return 2 * i.true_positives, 2 * i.true_positives + i.false_positives + i.false_negatives


def _iou(i: Scored) -> tuple[float, float]:
    return i.true_positives, i.true_positives + i.false_positives + i.false_negatives


def _background_f1(i: Scored) -> tuple[float, float]:
    return 2 * i.true_negatives, 2 * i.true_negatives + i.false_positives + i.false_negatives


def _among(positive: bool, terms: Callable[[Scored], tuple[float, float]]) -> Ratio:
    """Over the images of one class alone."""
    return Ratio(lambda i: terms(i) if i.positive is positive else (0.0, 0.0))


FIGURES: Mapping[str, Ratio] = {
    "pooled_f1": Ratio(_f1),
    "f1_positives": _among(True, _f1),
    "iou_positives": _among(True, _iou),
    "f1_negatives": _among(False, _background_f1),
    "area_on_negatives": _among(False, lambda i: (i.marked, 1.0)),
    "hd95_um": _among(True, lambda i: (0.0, 0.0) if math.isnan(i.hd95_um) else (i.hd95_um, 1.0)),
    "area_error": _among(True, lambda i: (abs(i.marked - i.area), 1.0)),
}


def unit_terms(images: Sequence[Scored], figure: Ratio) -> dict[str, NDArray[np.float64]]:
    """What each unit (image or patient) adds above and below the line, [2]."""
    found: dict[str, NDArray[np.float64]] = {}
    for image in images:
        found[image.unit] = found.get(image.unit, np.zeros(2)) + np.array(figure.terms(image))
    return found


def figures(images: Sequence[Scored], *, seed: int = 0, resamples: int = 2000) -> dict[str, Estimate]:
    """Every figure with its 95 % interval over units."""
    return {
        name: bootstrap(
            list(unit_terms(images, figure).values()),
            lambda drawn: divided(np.sum(drawn, axis=0)),
            generator=np.random.default_rng(seed),
            resamples=resamples,
        )
        for name, figure in FIGURES.items()
    }
