"""Cross-entropy of the next token without the logits of all tokens: value and gradient, some rows at a time.

The vocabulary projection and its softmax are a third of a small model's step, most of it spent on moving [tokens, vocabulary]
through memory a dozen times. Here a few rows stay in the cache from product to gradient (the idea of chunked or "linear"
cross-entropies): with z = W h, c = cap tanh(z / cap) and p = softmax(c),

    loss = mean(log sum exp(c) - c[target]),    dloss/dz = (p - [target]) (1 - tanh^2(z / cap)) / tokens
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROWS = 128


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
    """Mean over tokens: hidden [N, D] against targets [N], weight [V, D] being the vocabulary projection.

    The products run in the dtype of autocast if that is on; everything else at least in float32.
    """
    value: Tensor = _NextTokenLoss.apply(hidden, weight, targets, cap)  # type: ignore[no-untyped-call]
    return value


class _NextTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.promote_types(hidden.dtype, torch.float32)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=wide)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        w = weight.to(dtype)
        for first in range(0, len(hidden), ROWS):
            rows = slice(first, first + ROWS)
            h, target = hidden[rows].to(dtype), targets[rows, None]
            scores = (h @ w.T).to(wide)
            slope = None
            if cap is not None:
                slope = scores.div_(cap).tanh_()
                scores = slope * cap
            top = scores.amax(1, keepdim=True)
            right = scores.gather(1, target)
            p = scores.sub_(top).exp_()
            mass = p.sum(1, keepdim=True)
            total += (top + mass.log() - right).sum()
            if not wanted:
                continue
            p.div_(mass * len(hidden))
            p.scatter_add_(1, target, p.new_full(target.shape, -1 / len(hidden)))
            if slope is not None:
                p.addcmul_(p, slope.square_(), value=-1)
            d = p.to(dtype)
            d_hidden[rows] = d @ w
            d_weight += d.T @ h
        ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * gradients[0], d_weight * gradients[0], None, None
