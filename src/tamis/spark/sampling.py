"""From logits to a token: greedy, or drawn after temperature, top-k and top-p (Holtzman et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, UsageError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """0: always the likeliest token."""
    top_k: int = 0
    """Draw among the k likeliest only; 0: all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int | None = None
    """Of the random generator; None: another text every time."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"The temperature is {self.temperature}; expected 0 (greedy) or more.")
        if self.top_k < 0:
            raise UsageError(f"top-k is {self.top_k}; expected 0 (all tokens) or more.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}; expected more than 0 and at most 1.")
        if self.seed is not None and self.seed < 0:
            raise UsageError(f"The seed is {self.seed}; expected 0 or more.")


class Sampler:
    """Draws tokens with one random generator."""

    def __init__(self, sampling: Sampling, stream: int = 0) -> None:
        """stream: the number of the sequence, so that several with one seed differ."""
        self.sampling = sampling
        seed = sampling.seed if sampling.seed is None else [sampling.seed, stream]
        self.random = np.random.default_rng(seed)

    def __call__(self, logits: NDArray[np.floating[Any]]) -> int:
        """The next token, from logits [vocabulary]. Raises InputError when they are not finite."""
        if not np.isfinite(logits).all():
            raise InputError(
                "The model computes values that are not finite: its weights are damaged, or too large for their type."
            )
        s = self.sampling
        if s.temperature == 0:
            return int(np.argmax(logits))
        kept = np.arange(len(logits))
        if 0 < s.top_k < len(logits):
            kept = np.argpartition(-logits, s.top_k - 1)[: s.top_k]
        behind = logits[kept].astype(np.float64)
        behind -= behind.max()
        with np.errstate(
            over="ignore"
        ):  # next to no temperature: what is not the likeliest is infinitely far behind
            probability = np.exp(behind / s.temperature)
        probability /= probability.sum()
        if s.top_p < 1:
            order = np.argsort(-probability, kind="stable")
            before = np.cumsum(probability[order]) - probability[order]
            order = order[before < s.top_p]
            kept, probability = kept[order], probability[order] / probability[order].sum()
        return int(self.random.choice(kept, p=probability))
