"""The decoder, dense and Spark: one page of PyTorch in the manner of Gemma 2.

    x = x + norm(attention(norm(x)));  x = x + norm(ffn(norm(x)))          norm(x) = x / rms(x) * (1 + weight)

    ffn "gated"          V (gelu(G q) * (U q))
    ffn "spark"          V (gelu(soft_threshold(K1^T q[:r], k)) * (K2^T q[r:]))
    attention "softmax"  softmax(cap(q . K / sqrt(query_pre_attn_scalar))) V
    attention "spark"    (softmax(cap(mask_below(q[:r] . K[:, :r] / sqrt(r), k))) * softplus(q[r:] . K[:, r:] / sqrt(d - r))) V

Spark: arXiv 2506.06644. What it leaves open is decided so, here, in `reference.py` (the same in double precision, which
tests hold this file to) and in the native engine:

- moments are taken over visible keys only, inside the window on sliding layers; with at most k visible nothing is masked;
- each part of a head is scaled by its own dimension; theta acts on raw scores, the soft-cap on what survives, and on
  the predictor's scores only;
- every query head chooses its own keys; the largest score always survives;
- rotary embeddings turn each part separately; a sliding layer sees `sliding_window` keys, the token's own included;
- theta = mean + std (Qn(1 - k/n) + shift), `shift` a constant of the layer that training tracks (class Threshold);
- while training the rows of the predictor are kept equally long (FFN.even).

Axes: B sequences, T new tokens, N keys (cached and new), D hidden, F neurons, H query heads, G key-value heads, E head_dim.
Settings beyond those of `presets.py` are ablations, refused by the engine: topk_method "exact", ffn_cut "hard" (x instead
of x - theta), theta_gradient False, attention_gate "none" (no softplus). theta_shift "none" keeps the shift at 0,
gate_rows "free" leaves rows as long as they become; the engine needs to know of neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tamis.spark import topk_native
from tamis.spark.topk_autograd import mask_below, soft_threshold, threshold

ATTENTION_AIM = 0.98
"""Of k: in attention k is a bound for the mean (paper: at most 256 keys), in the FFN it is the mean."""
EVERY_TOKEN, EVERY_QUERY = 4, 8
"""Rows that are counted: one in so many."""


class Cache(Protocol):
    """Keys and values of earlier tokens, as transformers' caches keep them."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Add [B, G, T, E] each; returns [B, G, N, E], of which the last T are the new ones."""
        ...


@dataclass(frozen=True)
class Visible:
    """Which keys each query sees: those up to its own, `window` of them at most, and no padding."""

    queries: int
    keys: int
    first: int | Tensor
    """Number, among the keys, of the first query's own."""
    window: int | None
    device: torch.device
    real: Tensor | None = None
    """[B, N] bool, False where a key is padding."""

    @property
    def contiguous(self) -> bool:
        """Whether the numbers above say it all."""
        return self.real is None and isinstance(self.first, int)

    @cached_property
    def mask(self) -> Tensor:
        """[B or 1, 1, 1, T, N] bool"""
        own = self.first + torch.arange(self.queries, device=self.device)[:, None]
        key = torch.arange(self.keys, device=self.device)[None]
        seen = key <= own
        if self.window is not None:
            seen = seen & (key > own - self.window)
        if self.real is not None:
            # A padded query sees itself: a softmax over nothing would be 0/0.
            seen = (seen & self.real[:, None]) | (key == own)
        return seen[None, None, None] if seen.ndim == 2 else seen[:, None, None]


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        # In float32, gain included: in bfloat16, 1 + weight would keep two digits.
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return F.rms_norm(wide, wide.shape[-1:], 1.0 + self.weight.to(wide.dtype), self.eps).type_as(x)


class Threshold(nn.Module):
    """The constant by which a layer's own quantile differs from the normal one, tracked while training.

    Scores are normal at the start only; then their tails grow and mean + std Qn(1 - k/n) lets too few pass. So after
    every training step (Robbins & Monro 1951, on the count) shift += RATE (count / aim - 1), count being the mean number
    that passed. It costs no moment beyond the two, and when decoding nothing at all.
    """

    RATE = 0.05
    """The share changes by about -1.9 times itself per unit of shift (normal scores, 8 %): a memory of some ten steps."""

    quantile_shift: Tensor

    def track(self, kept: Tensor, aim: float) -> None:
        """kept [rows, n]: not 0 what passed. Summed up over the layers and processes by `Decoder.settle`."""
        if kept.numel():
            self.excess = kept.detach().count_nonzero() / (len(kept) * aim) - 1

    excess: Tensor | None = None
    """count / aim - 1 of the last forward pass, until `Decoder.settle` has used it."""


