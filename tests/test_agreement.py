"""python -m pytest tests/test_agreement.py"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.agreement import (
    ONE_STANDARD_ERROR,
    Detections,
    Estimate,
    accuracy,
    bootstrap,
    bootstrap_bca,
    confusion,
    edit_accuracy,
    edit_distance,
    f1_difference,
    f1_interval,
    fisher_interval,
    midranks,
    quadratic_kappa,
    quadratic_kappa_interval,
    quadratic_kappas,
    spearman,
    spearmans,
)

short_text = st.text("日本語中文ab，", max_size=8)


def plain_edit_distance(found: str, truth: str) -> int:
    """The definition: the smallest of the three ways to end an alignment."""
    row = list(range(len(truth) + 1))
    for i, a in enumerate(found, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(truth, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


@given(short_text, short_text)
def test_edit_distance_is_the_definition(found: str, truth: str) -> None:
    assert edit_distance(found, truth) == plain_edit_distance(found, truth)


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ("今天天气", "今天天气", 1.0),
        ("今天大气", "今天天气", 0.75),  # one substitution in four
        ("", "今天天气", 0.0),
        ("今天天气今天天气好", "今天天气", 0.0),  # five insertions: never below zero
        ("", "", 1.0),
        ("多", "", 0.0),
        ("𠮷野家", "吉野家", 2 / 3),  # outside the basic plane a character is still one
    ],
)
def test_edit_accuracy_worked_by_hand(found: str, truth: str, expected: float) -> None:
    assert edit_accuracy(found, truth) == pytest.approx(expected)


def test_accuracy_pools_counts() -> None:
    assert accuracy(1 + 0, 4 + 16) == pytest.approx(0.95)


def test_f1_worked_by_hand() -> None:
    found = Detections(true_positives=6, false_positives=2, false_negatives=4)
    assert found.precision == pytest.approx(0.75)
    assert found.recall == pytest.approx(0.6)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert Detections(0, 0, 0).f1 == 1.0
    assert Detections(0, 3, 0).f1 == 0.0
    assert found + Detections(1, 1, 1) == Detections(7, 3, 5)


def mean(values: object) -> float:
    return float(np.mean(values))  # type: ignore[arg-type]


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    generator = np.random.default_rng(0)
    units = list(generator.normal(10.0, 2.0, size=100))
    estimate = bootstrap(units, mean, generator=generator)
    half = 1.96 * np.std(units) / math.sqrt(100)
    assert estimate.n == 100
    assert estimate.value == pytest.approx(np.mean(units))
    assert estimate.low == pytest.approx(estimate.value - half, abs=0.08)
    assert estimate.high == pytest.approx(estimate.value + half, abs=0.08)


def test_bootstrap_repeats_with_its_seed() -> None:
    first, second = (bootstrap([1.0, 2.0, 5.0], mean, generator=np.random.default_rng(4)) for _ in range(2))
    assert first == second


def test_bootstrap_resamples_whole_units() -> None:
    """One bad video of ten cues is one unit: its cues must not be drawn apart."""
    videos = [[1.0] * 10, [1.0] * 10, [0.0] * 10]
    seen = set()

    def pooled(drawn: object) -> float:
        share = mean([cue for video in drawn for cue in video])  # type: ignore[attr-defined]
        seen.add(round(share * 3))
        assert share * 3 == pytest.approx(round(share * 3))
        return share

    bootstrap(videos, pooled, generator=np.random.default_rng(1), resamples=200)
    assert seen == {0, 1, 2, 3}


def test_bootstrap_of_one_unit_has_no_interval() -> None:
    estimate = bootstrap([0.5], mean, generator=np.random.default_rng(0))
    assert estimate.value == 0.5 and math.isnan(estimate.low) and math.isnan(estimate.high)
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap([], mean, generator=np.random.default_rng(0))


def test_bootstrap_leaves_out_resamples_without_a_value() -> None:
    def share_of_positive(units: object) -> float:
        positive = [u for u in units if u > 0]  # type: ignore[attr-defined]
        return mean(positive) if positive else math.nan

    estimate = bootstrap([0.0, 1.0], share_of_positive, generator=np.random.default_rng(0))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


# kappa, Spearman and their intervals


def table_of(truth: list[int], found: list[int]) -> np.ndarray:
    return confusion(truth, found, (1, 2, 3))


def scores(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and a noisy prediction, both in 1, 2, 3."""
    generator = np.random.default_rng(seed)
    truth = generator.choice([1, 2, 3], size=n, p=[0.47, 0.24, 0.29])
    return truth, np.clip(truth + generator.choice([-1, 0, 0, 0, 1], size=n), 1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, found = scores(seed, 60)
    expected = metrics.cohen_kappa_score(truth, found, weights="quadratic", labels=[1, 2, 3])
    assert quadratic_kappa(confusion(truth, found, (1, 2, 3))) == pytest.approx(expected, abs=1e-12)


def test_kappa_keeps_its_categories_when_one_never_occurs() -> None:
    """With categories taken from the values, 1 against 3 would be neighbours."""
    assert quadratic_kappa(table_of([1, 1, 3, 3], [1, 3, 3, 3])) == pytest.approx(0.5)
    assert quadratic_kappa(table_of([1, 1, 2, 2], [1, 2, 2, 2])) == pytest.approx(0.5)


@pytest.mark.parametrize("truth", [[1, 2, 3, 1], [2, 2, 2, 2]])
def test_a_constant_prediction_has_kappa_zero(truth: list[int]) -> None:
    assert quadratic_kappa(table_of(truth, [2, 2, 2, 2])) == pytest.approx(0.0, abs=1e-12)


def test_a_value_outside_the_categories_is_refused() -> None:
    with pytest.raises(ValueError, match=r"categories are \[1, 2, 3\]"):
        table_of([1, 2], [1, 4])


def test_the_kappa_interval_agrees_with_a_simulation() -> None:
    """Fleiss, Cohen & Everitt against the spread of kappa over fresh draws from the same table."""
    generator = np.random.default_rng(1)
    shares = np.array([[0.33, 0.10, 0.04], [0.09, 0.08, 0.07], [0.04, 0.07, 0.18]])
    tables = generator.multinomial(321, shares.ravel(), size=4000).reshape(-1, 3, 3)
    spread = np.std([quadratic_kappa(table) for table in tables])
    estimate = quadratic_kappa_interval(np.round(shares * 321).astype(int))
    assert (estimate.high - estimate.low) / 2 / 1.96 == pytest.approx(spread, rel=0.04)


def test_rho_is_scipys_with_ties() -> None:
    stats = pytest.importorskip("scipy.stats")
    truth, found = scores(3, 80)
    assert spearman(truth, found) == pytest.approx(stats.spearmanr(truth, found).statistic, abs=1e-12)
    assert midranks(truth) == pytest.approx(stats.rankdata(truth))


def test_stacks_give_what_their_rows_give() -> None:
    stack = np.random.default_rng(2).integers(0, 6, (4, 2, 25))
    assert spearmans(stack[:, 0], stack[:, 1]).tolist() == [spearman(a, b) for a, b in stack]
    assert np.array_equal(midranks(stack), [[midranks(row) for row in pair] for pair in stack])


def test_a_constant_side_has_rho_zero() -> None:
    assert spearman([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) == 0.0


@pytest.mark.parametrize(
    ("rho", "printed", "one_error", "true"),
    [
        (0.617, (0.581, 0.651), (0.581, 0.651), (0.544, 0.681)),
        (0.570, (0.531, 0.606), (0.531, 0.607), (0.491, 0.640)),
        (0.560, (0.520, 0.597), (0.520, 0.597), (0.480, 0.631)),
        (0.536, (0.495, 0.575), (0.495, 0.575), (0.453, 0.610)),
        (0.491, (0.448, 0.533), (0.447, 0.532), (0.403, 0.570)),
        (0.485, (0.441, 0.527), (0.441, 0.527), (0.397, 0.564)),
    ],
)
def test_the_printed_intervals_of_tupac16_are_one_standard_error(
    rho: float, printed: tuple[float, float], one_error: tuple[float, float], true: tuple[float, float]
) -> None:
    """Six published results, n = 321: what was printed as 95 % is tanh(atanh r +- 1 / sqrt(n - 3)), to the digit."""
    narrow, wide = fisher_interval(rho, 321, level=ONE_STANDARD_ERROR), fisher_interval(rho, 321)
    assert (narrow.low, narrow.high) == pytest.approx(one_error, abs=0.0005)
    assert (narrow.low, narrow.high) == pytest.approx(printed, abs=0.0016)
    assert (wide.low, wide.high) == pytest.approx(true, abs=0.0006)


def test_bca_is_asymmetric_where_the_statistic_is() -> None:
    """The variance of a small exponential sample: BCa reaches further up than the percentile interval does."""
    units = np.random.default_rng(4).exponential(size=40)

    def variance(drawn: np.ndarray) -> np.ndarray:
        return drawn.var(-1)

    bca = bootstrap_bca(units, variance, generator=np.random.default_rng(5))
    percentile = bootstrap(list(units), lambda u: float(np.var(u)), generator=np.random.default_rng(5))
    assert bca.high > percentile.high
    assert bca.low < bca.value < bca.high
    assert bca == bootstrap_bca(units, variance, generator=np.random.default_rng(5))


def test_bca_covers_in_simulation() -> None:
    """Kappa of 120 cases over 600 draws, whose own standard error is 0.9 %."""
    generator = np.random.default_rng(6)
    shares = np.array([[0.33, 0.10, 0.04], [0.09, 0.08, 0.07], [0.04, 0.07, 0.18]])
    truth = quadratic_kappa((shares * 1e9).astype(int))
    held = 0
    for _ in range(600):
        units = generator.choice(9, size=120, p=shares.ravel())
        estimate = bootstrap_bca(
            units,
            lambda drawn: quadratic_kappas(
                np.stack([(drawn == cell).sum(-1) for cell in range(9)], -1).reshape(-1, 3, 3)
            ).squeeze(),
            generator=generator,
            resamples=400,
        )
        held += estimate.low <= truth <= estimate.high
    assert 0.93 <= held / 600 <= 0.97


def test_f1_interval_covers_in_simulation_with_few_skewed_cases() -> None:
    generator = np.random.default_rng(7)
    truth = pooled_f1(skewed_cases(400_000, generator))
    held = 0
    for _ in range(1000):
        estimate = f1_interval(skewed_cases(34, generator), generator=generator, resamples=400)
        held += estimate.low <= truth <= estimate.high
    assert 0.93 <= held / 1000 <= 0.97


def skewed_cases(n: int, generator: np.random.Generator) -> np.ndarray:
    """Counts of n cases as a mitosis detector gives them: a few cases hold most of the mitoses and of the errors."""
    mitoses = generator.negative_binomial(0.9, 0.9 / 30.9, n)
    found = generator.binomial(mitoses, generator.beta(6, 3, n))
    false = generator.poisson(generator.gamma(1.0, 12, n))
    return np.stack([found, false, mitoses - found], axis=1)


def pooled_f1(counts: np.ndarray) -> float:
    return Detections(*(int(count) for count in counts.sum(0))).f1


def test_f1_interval_gives_the_pooled_f1_and_the_number_of_cases() -> None:
    counts = skewed_cases(20, np.random.default_rng(8))
    estimate = f1_interval(counts, generator=np.random.default_rng(9))
    assert estimate.value == pytest.approx(pooled_f1(counts))
    assert estimate.n == 20
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert f1_interval(np.array([[3, 0, 0], [2, 0, 0]]), generator=np.random.default_rng(9)).value == 1.0


@pytest.mark.parametrize(
    "counts",
    [
        [[5, 1, 1]],
        [[5, 1, 1], [3, 4, 0]],
        [[5, 1, 1], [3, 4, 0], [2, 0, 3]],
        [[3, 0, 0], [2, 0, 0], [9, 0, 0], [1, 0, 0], [4, 0, 0]],
        [[0, 3, 0], [0, 2, 1], [0, 0, 4], [0, 1, 1]],
        [[5, 1, 1]] * 6,
    ],
    ids=["one case", "two", "three", "perfect", "all wrong", "alike"],
)
def test_f1_of_few_cases_or_of_cases_alike_has_no_interval(counts: list[list[int]]) -> None:
    """A standard error of zero, or of two cases, says nothing: [0.727, 0.727] would be a claim of certainty."""
    cases = np.array(counts)
    estimate = f1_interval(cases, generator=np.random.default_rng(9), resamples=200)
    difference = f1_difference(cases, cases, generator=np.random.default_rng(9), resamples=200)
    assert estimate.value == pytest.approx(pooled_f1(cases)) and difference.value == 0
    assert all(math.isnan(end) for end in (estimate.low, estimate.high, difference.low, difference.high))


def test_four_cases_have_an_interval() -> None:
    cases = np.array([[5, 1, 1], [3, 4, 0], [2, 0, 3], [8, 2, 2]])
    estimate = f1_interval(cases, generator=np.random.default_rng(9), resamples=200)
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 3], [1, 2, 2]),
        ([1, 2, 3] * 67 + [1], [1, 2, 3] * 67 + [1]),
        ([1, 1, 2, 3, 3, 3, 1], [2] * 7),
        ([2, 2, 2], [2, 2, 2]),
    ],
    ids=["three right", "three", "perfect", "constant prediction", "constant both"],
)
def test_kappa_of_few_slides_or_without_variance_has_no_interval(truth: list[int], found: list[int]) -> None:
    estimate = quadratic_kappa_interval(table_of(truth, found))
    assert math.isnan(estimate.low) and math.isnan(estimate.high) and estimate.n == len(truth)


