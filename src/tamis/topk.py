"""The k largest of n numbers, found exactly or from two moments.

A row x of n visible entries gets a threshold theta such that about k entries lie above it:

    exact        theta = the (k+1)-th largest entry
    statistical  theta = mean(x) + std(x) * (Qn(1 - k/n) + shift),   Qn the quantile of the standard normal distribution

The statistical one costs 2n operations and no sorting. If the entries are independent and normal, the number above it
differs from k by a relative O(sqrt(log n / n)) (Spark Transformer, arXiv 2506.06644, theorem 3.1). The count's standard
deviation is about sqrt(n (p (1-p) - phi(z)^2 (1 + z^2/2))) with p = k/n, z = Qn(1-p): 1.8 % of k at n = 13824, p = 8 %;
so k is a target and never the size of a buffer. std is the biased one (divided by n), moments are taken in two passes.

Trained entries are not normal: their tails are heavy, a large std is spent on few of them, and too few exceed theta. `shift`
is what their own quantile lies beside the normal one, one number for all rows of a layer, 0 unless something else is known.

What the threshold is used for comes in two forms:

    soft_threshold  max(x - theta, 0), for activations. It solves  argmin_{z >= 0} theta |z|_1 + |x - z|^2 / 2,
                    is continuous, and lets gradients flow through both moments (below).
    mask_below      x where it is above theta, -inf elsewhere, for the scores of a softmax. The largest entry always stays,
                    however the others are distributed: a softmax over nothing would be 0/0. A softmax does not see
                    a common shift, so theta itself gets no gradient here.

Entries that are not `visible` (a causal mask, padding) count neither in n nor in the moments, and come out as 0 or -inf.
With k >= n there is nothing to leave out: both forms return the visible entries as they are.

Gradient of the soft threshold, statistical form, with z = Qn(1 - k/n) + shift, m = [x > theta], s = sum(g m):

    dL/dx = g m - s/n - (x - mean) s z / (std n)

Here in NumPy, for inference and as the definition in double precision; `tamis.spark.topk_autograd` has the same functions
with the same signature for PyTorch, and `csrc/topk_training.cpp` a fused forward and backward.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Method = Literal["statistical", "exact"]
METHODS: tuple[Method, ...] = ("statistical", "exact")


def threshold(
    x: Floats,
    k: int,
    visible: NDArray[np.bool_] | None = None,
    *,
    method: Method = "statistical",
    shift: float = 0.0,
) -> Floats:
    """theta [..., 1] of rows x [..., n]; -inf for a row with at most k visible entries.

    visible [..., n] (broadcast against x), or None for all. Raises ValueError for k < 1 or an unknown method.
    """
    check(k, method)
    seen = np.broadcast_to(True if visible is None else visible, x.shape)
    n = seen.sum(-1, keepdims=True)
    if method == "exact":
        if k >= x.shape[-1]:
            return np.full_like(x[..., :1], -np.inf)
        # With at most k visible entries the (k+1)-th largest is one of the -inf.
        return -np.partition(-np.where(seen, x, -np.inf), k, axis=-1)[..., k : k + 1]
    divisor = np.maximum(n, 1)
    mean = np.where(seen, x, 0).sum(-1, keepdims=True) / divisor
    variance = np.where(seen, x - mean, 0)
    std = np.sqrt((variance * variance).sum(-1, keepdims=True) / divisor)
    quantiles = np.vectorize(quantile, otypes=[np.float64])(k, n).astype(x.dtype) + x.dtype.type(shift)
    with np.errstate(invalid="ignore"):  # 0 * -inf, replaced below
        theta = mean + std * quantiles
    return np.where(n <= k, x.dtype.type(-np.inf), theta)


def soft_threshold(
    x: Floats,
    k: int,
    visible: NDArray[np.bool_] | None = None,
    *,
    method: Method = "statistical",
    shift: float = 0.0,
) -> Floats:
    """max(x - theta, 0) of rows x [..., n], 0 where not visible; x itself where at most k entries are visible."""
    theta = threshold(x, k, visible, method=method, shift=shift)
    kept = np.where(np.isneginf(theta), x, np.maximum(x - theta, 0))
    return kept if visible is None else np.where(visible, kept, x.dtype.type(0))


def mask_below(
    x: Floats,
    k: int,
    visible: NDArray[np.bool_] | None = None,
    *,
    method: Method = "statistical",
    shift: float = 0.0,
) -> Floats:
    """x above theta or largest of its row [..., n], else -inf. Rows without a visible entry are all -inf."""
    seen = x if visible is None else np.where(visible, x, -np.inf)
    theta = threshold(x, k, visible, method=method, shift=shift)
    keep = (seen > theta) | (seen == seen.max(-1, keepdims=True))
    return np.where(keep, seen, x.dtype.type(-np.inf))


@lru_cache(maxsize=65536)
def quantile(k: int, n: int) -> float:
    """Qn(1 - k/n), the point that a share k/n of a standard normal distribution exceeds; -inf if k >= n."""
    return NormalDist().inv_cdf(1 - k / n) if k < n else -np.inf


def check(k: int, method: str) -> None:
    """Raise ValueError for what no threshold can be."""
    if k < 1:
        raise ValueError(f"k is {k}: at least 1 entry must be kept.")
    if method not in METHODS:
        raise ValueError(f"The method {method!r} is unknown: it is one of {', '.join(METHODS)}.")
