"""python -m pytest tests/test_agreement.py"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.agreement import Detections, accuracy, bootstrap, edit_accuracy, edit_distance

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
