"""The three tasks of TUPAC16 scored as its organisers defined them, each value with its interval and n.

task 1  quadratic-weighted kappa over the fixed scores 1, 2, 3; interval of Fleiss, Cohen & Everitt, and BCa bootstrap
task 2  Spearman's rho with midranks; Fisher's interval at 95 %. The challenge printed plus and minus one standard
        error, about 68 %, as 95 %: `tupac_compat` reproduces that
task 3  F1 of one-to-one matches within 7.5 um, pooled over images; studentised bootstrap over cases

Veta et al., Medical Image Analysis 54, 2019 (arXiv 1807.08284).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.agreement import (
    ONE_STANDARD_ERROR,
    Detections,
    Estimate,
    bootstrap_bca,
    confusion,
    f1_difference,
    f1_influences,
    f1_interval,
    fisher_interval,
    midranks,
    quadratic_kappa_interval,
    quadratic_kappas,
    spearmans,
)
from tamis.proliferation.matching import Surplus, match
from tamis.proliferation.submission import CATEGORIES, Points, Submission

Floats = NDArray[np.float64]
METRICS = {"task1": "kappa", "task2": "spearman", "task3": "f1"}
SEED = 20161001


@dataclass(frozen=True, slots=True)
class Options:
    """How to score, where the challenge leaves a choice."""

    surplus: Surplus = "false-positive"
    threshold: float | None = None
    """Detections with less confidence do not count. The challenge asks for one over all images."""
    tupac_compat: bool = False
    bootstrap_kappa: bool = False
    """Report kappa with its BCa interval in place of the formula's."""
    resamples: int = 2000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One submission; None for a task that it or the truth does not enter."""

    name: str
    estimates: Mapping[str, Estimate | None]
    """task1, task2, task3."""
    kappa_bootstrap: Estimate | None = None
    detections: Detections | None = None
    """Of task 3, over all images."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two submissions on the same cases: value of `one` less value of `other`."""

    task: str
    one: str
    other: str
    estimate: Estimate
    p: float
    """Two-sided, by exchanging the two methods' results case by case."""


def evaluate(submission: Submission, truth: Submission, options: Options = Options()) -> Evaluation:
    """Score one submission, as `submission.read_submission` gives it."""
    estimates: dict[str, Estimate | None] = dict.fromkeys(METRICS)
    bootstrapped = detections = None
    if (pair := _pair(submission, truth, "mitotic_score")) is not None:
        estimates["task1"] = quadratic_kappa_interval(confusion(pair[:, 0], pair[:, 1], CATEGORIES))
        bootstrapped = kappa_bootstrap(pair, _generator(), options.resamples)
        if options.bootstrap_kappa:
            estimates["task1"] = bootstrapped
    if (pair := _pair(submission, truth, "pam50_proliferation")) is not None:
        level = ONE_STANDARD_ERROR if options.tupac_compat else 0.95
        estimates["task2"] = fisher_interval(float(_rhos(pair)), len(pair), level=level)
    if submission.points is not None and truth.points is not None:
        counts = case_counts(submission.points, truth.points, options)
        estimates["task3"] = f1_interval(counts, generator=_generator(), resamples=options.resamples)
        detections = Detections(*(int(count) for count in counts.sum(axis=0)))
    return Evaluation(submission.name, estimates, bootstrapped, detections)


def kappa_bootstrap(pair: Floats, generator: np.random.Generator, resamples: int) -> Estimate:
    """Kappa of truth and prediction [n, 2] with its BCa interval over slides.

    None where all are right: draws of one category alone have a kappa of 0, and the spread that they make is no error.
    """
    estimate = bootstrap_bca(pair, _kappas, generator=generator, resamples=resamples)
    if (pair[:, 0] == pair[:, 1]).all():
        return Estimate(estimate.value, math.nan, math.nan, estimate.n)
    return estimate


def compare(
    task: str,
    one: Submission,
    other: Submission,
    truth: Submission,
    options: Options = Options(),
) -> Difference:
    """The paired difference in a task that both enter: 95 % interval over cases, and a permutation p."""
    if task == "task3":
        assert one.points is not None and other.points is not None and truth.points is not None
        counts = [case_counts(points, truth.points, options) for points in (one.points, other.points)]
        estimate = f1_difference(*counts, generator=_generator(), resamples=options.resamples)
        both = np.stack(counts, axis=1)
        p = _permutation(
            both, lambda r: f1_influences(r[..., 0, :])[0] - f1_influences(r[..., 1, :])[0], options
        )
        return Difference(task, one.name, other.name, estimate, p)
    column, statistic = ("mitotic_score", _kappas) if task == "task1" else ("pam50_proliferation", _rhos)
    ours, theirs = _pair(one, truth, column), _pair(other, truth, column)
    assert ours is not None and theirs is not None
    triples = np.column_stack([ours, theirs[:, 1]])  # truth, one, other

    def difference(drawn: Floats) -> Floats:
        return statistic(drawn[..., :2]) - statistic(drawn[..., [0, 2]])

    estimate = bootstrap_bca(triples, difference, generator=_generator(), resamples=options.resamples)
    if task == "task2":  # only ranks can change hands between methods of different scales
        triples = midranks(triples.T).T
    p = _permutation(triples[:, 1:], lambda drawn: difference(_beside(triples[:, :1], drawn)), options)
    return Difference(task, one.name, other.name, estimate, p)