class FFN(Threshold):
    observer: Callable[[Tensor], None] | None = None
    """Told which neurons are active, [B, T, F], when someone counts."""

    def __init__(self, c: Any) -> None:
        super().__init__()
        self.c, d, f = c, c.hidden_size, c.intermediate_size
        self.spark, self.r = c.ffn == "spark", c.ffn_predictor_size
        if self.spark:
            self.register_buffer("quantile_shift", torch.zeros(1))
            self.predictor = nn.Linear(self.r, f, bias=False)
            self.up_proj = nn.Linear(d - self.r, f, bias=False)
        else:
            self.gate_proj = nn.Linear(d, f, bias=False)
            self.up_proj = nn.Linear(d, f, bias=False)
        self.down_proj = nn.Linear(f, d, bias=False)

    def forward(self, q: Tensor) -> Tensor:
        if self.spark:
            scores = self.cut(self.predictor(q[..., : self.r]))
            up = self.up_proj(q[..., self.r :])
        else:
            scores, up = self.gate_proj(q), self.up_proj(q)
        gate = F.gelu(scores, approximate="tanh")
        if self.observer is not None:
            self.observer(gate != 0)
        if self.training and self.spark:
            self.track(gate.flatten(0, 1)[::EVERY_TOKEN], self.c.ffn_active)
        return self.down_proj(gate * up)  # [B, T, F] -> [B, T, D]

    @torch.no_grad()
    def even(self) -> None:
        """Make all rows of the matrix before the activation equally long: the root mean square of what they are.

        A threshold compares neurons with each other, and who passes it learns and grows: left alone, a sixth to a third of
        the neurons soon never pass again. Lengths cost nothing elsewhere, as up_proj scales each neuron too.
        """
        weight = (self.predictor if self.spark else self.gate_proj).weight.data
        length = weight.norm(dim=1, keepdim=True)
        weight *= length.square().mean().sqrt() / length.clamp(min=1e-12)

    def cut(self, scores: Tensor) -> Tensor:
        """About k of F neurons, the rest 0."""
        k, method, shift = self.c.ffn_active, self.c.topk_method, self.quantile_shift
        if scores.dtype == torch.bfloat16:  # of autocast; moments, and a difference, need more digits
            scores = scores.float()
        if self.c.ffn_cut == "soft" and self.c.theta_gradient:
            return soft_threshold(scores, k, method=method, shift=shift)
        theta = threshold(scores, k, method=method, shift=shift)
        theta = theta if self.c.theta_gradient else theta.detach()
        if self.c.ffn_cut == "hard":
            return scores * (scores > theta)
        return (scores - theta).relu()


class Attention(Threshold):
    observer: Callable[[Tensor], None] | None = None
    """Told how many keys have a weight, [B, G, H/G, T]."""

    def __init__(self, c: Any, layer: int) -> None:
        super().__init__()
        self.c, self.layer = c, layer
        self.spark, self.r = c.attention == "spark", c.attention_predictor_size
        self.parts = (self.r, c.head_dim - self.r) if self.spark else (c.head_dim,)
        if self.spark:
            self.register_buffer("quantile_shift", torch.zeros(1))
        queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, c.hidden_size, bias=False)

    def forward(self, x: Tensor, turns: Turns, visible: Visible, cache: Cache | None) -> Tensor:
        b, t, _ = x.shape
        heads = (b, t, -1, self.c.head_dim)
        query = turns(self.q_proj(x).view(heads).transpose(1, 2), self.parts)  # [B, H, T, E]
        key = turns(self.k_proj(x).view(heads).transpose(1, 2), self.parts)  # [B, G, T, E]
        value = self.v_proj(x).view(heads).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)  # [B, G, N, E]
        # The H/G query heads that share a key head lie together: [B, G, H/G * T, E].
        query = query.reshape(b, key.shape[1], -1, query.shape[-1])
        weights = (self.spark_weights if self.spark else self.softmax_weights)(query, key, visible)
        if self.training and self.spark and visible.contiguous:
            # From the last query back to the first that sees more than k keys.
            first_crowded = max(0, self.c.attention_active - int(visible.first))
            last = list(range(t - 1, first_crowded - 1, -EVERY_QUERY))  # none, where all are short
            self.track(weights[..., last, :].flatten(0, -2), ATTENTION_AIM * self.c.attention_active)
        out = weights.to(value.dtype).view(*query.shape[:3], -1) @ value
        out = out.view(b, -1, t, self.c.head_dim).transpose(1, 2).reshape(b, t, -1)
        return self.o_proj(out)

    def softmax_weights(self, query: Tensor, key: Tensor, visible: Visible) -> Tensor:
        """[B, G, H/G, T, N]"""
        scores = self.scores(query, key, self.c.query_pre_attn_scalar, visible)
        if self.fused(scores, visible):
            return self.fused_weights(scores, None, visible, 0)
        weights = F.softmax(self.cap(scores).masked_fill(~visible.mask, -torch.inf), -1)
        if self.observer is not None:
            self.observer(weights.count_nonzero(-1))
        return weights

    def spark_weights(self, query: Tensor, key: Tensor, visible: Visible) -> Tensor:
        """[B, G, H/G, T, N]"""
        r, k = self.r, self.c.attention_active
        scores = self.scores(query[..., :r], key[..., :r], r, visible)
        gates = None
        if self.c.attention_gate == "softplus":
            gates = self.scores(query[..., r:], key[..., r:], query.shape[-1] - r, visible)
        if self.fused(scores, visible):
            return self.fused_weights(scores, gates, visible, k)
        kept = mask_below(scores, k, visible.mask, method=self.c.topk_method, shift=self.quantile_shift)
        if self.observer is not None:
            self.observer((kept > -torch.inf).sum(-1))
        # The mask goes over the capped scores: tanh(-inf) would bring the dropped ones back.
        weights = F.softmax(self.cap(scores).masked_fill(kept.isneginf(), -torch.inf), -1)
        return weights if gates is None else weights * F.softplus(gates)

    def fused(self, scores: Tensor, visible: Visible) -> bool:
        """Whether one native operator does all that follows; the expressions are its definition."""
        plain = self.observer is not None or self.c.topk_method != "statistical"
        return not plain and visible.contiguous and topk_native.runs(scores)

    def fused_weights(self, scores: Tensor, gates: Tensor | None, visible: Visible, k: int) -> Tensor:
        first, window, cap = visible.first, visible.window, self.c.attn_logit_softcapping
        assert isinstance(first, int)
        shift = self.quantile_shift if k else None
        return topk_native.attention_weights(
            scores, gates, first=first, window=window, k=k, cap=cap, shift=shift
        )

    def scores(self, query: Tensor, key: Tensor, scale: int, visible: Visible) -> Tensor:
        """Scaled products [B, G, H/G, T, N], at least in float32."""
        product = (query * scale**-0.5) @ key.transpose(2, 3)
        product = product.float() if product.dtype in (torch.bfloat16, torch.float16) else product
        return product.view(*key.shape[:2], -1, visible.queries, key.shape[2])

    def cap(self, scores: Tensor) -> Tensor:
        limit = self.c.attn_logit_softcapping
        return scores if limit is None else limit * torch.tanh(scores / limit)