def test_bca_of_few_units_or_of_units_alike_has_no_interval() -> None:
    few = bootstrap_bca(np.array([1.0, 2.0, 5.0]), lambda d: d.mean(-1), generator=np.random.default_rng(5))
    assert few.n == 3 and math.isnan(few.low) and math.isnan(few.high)
    alike = bootstrap_bca(np.full(9, 0.1), lambda d: d.mean(-1), generator=np.random.default_rng(5))
    assert alike.value == pytest.approx(0.1)
    assert math.isnan(alike.low) and math.isnan(alike.high)
    # One draw in 250 is of one category alone, and differs: both ends are 1 all the same.
    rare = bootstrap_bca(
        np.array([1, 1, 2, 3, 3, 2]),
        lambda d: np.minimum(np.ptp(d, -1), 1.0),
        generator=np.random.default_rng(5),
    )
    assert rare.value == 1 and math.isnan(rare.low) and math.isnan(rare.high)


def test_kappa_next_to_perfect_keeps_its_interval() -> None:
    """One slip in 500, and a table that is nearly all one category: small variances, and not none."""
    estimate = quadratic_kappa_interval(np.array([[200, 0, 0], [0, 150, 1], [0, 0, 149]]))
    assert estimate.low < estimate.value < estimate.high == 1
    rare = quadratic_kappa_interval(np.array([[99_990, 1, 0], [0, 5, 0], [0, 0, 4]]))
    assert rare.low < rare.value < rare.high


