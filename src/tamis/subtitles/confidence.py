"""From the search's posterior probabilities to calibrated ones: a logistic map (Platt 1999), fitted on development clips.

    P(right) = 1 / (1 + exp(-(slope * logit p + offset)))

The posterior of the search knows nothing of what its lattice lacks: a letter that the networks never saw, scenery that was
read as text. A slope below 1 says that its certainty is worth less than it claims. The map is increasing, so no order changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
EDGE = 1e-4  # posteriors are kept so far from 0 and 1: beyond, they tell how the search rounds and not how sure it is


@dataclass(frozen=True, slots=True)
class Calibration:
    """The map's two parameters; as they are by default, it changes nothing but the edges."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, posterior: ArrayLike) -> Floats:
        """Calibrated probabilities, of the shape of `posterior`."""
        return np.asarray(1 / (1 + np.exp(-(self.slope * logit(posterior) + self.offset))))


def logit(probability: ArrayLike) -> Floats:
    """log(p / (1 - p)), finite."""
    p = np.clip(np.asarray(probability, float), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)))


def fit(posterior: ArrayLike, right: ArrayLike, *, prior: float = 1.0, steps: int = 50) -> Calibration:
    """The calibration under which what was right [n] bool is likeliest, by Newton's method.

    prior  weight of a normal prior around slope 1 and offset 0, so that few or perfectly separable examples stay finite
    """
    x = np.stack([logit(posterior), np.ones_like(logit(posterior))])
    wanted = np.asarray(right, float)
    start = np.array([1.0, 0.0])
    value = start.copy()
    for _ in range(steps):
        p = 1 / (1 + np.exp(-(value @ x)))
        gradient = x @ (p - wanted) + prior * (value - start)
        curvature = (x * (p * (1 - p))) @ x.T + prior * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        longest = float(np.abs(step).max())
        value -= step / max(
            1.0, longest
        )  # no step is longer than 1: the curve is nearly flat far from its middle
        if longest < 1e-9:
            break
    return Calibration(max(0.0, float(value[0])), float(value[1]))


def expected_error(probability: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): |mean probability - share right|, averaged over bins of equal count."""
    p, wanted = np.asarray(probability, float), np.asarray(right, float)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    errors = [len(part) * abs(float(p[part].mean() - wanted[part].mean())) for part in parts]
    return sum(errors) / max(1, len(p))


def log_loss(probability: ArrayLike, right: ArrayLike) -> float:
    """Mean of -log P(what was the case), in nats."""
    p, wanted = np.clip(np.asarray(probability, float), EDGE, 1 - EDGE), np.asarray(right, bool)
    return float(-np.log(np.where(wanted, p, 1 - p)).mean()) if len(p) else 0.0
