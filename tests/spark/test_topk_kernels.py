"""The fused training kernels of csrc/topk_training.h against NumPy, without PyTorch: the sanitizers run them here.

python -m pytest tests/spark/test_topk_kernels.py
"""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis import native, topk

SETS = [name for name, runs in native.instruction_sets().items() if runs]
pytestmark = pytest.mark.skipif(not SETS, reason="installed without a compiler")
every_set = pytest.mark.parametrize("isa", range(len(SETS)), ids=SETS)
every_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])
Array = NDArray[np.floating[Any]]
C = ctypes
SIGNATURES = {
    "soft_threshold": [C.c_int, C.c_void_p, C.c_int64, C.c_int64, C.c_double, C.c_void_p, C.c_void_p, C.c_int],
    "soft_threshold_backward":
        [C.c_int, *[C.c_void_p] * 3, C.c_int64, C.c_int64, C.c_double, C.c_void_p, C.c_int],
    "attention_weights": [C.c_int, *[C.c_void_p] * 5, C.c_int],
    "attention_weights_backward": [C.c_int, *[C.c_void_p] * 7, C.c_int],
}  # fmt: skip
NO_ISA = 3


class Rows(C.Structure):
    """tamis_attention_rows of csrc/topk_native.h."""

    _fields_ = (
        *((name, C.c_int64) for name in ("rows", "queries", "keys", "offset", "window", "active")),
        ("cap", C.c_double),
        ("quantiles", C.c_void_p),
    )


@cache
def library() -> C.CDLL:
    """Opened once more: the functions of `native.load` raise what `topk_native` makes of their status."""
    return C.CDLL(os.fspath(native.PATH))


def call(name: str, dtype: Any, *arguments: Any) -> int:
    function = getattr(library(), f"tamis_{name}_{'f32' if dtype == np.float32 else 'f64'}")
    function.restype, function.argtypes = C.c_int, SIGNATURES[name]
    status: int = function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))
    return status


def soft_threshold(isa: int, x: Array, g: Array, k: int, threads: int = 1) -> tuple[Array, Array]:
    """y and dx of rows x [rows, n]."""
    y, saved, dx = np.empty_like(x), np.empty((len(x), 2), x.dtype), np.empty_like(x)
    z = topk.quantile(k, x.shape[1])
    assert call("soft_threshold", x.dtype, isa, x, *x.shape, z, y, saved, threads) == 0
    assert call("soft_threshold_backward", x.dtype, isa, x, g, saved, *x.shape, z, dx, threads) == 0
    return y, dx


