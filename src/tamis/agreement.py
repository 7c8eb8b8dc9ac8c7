"""How well results agree with the truth: edit distance, F1, kappa, Spearman, and their intervals. Plain functions.

Whatever is reported carries its interval and its n. Intervals resample the units that are independent of each other
(videos, patients), never the cues or cells inside one of them: those share a font, a scanner, a person.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Unit = TypeVar("Unit")
Floats = NDArray[np.float64]
NORMAL = NormalDist()
ONE_STANDARD_ERROR = 2 * NORMAL.cdf(1.0) - 1
"""The level, 68.3 %, of an interval of plus and minus one standard error."""
STACK = 1 << 22  # values resampled at once: 32 MiB
FEWEST = 4
"""Units for an interval of F1, kappa or rho. Those of two or three hold the truth far too seldom: F1's BCa in half the draws."""
NO_SPREAD = 1e-12
"""A standard error that is rounding alone: all units alike, or all perfect. They do not say how others might differ."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its interval. `low` and `high` are NaN where the units are too few or too alike for one."""

    value: float
    low: float
    high: float
    n: int

    def interval(self, form: str = ".3f") -> str:
        """In words: "[0.607, 0.744]", or "[no interval]"."""
        return "[no interval]" if math.isnan(self.low) else f"[{self.low:{form}}, {self.high:{form}}]"


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
    if not truth:
        return len(found)
    # Columns of the table of distances as bits: whether each entry is one more, or one less, than the one above
    # (Myers 1999, in the form of Hyyrö 2003). Python's integers are as long as any text.
    places: dict[str, int] = {}
    for i, character in enumerate(truth):
        places[character] = places.get(character, 0) | 1 << i
    last, every = 1 << (len(truth) - 1), (1 << len(truth)) - 1
    distance, more, less = len(truth), every, 0
    for character in found:
        equal = places.get(character, 0)
        diagonal = (((equal & more) + more) ^ more) | equal | less
        across_more, across_less = less | ~(diagonal | more) & every, more & diagonal
        distance += bool(across_more & last) - bool(across_less & last)
        across_more, across_less = across_more << 1 | 1, across_less << 1
        more, less = (across_less | ~(diagonal | across_more)) & every, across_more & diagonal & every
    return distance


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