@pytest.mark.parametrize("rho", [1.0, -1.0, 1 - 2e-16])
def test_rho_of_one_has_no_interval(rho: float) -> None:
    estimate = fisher_interval(rho, 500)
    assert (estimate.value, estimate.n) == (rho, 500)
    assert math.isnan(estimate.low) and math.isnan(estimate.high)
    assert fisher_interval(0.999999, 500).low < 0.999999


def test_an_interval_is_told_or_its_absence() -> None:
    assert Estimate(0.7, 0.6514, 0.749, 40).interval() == "[0.651, 0.749]"
    assert Estimate(0.7, -0.02, 0.749, 40).interval("+.2f") == "[-0.02, +0.75]"
    assert Estimate(0.7, math.nan, math.nan, 1).interval() == "[no interval]"


def test_a_paired_difference_is_narrower_than_two_intervals_apart() -> None:
    counts = skewed_cases(40, np.random.default_rng(10))
    worse = counts + np.array([0, 3, 0])
    difference = f1_difference(counts, worse, generator=np.random.default_rng(11))
    alone = f1_interval(counts, generator=np.random.default_rng(12))
    assert difference.value == pytest.approx(pooled_f1(counts) - pooled_f1(worse))
    assert difference.low > 0
    assert difference.high - difference.low < alone.high - alone.low
