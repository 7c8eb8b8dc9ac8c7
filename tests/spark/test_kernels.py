"""Single kernels on every instruction set of this processor, against double precision.

python -m pytest tests/spark/test_kernels.py
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tamis import native, topk
from tamis.spark import bindings
from tamis.spark.checkpoint import widen
from tamis.spark.packed import padded, to_bf16, to_int8

SETS = [name for name, runs in native.instruction_sets().items() if runs]
pytestmark = pytest.mark.skipif(not SETS, reason="installed without a compiler")
every_set = pytest.mark.parametrize("isa", range(len(SETS)), ids=SETS)
every_type = pytest.mark.parametrize("dtype", bindings.TYPES)
EPSILON = 2.0**-24


def unaligned(array: NDArray[Any], offset: int) -> NDArray[Any]:
    """A copy that begins `offset` bytes past a multiple of 64."""
    room = np.zeros(array.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    view = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


class Product:
    """A padded random matrix in a type, and what the kernels make of it."""

    def __init__(
        self, rows: int, cols: int, dtype: str, *, seed: int = 0, offset: int = 0, spare: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        wide = np.zeros((rows, padded(cols) + 64 * spare), np.float32)
        wide[:, :cols] = rng.normal(size=(rows, cols))
        # Behind a row lies another matrix, which must not be read.
        wide[:, padded(cols) :] = np.nan if dtype != "int8" else 77
        self.matrix = m = bindings.Matrix()
        if dtype == "int8":
            stored, scale, _ = to_int8(wide)
            total = stored[:, : padded(cols)].sum(1, dtype=np.int32)
            self.kept: list[Any] = [scale, total]
            m.scale, m.row_sum = scale.ctypes.data, total.ctypes.data
            self.exact = stored[:, :cols].astype(np.float64) * scale[:, None].astype(np.float64)
        else:
            stored = to_bf16(wide) if dtype == "bf16" else wide
            self.kept = []
            self.exact = widen(stored)[:, :cols].astype(np.float64)
        stored = unaligned(stored, offset)
        self.kept.append(stored)
        m.data, m.rows, m.cols, m.stride = stored.ctypes.data, rows, padded(cols), stored.shape[1]
        m.type = bindings.TYPES[dtype]
        self.cols, self.dtype = cols, dtype

    def __call__(self, isa: int, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Products with vectors x [batch, cols]: [batch, rows]."""
        library = bindings.library()
        assert library is not None
        wide = np.zeros((len(x), self.matrix.cols), np.float32)
        wide[:, : self.cols] = x
        out = np.full((len(x), self.matrix.rows), 7, np.float32)
        assert library.tamis_matmul(isa, self.matrix, wide.ctypes.data, len(x), out.ctypes.data) == 0
        return out

    def rounded(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The vectors as the kernels round them to meet the weights."""
        if self.dtype == "f32":
            return x.astype(np.float64)
        if self.dtype == "bf16":
            return widen(to_bf16(x)).astype(np.float64)
        most = np.abs(x).max(1, keepdims=True)
        step = np.where(most > 0, most, 1) / 127
        return np.rint(x / step) * step.astype(np.float64)

    def tolerance(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of sums in float32, each of whose n terms and partial sums is rounded; of int8 also the ties of rounding."""
        bound = 2 * self.cols * EPSILON * (np.abs(x) @ np.abs(self.exact.T))
        if self.dtype == "int8":  # float32 and float64 may round a tie apart: one step of one number
            step = np.abs(x).max(1, keepdims=True) / 127
            bound = bound + step * np.abs(self.exact).max(1) * 1.01
        return bound + 1e-30


@every_set
@every_type
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 37), cols=st.integers(1, 300), batch=st.integers(1, 11),
    offset=st.sampled_from((0, 4, 20, 60)), spare=st.integers(0, 2), seed=st.integers(0, 9),
)  # fmt: skip
def test_products_of_any_size(
    isa: int, dtype: str, rows: int, cols: int, batch: int, offset: int, spare: int, seed: int
) -> None:
    product = Product(rows, cols, dtype, seed=seed, offset=offset, spare=spare)
    x = np.random.default_rng(seed + 1).normal(size=(batch, cols)).astype(np.float32)
    rounded = product.rounded(x)
    assert (np.abs(product(isa, x) - rounded @ product.exact.T) <= product.tolerance(rounded)).all()


@every_set
@every_type
def test_one_vector_or_many_is_the_same_product(isa: int, dtype: str) -> None:
    product = Product(37, 200, dtype)
    x = np.random.default_rng(3).normal(size=(9, 200)).astype(np.float32)
    assert np.array_equal(product(isa, x), np.concatenate([product(isa, row[None]) for row in x]))


def test_int8_is_the_same_on_every_set() -> None:
    product = Product(37, 500, "int8")
    x = np.random.default_rng(3).normal(size=(2, 500)).astype(np.float32)
    results = [product(isa, x) for isa in range(len(SETS))]
    assert all(np.array_equal(results[0], other) for other in results)


@every_set
@every_type
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(isa: int, dtype: str, value: float) -> None:
    product = Product(5, 100, dtype)
    x = np.ones((2, 100), np.float32)
    x[1, 63] = value
    out = product(isa, x)
    assert np.isfinite(out[0]).all()
    assert not np.isfinite(out[1]).any()