def _beside(column: Floats, drawn: Floats) -> Floats:
    """[n, 1] and [..., n, 2] -> [..., n, 3]."""
    return np.concatenate([np.broadcast_to(column, (*drawn.shape[:-1], 1)), drawn], axis=-1)


def case_counts(found: Points, truth: Points, options: Options) -> NDArray[np.int64]:
    """True positives, false positives and false negatives of every case: [n cases, 3], cases in order.

    A case is the folder of an image ("05" of "05/01"), or the image itself where it lies in none.
    """
    cases: dict[str, Detections] = {}
    for image in sorted(set(truth.images) | set(found.images)):
        here = found.images.get(image, np.empty((0, 3)))
        if options.threshold is not None:
            here = here[~(here[:, 2] < options.threshold)]  # what states no confidence stays
        there = truth.images.get(image, np.empty((0, 3)))
        case = image.rpartition("/")[0] or image
        counted = match(here[:, :2], there[:, :2], surplus=options.surplus)
        cases[case] = cases.get(case, Detections(0, 0, 0)) + counted
    rows = [(c.true_positives, c.false_positives, c.false_negatives) for c in cases.values()]
    return np.array(rows, np.int64).reshape(-1, 3)


def plain(evaluation: Evaluation) -> dict[str, Any]:
    """As JSON: {"task1": {"kappa":, "low":, "high":, "n":}, ...}, null for a task not entered."""
    return {
        task: None
        if (estimate := evaluation.estimates[task]) is None
        else {
            metric: _finite(estimate.value),
            "low": _finite(estimate.low),
            "high": _finite(estimate.high),
            "n": estimate.n,
        }
        for task, metric in METRICS.items()
    }


def plain_difference(difference: Difference) -> dict[str, Any]:
    estimate = difference.estimate
    return {
        "task": difference.task,
        "one": difference.one,
        "other": difference.other,
        "difference": _finite(estimate.value),
        "low": _finite(estimate.low),
        "high": _finite(estimate.high),
        "p": difference.p,
        "n": estimate.n,
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN: null where there is no interval."""
    return None if math.isnan(value) else float(value)


def _pair(submission: Submission, truth: Submission, column: str) -> Floats | None:
    """[n, 2]: truth and prediction, where both have the task."""
    if submission.scores is None or truth.scores is None:
        return None
    expected, found = getattr(truth.scores, column), getattr(submission.scores, column)
    return None if expected is None or found is None else np.column_stack([expected, found])


def _kappas(pairs: Floats) -> Floats:
    """[..., n, 2] -> [...]. Counts of the 3 x 3 table, then kappa."""
    k = len(CATEGORIES)
    places = pairs.astype(np.int64) - CATEGORIES[0]
    cells = places[..., 0] * k + places[..., 1]
    counts = np.stack([(cells == cell).sum(-1) for cell in range(k * k)], axis=-1)
    return quadratic_kappas(counts.reshape(*counts.shape[:-1], k, k))


def _rhos(pairs: Floats) -> Floats:
    return spearmans(pairs[..., 0], pairs[..., 1])


def _permutation(
    results: NDArray[Any], difference: Callable[[NDArray[Any]], Floats], options: Options
) -> float:
    """p of `difference(results)`, results [n cases, 2 methods, ...], when methods change places at random per case."""
    swap = _generator().integers(2, size=(options.resamples, len(results))).astype(bool)
    swap = swap.reshape(*swap.shape, *[1] * (results.ndim - 1))
    drawn = np.where(swap, results[:, ::-1], results)
    extreme = np.sum(np.abs(difference(drawn)) >= abs(float(difference(results))) - 1e-12)
    return (int(extreme) + 1) / (options.resamples + 1)


def _generator() -> np.random.Generator:
    """The same draws every time: a result can be printed twice."""
    return np.random.default_rng(SEED)


def ranked(evaluations: Sequence[Evaluation], task: str) -> list[Evaluation]:
    """Those that enter the task, best first; tasks are ranked separately, as in the challenge."""
    entered = [(e.estimates[task], e) for e in evaluations]
    return [
        e for estimate, e in sorted(entered, key=lambda pair: -pair[0].value if pair[0] else 0) if estimate
    ]
