"""Support vector machines as plain arrays: predicted by NumPy, stored as .npz, no pickle and no scikit-learn.

A radial kernel over standardised features, k(x, s) = exp(-gamma |x - s|^2). Classes are decided as LIBSVM does (Chang &
Lin 2011): one machine for each pair of classes, one vote each, ties to the lower class. `tamis.proliferation.train_score`
fits them; a test holds both predictions together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import BytesIO
from itertools import combinations
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tamis.errors import WeightsError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Machine:
    """A support vector classifier (`classes` not empty) or regression (`classes` empty)."""

    mean: Floats
    """[d], of the training features; with `scale` [d] it standardises."""
    scale: Floats
    vectors: Floats
    """[n, d], standardised; for a classifier sorted by class."""
    coefficients: Floats
    """[k - 1, n] of a classifier of k classes, [1, n] of a regression."""
    intercepts: Floats
    """[k (k - 1) / 2], or [1]."""
    gamma: float
    classes: Floats
    """[k], ascending."""
    counts: NDArray[np.int64]
    """[k]: support vectors of each class."""
    errors: Floats
    """[m]: true less predicted value over slides in cross-validation, sorted; empty for a classifier."""

    def predict(self, features: Floats) -> Floats:
        """[..., d] -> [...]: the class of each row, or its value."""
        kernel = self._kernel(np.atleast_2d(features))
        values = (
            self._vote(kernel) if len(self.classes) else kernel @ self.coefficients[0] + self.intercepts[0]
        )
        return values.reshape(np.shape(features)[:-1])

    def interval(self, value: float, level: float = 0.95) -> tuple[float, float]:
        """Around a predicted value, the middle `level` of the cross-validation residuals.

        They are those of the folds' machines, and this one was fitted to all slides; so it is near `level`, and nothing proves
        it. Nor do they hold an error of the features that the training slides did not have.
        """
        m = len(self.errors)
        if m == 0:
            return float("nan"), float("nan")
        # The ranks of m + 1 and not of m: so the share inside is right for errors drawn alike, however few they are.
        last = min(m, int(np.ceil((m + 1) * (1 + level) / 2))) - 1
        first = max(0, int(np.floor((m + 1) * (1 - level) / 2)) - 1)
        return value + float(self.errors[first]), value + float(self.errors[last])

    def _kernel(self, features: Floats) -> Floats:
        rows = (features - self.mean) / self.scale
        apart = ((rows[:, None, :] - self.vectors[None, :, :]) ** 2).sum(axis=2)
        return np.exp(-self.gamma * apart)

    def _vote(self, kernel: Floats) -> Floats:
        k = len(self.classes)
        ends = np.concatenate([[0], np.cumsum(self.counts)])
        parts = [slice(ends[c], ends[c + 1]) for c in range(k)]
        votes = np.zeros((len(kernel), k), np.int64)
        for machine, (i, j) in enumerate(combinations(range(k), 2)):
            decision = kernel[:, parts[i]] @ self.coefficients[j - 1, parts[i]]
            decision += kernel[:, parts[j]] @ self.coefficients[i, parts[j]] + self.intercepts[machine]
            winner = np.where(decision > 0, i, j)
            votes[np.arange(len(kernel)), winner] += 1
        return self.classes[votes.argmax(axis=1)]


def to_arrays(prefix: str, machine: Machine) -> dict[str, NDArray[Any]]:
    return {f"{prefix}.{field.name}": np.asarray(getattr(machine, field.name)) for field in fields(Machine)}


def from_bytes(content: bytes) -> dict[str, Machine]:
    """The machines of an .npz, by prefix. Raises WeightsError for anything else."""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as stored:
            prefixes = {name.split(".")[0] for name in stored.files}
            machines = {}
            for prefix in prefixes:
                values = {field.name: stored[f"{prefix}.{field.name}"] for field in fields(Machine)}
                machines[prefix] = Machine(**{**values, "gamma": float(values["gamma"])})
            return machines
    except (ValueError, KeyError, OSError, EOFError, TypeError, BadZipFile) as error:
        raise WeightsError(
            f"The support vector machines cannot be read ({type(error).__name__}: {error}): a file that "
            "`tamis proliferation train` wrote was expected."
        ) from None
