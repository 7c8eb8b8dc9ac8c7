"""Multiple-instance pooling: from the probabilities of the pixels of a bag to the probability of the bag.

A bag (an image) is positive when at least one of its instances (pixels) is (Dietterich et al. 1997); each function here
is a differentiable reading of that "at least one". All have one signature, accept a mask and are symmetric in the
instances; all but noisy_or lie between the mean and the maximum (the generalised mean from r = 1 on):

    generalised_mean   (mean p^r)^(1/r)                 r = 1 the mean, r -> inf the maximum
    log_sum_exp        log(mean exp(r p)) / r           Ramon & De Raedt 2000; r -> 0 the mean, r -> inf the maximum
    top_mean           mean of the k largest            WILDCAT (Durand et al. 2017) for its positive half
    statistical_top_mean   the same with the k-th largest estimated from mean and standard deviation, without sorting
    noisy_or           1 - prod(1 - p)                  Viola et al. 2005; above the maximum, saturates on many instances
    maximum            max p

The generalised mean is computed in log space, exp((logsumexp(r log p) - log n) / r), because p^r underflows in single
precision. A form that is met in the wild, (mean p)^(1/r) without the power inside, is something else: it grows with
the mean alone, so that a small bright spot counts no more than a faint haze.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tamis import topk

EPSILON = 1e-7
"""Probabilities are kept inside [EPSILON, 1 - EPSILON], where logarithms and their gradients are finite."""

Pooling = Callable[..., Tensor]
"""(probabilities [B, ...], mask [B, ...] or None: true where an instance counts, r or share by name) -> bag
probabilities [B]."""


def generalised_mean(p: Tensor, mask: Tensor | None = None, *, r: float = 4.0) -> Tensor:
    """(mean p^r)^(1/r) over the unmasked instances: [B, ...] -> [B]. r > 0."""
    if r <= 0:
        raise ValueError(f"r is {r}; the generalised mean needs r > 0")
    flat, seen, n = _bags(p, mask)
    powers = _hidden(r * flat.log(), seen, -math.inf)
    return ((powers.logsumexp(1) - n.log()) / r).exp()


def log_sum_exp(p: Tensor, mask: Tensor | None = None, *, r: float = 8.0) -> Tensor:
    """log(mean exp(r p)) / r over the unmasked instances: [B, ...] -> [B]. r > 0."""
    if r <= 0:
        raise ValueError(f"r is {r}; log-sum-exp needs r > 0")
    flat, seen, n = _bags(p, mask)
    return (_hidden(r * flat, seen, -math.inf).logsumexp(1) - n.log()) / r


def noisy_or(p: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 - prod(1 - p) over the unmasked instances: [B, ...] -> [B]."""
    flat, seen, _ = _bags(p, mask)
    return -torch.expm1(_hidden(torch.log1p(-flat), seen, 0.0).sum(1))


def maximum(p: Tensor, mask: Tensor | None = None) -> Tensor:
    """The largest unmasked probability: [B, ...] -> [B]."""
    flat, seen, _ = _bags(p, mask)
    return _hidden(flat, seen, -math.inf).amax(1)


def top_mean(p: Tensor, mask: Tensor | None = None, *, share: float = 0.1) -> Tensor:
    """Mean of the ceil(share n) largest of each bag's n unmasked instances: [B, ...] -> [B]. 0 < share <= 1."""
    _check_share(share)
    flat, seen, n = _bags(p, mask)
    k = (share * n - 1e-4).ceil().clamp(min=1)  # 0.1 of 10 is 1, not 2
    ordered = _hidden(flat, seen, 0.0).sort(1, descending=True).values
    kept = torch.arange(flat.shape[1], device=flat.device) < k[:, None]
    return (ordered * kept).sum(1) / k


def statistical_top_mean(p: Tensor, mask: Tensor | None = None, *, share: float = 0.1) -> Tensor:
    """Mean of the instances above mean + std * Phi^-1(1 - share), about `share` of them if their logits are normal.

    No sorting: two moments and a comparison (`tamis.topk`, on logits instead of activations).
    The moments carry no gradient, as an exact top-k carries none through its choice. A bag of equal instances, which
    lie on their own threshold, gives their value. [B, ...] -> [B]. 0 < share <= 1.
    """
    _check_share(share)
    flat, seen, n = _bags(p, mask)
    with torch.no_grad():
        logits = torch.logit(flat)
        thresholds = []
        for index, bag in enumerate(logits.cpu().numpy()):
            visible = None if seen is None else seen[index].cpu().numpy()
            k = max(1, math.ceil(share * float(n[index]) - 1e-4))
            thresholds.append(float(topk.threshold(bag, k, visible)[0]))
        best = _hidden(logits, seen, -math.inf).amax(1, keepdim=True)
        # A skewed bag may have nothing above its threshold: its best instance always counts.
        kept = logits >= torch.minimum(torch.tensor(thresholds).to(logits)[:, None], best)
        if seen is not None:
            kept = kept & seen
    return (flat * kept).sum(1) / kept.sum(1)


POOLINGS: dict[str, Pooling] = {
    "generalised_mean": generalised_mean,
    "log_sum_exp": log_sum_exp,
    "noisy_or": noisy_or,
    "top_mean": top_mean,
    "statistical_top_mean": statistical_top_mean,
    "maximum": maximum,
}


def mean(p: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over unmasked instances, of the values as they are: [B, ...] -> [B]. The v of an area constraint."""
    flat = p.flatten(1)
    if mask is None:
        return flat.mean(1)
    seen = mask.flatten(1)
    return (flat * seen).sum(1) / seen.sum(1)


def _bags(p: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Clamped instances [B, N], their mask [B, N] or None, and how many of each bag count [B]."""
    flat = p.flatten(1).clamp(EPSILON, 1 - EPSILON)
    if mask is None:
        return (
            flat,
            None,
            torch.full((len(flat),), float(flat.shape[1]), dtype=flat.dtype, device=flat.device),
        )
    if mask.shape != p.shape:
        raise ValueError(
            f"the mask is {list(mask.shape)} and the probabilities are {list(p.shape)}: they must be alike"
        )
    seen = mask.flatten(1)
    n = seen.sum(1).to(flat.dtype)
    if not bool((n > 0).all()):
        raise ValueError("a bag has no instance outside the padding")
    return flat, seen, n


def _hidden(values: Tensor, seen: Tensor | None, instead: float) -> Tensor:
    return values if seen is None else values.masked_fill(~seen, instead)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it must lie in (0, 1]")
