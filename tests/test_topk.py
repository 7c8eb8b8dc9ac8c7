"""python -m pytest tests/test_topk.py"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tamis.topk import METHODS, Method, mask_below, quantile, soft_threshold, threshold


def test_exact_keeps_k_entries_and_subtracts_the_next() -> None:
    x = np.array([[3.0, 1.0, 2.0, -5.0, 0.5]])
    assert soft_threshold(x, 2, method="exact").tolist() == [[2.0, 0.0, 1.0, 0.0, 0.0]]
    assert mask_below(x, 2, method="exact").tolist() == [[3.0, -math.inf, 2.0, -math.inf, -math.inf]]


def test_statistical_threshold_is_its_formula() -> None:
    x = np.random.default_rng(0).normal(3, 2, (7, 501))
    theta = threshold(x, 40)
    expected = x.mean(-1) + x.std(-1) * quantile(40, 501)
    np.testing.assert_allclose(theta[:, 0], expected, rtol=1e-14)


def test_counts_of_normal_rows_lie_where_theory_says() -> None:
    """Mean k, and the standard deviation of the docstring, not the binomial one."""
    n, k, rows = 13824, 1106, 400
    x = np.random.default_rng(1).normal(0.5, 3, (rows, n))
    counts = (soft_threshold(x, k) > 0).sum(-1)
    p, z = k / n, quantile(k, n)
    phi = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    sd = math.sqrt(n * (p * (1 - p) - phi**2 * (1 + z * z / 2)))
    assert abs(counts.mean() - k) < 4 * sd / math.sqrt(rows) + 1
    assert counts.std() == pytest.approx(sd, rel=0.15)
    assert sd < 0.7 * math.sqrt(k * (1 - p))


def test_moments_survive_a_large_offset() -> None:
    """Naive sums of squares would cancel: 1e8 away from zero, one float64 in 1e16 is left of the variance."""
    x = np.random.default_rng(2).normal(0, 1, (3, 1000))
    np.testing.assert_allclose(threshold(x + 1e8, 80) - 1e8, threshold(x, 80), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_invisible_entries_count_for_nothing(method: Method) -> None:
    rng = np.random.default_rng(3)
    x, visible = rng.normal(size=(5, 60)), rng.random((5, 60)) < 0.7
    x[~visible] = 1e6
    for row, seen in zip(x, visible, strict=True):
        alone = soft_threshold(row[seen], 9, method=method)
        np.testing.assert_allclose(
            soft_threshold(row, 9, seen, method=method)[seen], alone, rtol=1e-12, atol=1e-12
        )
        assert not soft_threshold(row, 9, seen, method=method)[~seen].any()
        assert np.isneginf(mask_below(row, 9, seen, method=method)[~seen]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 4, 5])
def test_nothing_is_left_out_when_k_covers_what_is_visible(method: Method, n: int) -> None:
    x = np.random.default_rng(4).normal(size=(2, 8))
    visible = np.arange(8) < n
    np.testing.assert_array_equal(soft_threshold(x, 5, visible, method=method)[:, :n], x[:, :n])
    np.testing.assert_array_equal(mask_below(x, 5, visible, method=method)[:, :n], x[:, :n])


@pytest.mark.parametrize("method", METHODS)
def test_a_softmax_never_gets_an_empty_row(method: Method) -> None:
    """Two equal heaps: the statistical threshold lies above both. Constants: nothing is above anything."""
    heaps = np.repeat([[-1.0, 1.0]], 50, axis=1)
    assert (mask_below(heaps, 5, method=method) == 1.0).sum() == 50
    assert np.isfinite(mask_below(np.full((1, 90), 0.1), 5, method=method)).all()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        threshold(np.zeros((1, 3)), 0)
    with pytest.raises(ValueError, match="'sorted' is unknown"):
        threshold(np.zeros((1, 3)), 1, method="sorted")  # type: ignore[arg-type]
