"""`tamis.topk` in PyTorch: the same functions, the same arguments, and gradients.

The expressions below are the definition, on every device and for every dtype. On a CPU, in float32 and float64, the
statistical `soft_threshold` of whole rows runs as one fused kernel (`tamis.spark.topk_native`) if that is built.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tamis.spark import topk_native
from tamis.topk import Method, check, quantile


def threshold(
    x: Tensor,
    k: int,
    visible: Tensor | None = None,
    *,
    method: Method = "statistical",
    shift: Tensor | None = None,
) -> Tensor:
    """theta [..., 1] of rows x [..., n]; -inf for a row with at most k visible entries.

    visible [..., n] bool (broadcast against x), or None for all. shift [1], or None for 0. Raises ValueError for k < 1 or
    an unknown method.
    """
    check(k, method)
    n = x.shape[-1]
    if k >= n:
        return torch.full_like(x[..., :1], -torch.inf)
    if method == "exact":
        seen = x if visible is None else x.masked_fill(~visible, -torch.inf)
        return seen.topk(k + 1, dim=-1).values[..., k:]
    if visible is None:
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).square().mean(-1, keepdim=True).sqrt()
        return mean + std * (quantile(k, n) if shift is None else quantile(k, n) + shift.to(x.dtype))
    count = visible.sum(-1, keepdim=True).clamp(min=1)
    mean = x.masked_fill(~visible, 0).sum(-1, keepdim=True) / count
    variance = (x - mean).masked_fill(~visible, 0).square().sum(-1, keepdim=True) / count
    few = count <= k
    # sqrt has no derivative at 0, where rows too short for a threshold may lie.
    std = variance.masked_fill(few, 1).sqrt()
    z = torch.special.ndtri((1 - k / count.double()).clamp(min=0.0)).masked_fill(few, 0).to(x.dtype)
    z = z if shift is None else z + shift.to(x.dtype)
    return (mean + std * z).masked_fill(few, -torch.inf)


def soft_threshold(
    x: Tensor,
    k: int,
    visible: Tensor | None = None,
    *,
    method: Method = "statistical",
    shift: Tensor | None = None,
) -> Tensor:
    """max(x - theta, 0) of rows x [..., n], 0 where not visible; x itself where at most k entries are visible."""
    if visible is None and method == "statistical" and 1 <= k < x.shape[-1] and topk_native.runs(x):
        return topk_native.soft_threshold(x, k, shift)
    theta = threshold(x, k, visible, method=method, shift=shift)
    unlimited = theta.isneginf()
    kept = torch.where(unlimited, x, (x - theta.masked_fill(unlimited, 0)).relu())
    return kept if visible is None else kept.masked_fill(~visible, 0)


def mask_below(
    x: Tensor,
    k: int,
    visible: Tensor | None = None,
    *,
    method: Method = "statistical",
    shift: Tensor | None = None,
) -> Tensor:
    """x above theta or largest of its row [..., n], else -inf. theta gets no gradient: a softmax sees no shift."""
    with torch.no_grad():
        seen = x if visible is None else x.masked_fill(~visible, -torch.inf)
        theta = threshold(x, k, visible, method=method, shift=shift)
        drop = (seen <= theta) & (seen < seen.amax(-1, keepdim=True))
        if visible is not None:
            drop = drop | ~visible
    return x.masked_fill(drop, -torch.inf)