class Turns:
    """Rotary embedding at some positions [B, T] (or [1, T])."""

    def __init__(self, positions: Tensor, theta: float, dtype: torch.dtype) -> None:
        self.positions, self.theta, self.dtype = positions, theta, dtype
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, parts: tuple[int, ...]) -> Tensor:
        """x [B, heads, T, E] turned, each of the parts of its last axis separately."""
        turned = []
        for part in torch.split(x, list(parts), -1):
            cos, sin = self.angles(part.shape[-1] // 2)
            first, second = part.chunk(2, -1)
            turned += [first * cos - second * sin, second * cos + first * sin]
        return torch.cat(turned, -1)

    def angles(self, half: int) -> tuple[Tensor, Tensor]:
        """cos and sin [B, 1, T, half] of position * theta^(-i / half)."""
        if half not in self.kept:
            wide = torch.promote_types(self.dtype, torch.float32)
            exponents = torch.arange(half, dtype=wide, device=self.positions.device) / half
            angle = self.positions[:, None, :, None].to(wide) * self.theta**-exponents
            self.kept[half] = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        return self.kept[half]


class Layer(nn.Module):
    def __init__(self, c: Any, layer: int) -> None:
        super().__init__()
        self.local = c.layer_types[layer] == "sliding_attention"
        self.self_attn = Attention(c, layer)
        self.mlp = FFN(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.pre_feedforward_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_feedforward_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, turns: Turns, visible: Visible, cache: Cache | None) -> Tensor:
        out = self.self_attn(self.input_layernorm(x), turns, visible, cache)
        x = x + self.post_attention_layernorm(out)
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Decoder(nn.Module):
    """Tokens to normalised hidden vectors; `logits` is the tied vocabulary projection."""

    def __init__(self, c: Any) -> None:
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(
        self,
        embedded: Tensor,
        positions: Tensor,
        see: Callable[[int, int | None], Visible],
        cache: Cache | None = None,
    ) -> Tensor:
        """embedded, positions [B, T] -> [B, T, D]. `see(layer, window)` says what is visible."""
        if self.training and self.c.gate_rows == "equal":
            for part in self.modules():
                if isinstance(part, FFN):
                    part.even()
        # Gemma rounds sqrt(D) to the dtype of the weights.
        x = embedded * torch.tensor(math.sqrt(self.c.hidden_size), dtype=embedded.dtype)
        turns = Turns(positions, self.c.rope_theta, x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, turns, see(i, self.c.sliding_window if layer.local else None), cache)
        if self.training:
            self.settle()
        return self.norm(x)

    @torch.no_grad()
    def settle(self) -> None:
        """Move every tracked threshold by what was counted, the mean over all processes."""
        parts = [part for part in self.modules() if isinstance(part, Threshold) and part.excess is not None]
        if not parts or self.c.theta_shift == "none" or self.c.topk_method != "statistical":
            return
        excess = torch.stack([part.excess for part in parts if part.excess is not None]).clamp(-1, 1)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(excess)
            excess /= dist.get_world_size()
        for part, each in zip(parts, excess, strict=True):
            part.quantile_shift += part.RATE * each
            part.excess = None

    def logits(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self.embed_tokens.weight)
        limit = self.c.final_logit_softcapping
        return logits if limit is None else limit * torch.tanh(logits / limit)