@every_set
@every_type
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-30, 1e30])
def test_tiny_and_huge_vectors(isa: int, dtype: str, size: float) -> None:
    product = Product(5, 100, dtype)
    x = np.full((1, 100), size, np.float32)
    expected = x.astype(np.float64) @ product.exact.T
    out = product(isa, x)
    assert np.isfinite(out).all()
    assert np.abs(out - expected).max() <= 0.02 * size * np.abs(product.exact).sum(1).max() + 1e-36


def thresholded(
    isa: int, x: NDArray[np.float32], k: int
) -> tuple[float, NDArray[np.int32], NDArray[np.float32]]:
    library = bindings.library()
    assert library is not None
    n = len(x)
    theta, index, value = ctypes.c_float(), np.full(n + 64, -1, np.int32), np.zeros(n + 64, np.float32)
    count = library.tamis_soft_threshold(
        isa,
        x.ctypes.data,
        n,
        topk.quantile(k, n),
        ctypes.addressof(theta),
        index.ctypes.data,
        value.ctypes.data,
    )
    return theta.value, index[:count], value[:count]


@every_set
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 400), share=st.floats(0.01, 0.95), ties=st.booleans(), offset=st.sampled_from((0, 4, 36)),
    shift=st.sampled_from((0.0, 1e4)), seed=st.integers(0, 99),
)  # fmt: skip
def test_soft_threshold(
    isa: int, n: int, share: float, ties: bool, offset: int, shift: float, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=n) + shift
    x = unaligned((np.rint(x) if ties else x).astype(np.float32), offset)
    k = max(1, min(n - 1, round(share * n)))
    theta, index, value = thresholded(isa, x, k)
    exact = topk.threshold(x.astype(np.float64), k).item()
    # Two passes over n numbers near |x|: shifted data must not cancel.
    tolerance = 4 * EPSILON * (np.abs(x).max() + n * np.ptp(x))
    assert abs(theta - exact) <= tolerance
    assert np.array_equal(index, np.flatnonzero(x > np.float32(theta)))
    assert np.allclose(value, x[index] - np.float32(theta), rtol=0, atol=EPSILON * np.abs(x).max())


@every_set
def test_equal_numbers_pass_no_threshold(isa: int) -> None:
    _, index, _ = thresholded(isa, np.full(100, 3.25, np.float32), 10)
    assert len(index) == 0


@every_set
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_threshold_of_what_is_not_finite_is_nan(isa: int, value: float) -> None:
    x = np.zeros(100, np.float32)
    x[50] = value
    theta, index, _ = thresholded(isa, x, 10)
    assert math.isnan(theta)
    assert len(index) == 0


@every_set
def test_active_neurons_are_as_many_as_the_theory_says(isa: int) -> None:
    """n = 13824, k = 1106: 1106 +- 19 (sqrt(n (p(1-p) - phi(z)^2 (1 + z^2/2))))."""
    rng = np.random.default_rng(5)
    counts = [len(thresholded(isa, rng.normal(size=13824).astype(np.float32), 1106)[1]) for _ in range(40)]
    assert abs(np.mean(counts) - 1106) < 5 * 19 / math.sqrt(40)
    assert 10 < np.std(counts) < 30


@every_set
@pytest.mark.parametrize("n", [1, 7, 16, 33])
def test_gelu_and_soft_cap(isa: int, n: int) -> None:
    library = bindings.library()
    assert library is not None
    exact = np.concatenate([np.linspace(-90, 90, n), np.linspace(-1e-3, 1e-3, n)])
    for what, expected in (
        (0, 0.5 * exact * (1 + np.tanh(math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)))),
        (1, 50 * np.tanh(exact / 50)),
    ):
        x = exact.astype(np.float32)
        assert library.tamis_elementwise(isa, what, x.ctypes.data, len(x), 50.0) == 0
        assert np.allclose(x, expected, rtol=3e-6, atol=1e-12 if what == 0 else 0)


@every_set
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("cap", [50.0, 0.5])
def test_huge_numbers_end_at_the_cap_and_what_is_not_finite_is_not_hidden(
    isa: int, sign: int, cap: float
) -> None:
    library = bindings.library()
    assert library is not None
    huge = [500.0, 1e4, 1e8, 1e9, 1e19, 1e30, 3.4e38]
    for times in (1, 3):  # whole lanes and a rest
        x = np.array([*huge, np.inf, np.nan] * times, np.float32) * np.float32(sign)
        gelu, capped, whole = x.copy(), x.copy(), np.isfinite(x)
        assert library.tamis_elementwise(isa, 0, gelu.ctypes.data, len(x), 0.0) == 0
        assert library.tamis_elementwise(isa, 1, capped.ctypes.data, len(x), cap) == 0
        assert (capped[whole] == np.float32(sign * cap)).all()
        assert np.isnan(capped[~whole]).all()
        # Below 0 the exponential ends: 6e-39 |x| are left, far under the rounding of x.
        assert (np.abs(gelu[whole] - np.maximum(x[whole], 0)) <= 7e-39 * np.abs(x[whole].astype(float))).all()
        assert not np.isfinite(gelu[~whole]).any()