def attention_weights(
    isa: int, s: Array, u: Array | None, g: Array, *, offset: int = 0, window: int = 0, k: int = 0,
    cap: float = 0.0, threads: int = 1,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Weights, ds and du of scores s [rows, queries, keys]."""
    table = np.array([topk.quantile(k, n) if k else 0.0 for n in range(s.shape[-1] + 1)])
    described = Rows(s[..., 0].size, *s.shape[1:], offset, window, k, cap, table.ctypes.data)
    w, saved, ds = np.empty_like(s), np.empty((*s.shape[:2], 3), s.dtype), np.empty_like(s)
    du = None if u is None else np.empty_like(s)
    at = C.addressof(described)
    assert call("attention_weights", s.dtype, isa, at, s, u, w, saved, threads) == 0
    assert call("attention_weights_backward", s.dtype, isa, at, s, u, g, saved, ds, du, threads) == 0
    return w, ds, np.empty(0, s.dtype) if du is None else du


def visible_keys(queries: int, keys: int, offset: int, window: int) -> NDArray[np.bool_]:
    own, key = offset + np.arange(queries)[:, None], np.arange(keys)
    visible: NDArray[np.bool_] = (key <= own) & (key > own - (window or keys + own.max() + 1))
    return visible


def weights_by_expression(
    s: Array, u: Array | None, g: Array, *, offset: int = 0, window: int = 0, k: int = 0, cap: float = 0.0
) -> tuple[Array, Array, Array]:
    """As `attention_weights`, in NumPy."""
    visible = visible_keys(*s.shape[1:], offset, window)
    kept = topk.mask_below(s, k, visible) if k else np.where(visible, s, -np.inf)
    bent = np.tanh(s / cap) if cap else np.zeros_like(s)
    capped = np.where(np.isneginf(kept), -np.inf, cap * bent if cap else s)
    a = np.exp(capped - capped.max(-1, keepdims=True))
    a /= a.sum(-1, keepdims=True)
    gate, slope = (1.0, 0.0) if u is None else (np.logaddexp(0.0, u), 1 / (1 + np.exp(-u)))
    d = g * gate
    ds = a * (d - (a * d).sum(-1, keepdims=True)) * (1 - bent * bent)
    return a * gate, ds, np.empty(0) if u is None else g * a * slope


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Array:
    made: Array = np.random.default_rng(seed).normal(0.3, 2, shape).astype(dtype)
    return made


@every_set
@every_type
@pytest.mark.parametrize("n", [2, 31, 33, 1537])
def test_the_threshold_and_its_gradient(isa: int, dtype: Any, n: int) -> None:
    x, g, k = numbers(5, n, dtype=dtype), numbers(5, n, seed=1, dtype=dtype), max(1, n // 12)
    y, dx = soft_threshold(isa, x, g, k)
    exact, e = x.astype(np.float64), g.astype(np.float64)
    z, mean, std = topk.quantile(k, n), exact.mean(1, keepdims=True), exact.std(1, keepdims=True)
    m = e * (exact > mean + std * z)
    s = m.sum(1, keepdims=True)
    # Rounding: each result is a few sums of n terms of size 2.
    tolerance = 16 * np.finfo(dtype).eps * math.sqrt(n)
    assert np.abs(y - topk.soft_threshold(exact, k)).max() <= tolerance
    assert np.abs(dx - (m - s / n - (exact - mean) * s * z / (std * n))).max() <= tolerance


CASES: list[dict[str, Any]] = [
    {"k": 5, "cap": 3.0},  # training, Spark
    {"k": 5, "window": 9},  # sliding window, no cap
    {"cap": 4.0},  # dense
    {"window": 1},  # each key alone
    {"k": 4, "cap": 2.0, "offset": 13, "window": 20},  # a later chunk with a cache
    {"k": 50, "cap": 3.0},  # k covers everything
]


@every_set
@every_type
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "plain"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_attention_and_its_gradients(isa: int, dtype: Any, gated: bool, case: dict[str, Any]) -> None:
    queries, keys = 37, 37 + case.get("offset", 0)
    s, u, g = (numbers(3, queries, keys, seed=seed, dtype=dtype) for seed in range(3))
    found = attention_weights(isa, s, u if gated else None, g, **case)
    wide = s.astype(np.float64), u.astype(np.float64) if gated else None, g.astype(np.float64)
    for a, b in zip(found, weights_by_expression(*wide, **case), strict=True):
        assert np.abs(a - b).max(initial=0) <= 400 * np.finfo(dtype).eps


@every_set
@every_type
@pytest.mark.parametrize("k", [0, 30, 50, 3], ids=["dense", "k of half", "k of all", "few"])
@pytest.mark.parametrize("cap", [0.0, 4.0])
def test_a_score_that_is_not_a_number_is_in_every_weight_and_gradient(
    isa: int, dtype: Any, k: int, cap: float
) -> None:
    s, u, g = (numbers(1, 40, 40, seed=seed, dtype=dtype) for seed in range(3))
    s[0, 35, 4] = np.nan
    s[0, 36, :] = np.nan
    s[0, 20, 30] = np.nan  # not visible
    visible = visible_keys(40, 40, 0, 0)
    for gates in (u, None):
        for found in attention_weights(isa, s, gates, g, k=k, cap=cap):
            if found.size:
                assert np.isnan(found[0, 35:37][visible[35:37]]).all()
                assert (found[0][~visible] == 0).all()
                assert np.isfinite(np.delete(found[0], (35, 36), 0)).all()
        again = attention_weights(isa, np.where(np.isnan(s), 1, s).astype(dtype), gates, g, k=k, cap=cap)[0]
        found = attention_weights(isa, s, gates, g, k=k, cap=cap)[0]
        assert np.array_equal(np.delete(found[0], (35, 36), 0), np.delete(again[0], (35, 36), 0))


@every_set
@every_type
def test_a_gate_that_is_not_a_number_is_in_its_weight(isa: int, dtype: Any) -> None:
    """Of any payload: the exponential works on bits."""
    s, u, g = (numbers(1, 9, 9, seed=seed, dtype=dtype) for seed in range(3))
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)[0]
    for value in (np.nan, -np.nan, payload):
        u[0, 8, 3] = value
        assert np.isnan(attention_weights(isa, s, u, g, cap=4.0)[0][0, 8, 3])


@every_set
@every_type
def test_scores_of_minus_infinity_get_no_weight_and_alone_are_no_softmax(isa: int, dtype: Any) -> None:
    s, g = numbers(1, 9, 9, dtype=dtype), numbers(1, 9, 9, seed=1, dtype=dtype)
    s[0, 7, 2:5] = -np.inf
    s[0, 8] = -np.inf
    for cap in (0.0, 4.0):
        w, ds, _ = attention_weights(isa, s, None, g, cap=cap)
        assert (w[0, 7, 2:5] == 0).all()
        assert abs(w[0, 7].sum() - 1) < 1e-6
        assert np.isfinite(ds[0, 7]).all()
        assert np.isnan(w[0, 8]).all()
        assert np.isnan(ds[0, 8]).all()


@every_set
@every_type
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_in_every_number_above_the_threshold(
    isa: int, dtype: Any, value: float
) -> None:
    x, g = numbers(3, 50, dtype=dtype), numbers(3, 50, seed=1, dtype=dtype)
    x[1, 20] = value
    for found in soft_threshold(isa, x, g, 5):
        assert np.isnan(found[1]).all()
        assert np.isfinite(found[[0, 2]]).all()


def test_several_threads_give_the_same_numbers() -> None:
    isa, n = len(SETS) - 1, 900
    x, g = numbers(n, n, dtype=np.float32), numbers(n, n, seed=1, dtype=np.float32)
    for one, three in zip(*(soft_threshold(isa, x, g, 72, threads) for threads in (1, 3)), strict=True):
        assert np.array_equal(one, three)
    s, u, g = x[None], g[None], x[None, ::-1].copy()
    made = [attention_weights(isa, s, u, g, k=72, cap=50.0, threads=threads) for threads in (1, 3)]
    for one, three in zip(*made, strict=True):
        assert np.array_equal(one, three)


STARVED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
import numpy as np
import test_topk_kernels as t
s, g = (t.numbers(1, 2048, 2048, seed=seed, dtype=np.float32) for seed in range(2))
one = t.attention_weights(0, s, None, g, k=9)
used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
# Room for results, for scratch, and for the stacks of a few threads out of 16.
resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + (100 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
made = t.attention_weights(0, s, None, g, k=9, threads=16)
print(all(np.array_equal(a, b) for a, b in zip(one, made, strict=True)))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="limits the addresses of a process, of which sanitizers take nearly all",
)
def test_fewer_threads_than_were_asked_for_give_the_same_numbers() -> None:
    code = STARVED.format(folder=str(Path(__file__).parent))
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (made.returncode, made.stdout) == (0, "True\n"), made.stderr


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    x = numbers(1, 4)
    assert call("soft_threshold", np.float64, 99, x, 1, 4, 0.0, x, x, 1) == NO_ISA
    assert call("attention_weights", np.float64, -1, C.addressof(Rows()), x, x, x, x, 1) == NO_ISA