def bootstrap_bca(
    units: NDArray[Any],
    statistic: Callable[[NDArray[Any]], Floats],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """`statistic(units)` with a bias-corrected and accelerated interval (Efron 1987; Efron & Tibshirani 1993, ch. 14).

    units      [n] or [n, k], one row per independent unit, such as a case
    statistic  of whole stacks of draws: [..., n] or [..., n, k] -> [...]; finite on every draw

    With fewer than four units, or where the draws give the same so nearly always that both ends coincide, there is no
    interval: low and high are NaN. No units at all raises ValueError.
    """
    n = len(units)
    if n == 0:
        raise ValueError("a bootstrap needs at least one unit, and got none")
    value = float(statistic(units))
    if n < FEWEST:
        return Estimate(value, math.nan, math.nan, n)
    draws = generator.integers(n, size=(resamples, n))
    rest = np.array_split(np.arange(n), max(1, n * n * units[0].size // STACK))
    values = np.concatenate(
        [
            statistic(units[part])
            for part in np.array_split(draws, max(1, draws.size * units[0].size // STACK))
        ]
    )
    if np.ptp(values) <= NO_SPREAD:
        return Estimate(value, math.nan, math.nan, n)
    left_out = np.concatenate([statistic(units[_all_but(part, n)]) for part in rest])
    low, high = map(float, np.quantile(values, _bca_shares(value, values, left_out, level)))
    if high - low <= NO_SPREAD:
        low = high = math.nan
    return Estimate(value, low, high, n)


def _all_but(left_out: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """For each index, all the others: [len(left_out), n - 1]."""
    places = np.arange(n - 1)[None, :]
    return places + (places >= left_out[:, None])


def _bca_shares(value: float, values: Floats, left_out: Floats, level: float) -> list[float]:
    """Which quantiles of the resampled `values` end the interval: (14.10) and (14.15) of Efron & Tibshirani."""
    # Ties count half: kappa and F1 take few values when n is small.
    below = (np.sum(values < value) + 0.5 * np.sum(values == value)) / len(values)
    edge = 1 / (len(values) + 1)
    bias = NORMAL.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    steps = left_out.mean() - left_out
    spread = float(np.sum(steps**2)) ** 1.5
    acceleration = float(np.sum(steps**3)) / (6 * spread) if spread > 0 else 0.0
    shares = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + NORMAL.inv_cdf(tail)
        shares.append(NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))
    return shares


def f1_interval(
    counts: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """F1 of counts pooled over cases, with a studentised bootstrap interval over cases.

    counts  [n cases, 3]: true positives, false positives, false negatives

    F1 of pooled counts is a ratio of sums, 2 TP / (2 TP + FP + FN), so each case has an influence and the ratio a
    linearised standard error (Cochran 1977, 6.3). Studentising by it (Efron & Tibshirani 1993, 12.5) covers 95 % with
    a few dozen skewed cases, where percentile and BCa intervals cover 90 to 92 (benchmarks/proliferation_coverage.py).
    Over four cases it covers 93. Clipped to [0, 1]. With fewer than four cases, or where all are alike, there
    is no interval: NaN. No cases at all raises ValueError.
    """
    n = len(counts)
    if n == 0:
        raise ValueError("a bootstrap needs at least one unit, and got none")
    value, influences = f1_influences(counts)
    return _studentized(float(value), influences, counts, f1_influences, generator, resamples, level, (0, 1))


def f1_difference(
    counts: NDArray[np.int64],
    others: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """F1 of `counts` less F1 of `others`, two methods on the same cases [n, 3], as in `f1_interval`."""
    both = np.stack([counts, others], axis=1)  # [n, 2, 3]: a case is drawn with both its results

    def difference(drawn: NDArray[np.int64]) -> tuple[Floats, Floats]:
        (a, of_a), (b, of_b) = f1_influences(drawn[..., 0, :]), f1_influences(drawn[..., 1, :])
        return a - b, of_a - of_b

    value, influences = difference(both)
    return _studentized(float(value), influences, both, difference, generator, resamples, level, (-1, 1))


def f1_influences(counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """F1 [...] of counts [..., n, 3], and by how much each case moves it [..., n]."""
    found, total = 2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2]
    whole = np.maximum(total.sum(-1), 1)
    f1 = np.where(total.sum(-1) == 0, 1.0, found.sum(-1) / whole)
    return f1, (found - f1[..., None] * total) / whole[..., None]


def _studentized(
    value: float,
    influences: Floats,
    units: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], tuple[Floats, Floats]],
    generator: np.random.Generator,
    resamples: int,
    level: float,
    bounds: tuple[float, float],
) -> Estimate:
    """The bootstrap-t interval of a statistic that tells the influence of each unit as well."""
    n = len(units)
    if n < FEWEST:
        return Estimate(value, math.nan, math.nan, n)
    scale = math.sqrt(n / (n - 1))
    error = scale * float(np.linalg.norm(influences))
    values, drawn_influences = statistic(units[generator.integers(n, size=(resamples, n))])
    errors = scale * np.linalg.norm(drawn_influences, axis=-1)
    sound = errors > NO_SPREAD
    if error <= NO_SPREAD or not sound.any():
        return Estimate(value, math.nan, math.nan, n)
    ratios = (values[sound] - value) / errors[sound]
    below, above = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    low, high = value - float(above) * error, value - float(below) * error
    return Estimate(value, max(bounds[0], low), min(bounds[1], high), n)


def confusion(truth: ArrayLike, found: ArrayLike, categories: Sequence[int]) -> NDArray[np.int64]:
    """How often category i was called j: [k, k], truth along the rows. Values outside `categories` raise ValueError."""
    order = np.asarray(sorted(categories))
    rows, columns = (np.searchsorted(order, np.asarray(values)) for values in (truth, found))
    k = len(order)
    for places, values in ((rows, truth), (columns, found)):
        if not np.array_equal(order[np.minimum(places, k - 1)], np.asarray(values)):
            raise ValueError(f"the categories are {order.tolist()}, and there are others among the values")
    return np.bincount(rows * k + columns, minlength=k * k).reshape(k, k)


def quadratic_kappa(table: NDArray[np.int64]) -> float:
    """Cohen's kappa with quadratic weights of one table of counts [k, k]; see `quadratic_kappas`."""
    return float(quadratic_kappas(table))


def quadratic_kappas(tables: NDArray[np.int64]) -> Floats:
    """Cohen's kappa with quadratic weights (Cohen 1968) of tables of counts [..., k, k] -> [...].

    Where chance alone agrees fully (both sides name one and the same category) kappa is 0 / 0: it counts as 0, since
    such a prediction tells nothing.
    """
    shares = tables / tables.sum(axis=(-2, -1), keepdims=True)
    weights = _quadratic_weights(tables.shape[-1])
    observed = np.sum(weights * shares, axis=(-2, -1))
    by_chance = shares.sum(-1)[..., :, None] * shares.sum(-2)[..., None, :]
    beyond = 1 - np.sum(weights * by_chance, axis=(-2, -1))
    informed = beyond > 1e-12
    return np.where(informed, 1 - (1 - observed) / np.where(informed, beyond, 1.0), 0.0)


def quadratic_kappa_interval(table: NDArray[np.int64], level: float = 0.95) -> Estimate:
    """Quadratic kappa with the large-sample interval of Fleiss, Cohen & Everitt (1969), equation 13.

    Clipped to [-1, 1]. Below four cases, and where the variance is undefined or zero (full agreement, a constant
    prediction), there is no interval: NaN. A formula for many cases: of 16 slides it covers 85 %, of 8 it covers 79.
    """
    n = int(table.sum())
    shares = table / n
    weights = _quadratic_weights(len(table))
    rows, columns = shares.sum(1), shares.sum(0)
    observed = float(np.sum(weights * shares))
    expected = float(np.sum(weights * np.outer(rows, columns)))
    kappa = quadratic_kappa(table)
    if n < FEWEST or 1 - expected < 1e-12:
        return Estimate(kappa, math.nan, math.nan, n)
    row_means, column_means = weights @ columns, rows @ weights
    terms = weights * (1 - expected) - (row_means[:, None] + column_means[None, :]) * (1 - observed)
    mean = float(np.sum(shares * terms))  # of the equation: Po Pe - 2 Pe + Po
    deviation = math.sqrt(float(np.sum(shares * (terms - mean) ** 2))) / (1 - expected) ** 2
    if deviation <= 1e-9:  # rounding alone; one slip in a million slides makes it 1e-3
        return Estimate(kappa, math.nan, math.nan, n)
    half = _two_sided(level) * deviation / math.sqrt(n)
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), n)


def _quadratic_weights(k: int) -> Floats:
    """1 on the diagonal, 0 in the far corners: [k, k]."""
    place = np.arange(k, dtype=np.float64)
    return 1 - ((place[:, None] - place[None, :]) / (k - 1)) ** 2


def midranks(values: ArrayLike) -> Floats:
    """Ranks from 1 on along the last axis; equal values share the mean of theirs. [..., n] -> [..., n].

    >>> midranks([10, 30, 30, 20]).tolist()
    [1.0, 3.5, 3.5, 2.0]
    """
    array = np.asarray(values)
    distinct, place = np.unique(array, return_inverse=True)
    rows, k = place.reshape(-1, array.shape[-1]), len(distinct)
    counts = np.bincount((rows + k * np.arange(len(rows))[:, None]).ravel(), minlength=len(rows) * k)
    counts = counts.reshape(len(rows), k)
    ranks = counts.cumsum(1) - (counts - 1) / 2
    return np.take_along_axis(ranks, rows, 1).reshape(array.shape)


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rho of two rows of n values; see `spearmans`."""
    return float(spearmans(one, other))


def spearmans(one: ArrayLike, other: ArrayLike) -> Floats:
    """Spearman's rho with midranks, in [-1, 1], along the last axis. Where one side is constant it is 0 / 0: 0."""
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (midranks(one), midranks(other)))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.where(scale > 0, (a * b).sum(-1) / np.where(scale > 0, scale, 1.0), 0.0)


def fisher_interval(rho: float, n: int, *, level: float = 0.95) -> Estimate:
    """A correlation with Fisher's interval tanh(atanh rho +- z / sqrt(n - 3)) (Fisher 1921). NaN where n < 4 or |rho| = 1."""
    if n < FEWEST or abs(rho) >= 1 - NO_SPREAD:
        return Estimate(rho, math.nan, math.nan, n)
    half = _two_sided(level) / math.sqrt(n - 3)
    return Estimate(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half), n)


def _two_sided(level: float) -> float:
    """1.96 for 0.95."""
    return NORMAL.inv_cdf((1 + level) / 2)


def _ratio(part: int, whole: int) -> float:
    return 1.0 if whole == 0 else part / whole
