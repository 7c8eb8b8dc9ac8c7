"""How well results agree with the truth: edit-distance accuracy, F1, and bootstrap intervals. Plain functions.

Whatever is reported carries its interval and its n. Intervals resample the units that are independent of each other
(videos, patients), never the cues or cells inside one of them: those share a font, a scanner, a person.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from rapidfuzz.distance import Levenshtein

Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its interval. `low` and `high` are NaN where n is too small for an interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Detections:
    """Counts of a matching: found and true, found and false, true and missed."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN) (van Rijsbergen 1979); 1 when there is nothing to find and nothing was found."""
        both = 2 * self.true_positives
        return _ratio(both, both + self.false_positives + self.false_negatives)

    def __add__(self, other: Detections) -> Detections:
        return Detections(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )


def edit_distance(found: str, truth: str) -> int:
    """Fewest insertions, deletions and substitutions of code points that turn one into the other (Levenshtein 1966)."""
    return Levenshtein.distance(found, truth)


def edit_accuracy(found: str, truth: str) -> float:
    """1 - edit distance / length of the truth, at least 0. An empty truth gives 1 for empty, else 0.

    >>> round(edit_accuracy("今天大气很好", "今天天气很好"), 3)
    0.833
    """
    return accuracy(edit_distance(found, truth), len(truth))


def accuracy(distance: int, length: int) -> float:
    """The same from counts summed over many texts, so that every character weighs alike."""
    if length == 0:
        return 1.0 if distance == 0 else 0.0
    return max(0.0, 1.0 - distance / length)


def bootstrap(
    units: Sequence[Unit],
    statistic: Callable[[Sequence[Unit]], float],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """`statistic(units)` with a percentile bootstrap interval over independent units (Efron & Tibshirani 1993, ch. 13).

    units      one entry per independent unit, such as a video
    statistic  gets units drawn with replacement, as many as there are; NaN where it is undefined
    level      share of resamples inside the interval

    With fewer than two units there is no interval: low and high are NaN. No units at all raises ValueError.
    """
    n = len(units)
    if n == 0:
        raise ValueError("a bootstrap needs at least one unit, and got none")
    value = statistic(units)
    if n == 1:
        return Estimate(value, math.nan, math.nan, n)
    draws = generator.integers(n, size=(resamples, n))
    values = np.array([statistic([units[i] for i in draw]) for draw in draws])
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return Estimate(value, math.nan, math.nan, n)
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)


def _ratio(part: int, whole: int) -> float:
    return 1.0 if whole == 0 else part / whole
