"""How often the intervals of `tamis proliferation evaluate` hold the truth. Run: python benchmarks/proliferation_coverage.py

Challenges are drawn again and again from a known distribution; an interval that calls itself 95 % should hold the true
value in 95 % of them, up to the simulation's own error. Beside ours stand the intervals one might have used instead.
The shares are of the draws that have an interval; `none` is the share that has not: too few cases, or all alike.
Arguments: --draws N (default 1000; the standard error of a coverage is then 0.7 %), --seed.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tamis.agreement import (
    ONE_STANDARD_ERROR,
    Estimate,
    bootstrap_bca,
    f1_interval,
    fisher_interval,
    quadratic_kappa,
    quadratic_kappa_interval,
    spearman,
    spearmans,
)
from tamis.proliferation.evaluate import kappa_bootstrap

# Truth by prediction, with the classes of TUPAC16's training set (236, 117, 147) and a kappa near the winner's.
SHARES = np.array([[0.345, 0.085, 0.042], [0.085, 0.075, 0.074], [0.035, 0.069, 0.190]])
RESAMPLES = 1000
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    print(f"{options.draws} draws, {RESAMPLES} resamples, seed {options.seed}; {platform.machine()}")
    print(
        f"{'statistic':<10} {'n':>5}  {'interval':<34} {'coverage':>8}  {'below':>6} {'above':>6}  {'none':>6}"
    )
    for study in (kappa_study, spearman_study, f1_study):
        study(options.draws, np.random.default_rng(options.seed))
    print(f"{time.perf_counter() - started:.0f} s")


def kappa_study(draws: int, generator: np.random.Generator) -> None:
    truth = quadratic_kappa((SHARES / SHARES.sum() * 1e12).astype(np.int64))
    shares = SHARES.ravel() / SHARES.sum()
    for n in (100, 321, 4, 8, 16):
        methods: dict[str, Callable[[NDArray[np.int64]], Estimate]] = {
            "Fleiss, Cohen & Everitt (ours)": lambda cells: quadratic_kappa_interval(table(cells)),
            "BCa bootstrap (ours)": lambda cells: kappa_bootstrap(
                np.stack([cells // 3, cells % 3], axis=1) + 1.0, generator, RESAMPLES
            ),
        }
        report("kappa", n, truth, methods, [generator.choice(9, size=n, p=shares) for _ in range(draws)])


def table(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(cells, minlength=9).reshape(3, 3)


def spearman_study(draws: int, generator: np.random.Generator) -> None:
    """A normal pair, so that the true rho of ranks is 6 / pi asin(r / 2)."""
    r = 0.635
    truth = 6 / np.pi * np.arcsin(r / 2)
    for n in (100, 321, 4, 8, 16):
        methods: dict[str, Callable[[Floats], Estimate]] = {
            "Fisher, 1.96 errors (ours)": lambda pair: fisher_interval(spearman(*pair.T), len(pair)),
            "Fisher, one error (as printed)": lambda pair: fisher_interval(
                spearman(*pair.T), len(pair), level=ONE_STANDARD_ERROR
            ),
        }
        if n == 100:
            methods["BCa bootstrap"] = lambda pair: bootstrap_bca(
                pair, lambda d: spearmans(d[..., 0], d[..., 1]), generator=generator, resamples=RESAMPLES
            )
        covariance = [[1, r], [r, 1]]
        report(
            "rho",
            n,
            truth,
            methods,
            [generator.multivariate_normal([0, 0], covariance, n) for _ in range(draws)],
        )


def f1_study(draws: int, generator: np.random.Generator) -> None:
    """Cases as a detector meets them: a few hold most of the mitoses and most of the errors."""
    pooled = skewed_cases(2_000_000, generator).sum(0)
    truth = 2 * pooled[0] / (2 * pooled[0] + pooled[1] + pooled[2])
    for n in (34, 73, 2, 4, 8, 16):
        methods: dict[str, Callable[[NDArray[np.int64]], Estimate]] = {
            "studentised bootstrap (ours)": lambda counts: f1_interval(
                counts, generator=generator, resamples=RESAMPLES
            ),
            "BCa bootstrap": lambda counts: bootstrap_bca(
                counts, f1s, generator=generator, resamples=RESAMPLES
            ),
            "percentile bootstrap": lambda counts: percentile(counts, generator),
            "cells, not cases (percentile)": lambda counts: of_cells(counts, generator),
        }
        report("F1", n, float(truth), methods, [skewed_cases(n, generator) for _ in range(draws)])


def skewed_cases(n: int, generator: np.random.Generator) -> NDArray[np.int64]:
    mitoses = generator.negative_binomial(0.9, 0.9 / 30.9, n)
    found = generator.binomial(mitoses, generator.beta(6, 3, n))
    false = generator.poisson(generator.gamma(1.0, 12, n))
    return np.stack([found, false, mitoses - found], axis=1)


def f1s(counts: NDArray[np.int64]) -> Floats:
    true, false, missed = np.moveaxis(counts.sum(-2), -1, 0)
    return 2 * true / np.maximum(1, 2 * true + false + missed)


def percentile(counts: NDArray[np.int64], generator: np.random.Generator) -> Estimate:
    n = len(counts)
    values = f1s(counts[generator.integers(n, size=(RESAMPLES, n))])
    return Estimate(float(f1s(counts)), *map(float, np.quantile(values, [0.025, 0.975])), n)


def of_cells(counts: NDArray[np.int64], generator: np.random.Generator) -> Estimate:
    """What resampling detections as if they were independent gives."""
    pooled = counts.sum(0)
    values = f1s(generator.multinomial(pooled.sum(), pooled / pooled.sum(), size=RESAMPLES)[:, None, :])
    return Estimate(float(f1s(counts)), *map(float, np.quantile(values, [0.025, 0.975])), len(counts))


def report(name: str, n: int, truth: float, methods: dict[str, Callable], samples: list) -> None:  # type: ignore[type-arg]
    for label, method in methods.items():
        estimates = [method(sample) for sample in samples]
        given = [estimate for estimate in estimates if not math.isnan(estimate.low)]
        told = f"{name:<10} {n:>5}  {label:<34} {'-':>8}  {'-':>6} {'-':>6}"
        if given:
            below = np.mean([truth < estimate.low for estimate in given])
            above = np.mean([truth > estimate.high for estimate in given])
            told = f"{name:<10} {n:>5}  {label:<34} {1 - below - above:8.1%}  {below:6.1%} {above:6.1%}"
        print(f"{told}  {1 - len(given) / len(estimates):6.1%}", flush=True)


if __name__ == "__main__":
    main()
