"""Figures on masks whose answer is known.  python -m pytest tests/weakseg/test_metrics.py"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tamis.weakseg.metrics import FIGURES, figures, hd95_px, score

ABOUT = {"name": "a", "unit": "a", "um_per_px": 0.5}


def square(x: int, y: int, side: int, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_counts_and_areas() -> None:
    one = score(square(0, 0, 10), square(5, 0, 10), positive=True, **ABOUT)
    assert (one.true_positives, one.false_positives, one.false_negatives) == (50, 50, 50)
    assert one.pixels == 1600
    assert one.f1 == 0.5
    assert one.marked == one.area == 100 / 1600


def test_all_foreground_scores_2a_over_1_plus_a() -> None:
    truth = square(0, 0, 20)
    one = score(np.ones_like(truth), truth, positive=True, **ABOUT)
    assert FIGURES["f1_positives"]([one]) == pytest.approx(2 * 0.25 / 1.25)


def test_hd95_of_a_shifted_square_is_the_shift() -> None:
    assert hd95_px(square(10, 10, 12), square(10, 10, 12)) == 0
    assert hd95_px(square(10, 10, 12), square(15, 10, 12)) == pytest.approx(5)
    assert hd95_px(np.zeros((30, 40), bool), square(0, 0, 5)[:30]) == 50  # nothing marked: the diagonal


def test_negatives_count_in_the_pool_and_alone() -> None:
    truth = square(0, 0, 20)
    perfect = score(truth, truth, positive=True, **ABOUT)
    dirty = score(square(0, 0, 20), np.zeros_like(truth), positive=False, **(ABOUT | {"unit": "b"}))
    both = [perfect, dirty]
    assert FIGURES["f1_positives"](both) == 1
    assert FIGURES["pooled_f1"](both) == pytest.approx(2 * 400 / (2 * 400 + 400))
    assert FIGURES["area_on_negatives"](both) == 0.25
    assert FIGURES["f1_negatives"](both) == pytest.approx(2 * 1200 / (2 * 1200 + 400))
    assert math.isnan(dirty.hd95_um)


def test_intervals_contain_the_value_and_draw_units() -> None:
    generator = np.random.default_rng(0)
    images = []
    for index in range(20):
        truth = generator.random((30, 30)) < 0.4
        marked = truth ^ (generator.random((30, 30)) < 0.1 + 0.02 * index)
        images.append(
            score(marked, truth, name=f"{index}", unit=f"{index // 2}", positive=True, um_per_px=1.0)
        )
    found = figures(images, resamples=200)
    assert found["pooled_f1"].low < found["pooled_f1"].value < found["pooled_f1"].high
    assert found["pooled_f1"].n == 10  # patients, two images each
