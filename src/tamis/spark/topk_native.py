"""The fused training kernels (csrc/topk_training.h) as PyTorch operators, on a CPU, in float32 and float64.

    tamis::soft_threshold      max(x - theta, 0) of rows, one pass forward, one back by the closed-form gradient
    tamis::attention_weights   scores (and gates) of whole sequences to attention weights, dense or Spark

Registered through torch.library, so autograd, torch.compile and gradcheck take them for operators like any other. The
expressions in `topk_autograd` and `model` are their definition; TAMIS_TOPK=plain, and a missing compiler, keep to those.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tamis import native
from tamis.errors import UsageError
from tamis.spark.bindings import NO_MEMORY
from tamis.topk import quantile

VARIABLE = "TAMIS_TOPK"
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def runs(x: Tensor) -> bool:
    """Whether the kernels exist here and take this tensor."""
    return x.device.type == "cpu" and x.dtype in _SUFFIX and available()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def available() -> bool:
    """Whether the kernels are built and not switched off. Raises UsageError for an unknown TAMIS_TOPK."""
    return _available(os.environ.get(VARIABLE, "native"))


@lru_cache
def _available(wanted: str) -> bool:
    if wanted not in ("native", "plain"):
        raise UsageError(f"{VARIABLE} is {wanted!r}; it is native or plain.")
    return (
        wanted == "native"
        and native.chosen() is not None
        and hasattr(native.load(), "tamis_soft_threshold_f32")
    )


def soft_threshold(x: Tensor, k: int, shift: Tensor | None = None) -> Tensor:
    """max(x - theta, 0) of rows x [..., n] with 1 <= k < n; shift [1] as in `tamis.topk`."""
    return torch.ops.tamis.soft_threshold(x, k, _kept(shift))[0]


def attention_weights(
    scores: Tensor,
    gates: Tensor | None,
    *,
    first: int,
    window: int | None,
    k: int,
    cap: float | None,
    shift: Tensor | None = None,
) -> Tensor:
    """Weights [..., T, N] of T queries over N keys, from raw scores and, for a Spark layer, gates before softplus.

    first is the number of the first query's own key among the keys; window counts visible keys, None all; k = 0 sets no
    threshold.
    """
    rows = [first, window or 0, k]
    return torch.ops.tamis.attention_weights(scores, gates, rows, cap or 0.0, _kept(shift))[0]


def _kept(shift: Tensor | None) -> Tensor | None:
    """The value as it is now: the layer may go on changing its own while the backward pass still needs this one."""
    return None if shift is None else shift.detach().clone()


@torch.library.custom_op("tamis::soft_threshold", mutates_args=())
def _soft_threshold(x: Tensor, k: int, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    n = x.shape[-1]
    y, saved = torch.empty_like(x), x.new_empty((*x.shape[:-1], 2))
    z = quantile(k, n) + _number(shift)
    call = _function("tamis_soft_threshold", x)
    call(_isa(), _at(x), x.numel() // n, n, z, _at(y), _at(saved), torch.get_num_threads())
    return y, saved


@_soft_threshold.register_fake
def _(x: Tensor, k: int, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return _like(x), x.new_empty((*x.shape[:-1], 2))


@torch.library.custom_op("tamis::soft_threshold_backward", mutates_args=())
def _soft_threshold_backward(
    gradient: Tensor, x: Tensor, saved: Tensor, k: int, shift: Tensor | None
) -> Tensor:
    gradient, x = gradient.contiguous(), x.contiguous()
    n = x.shape[-1]
    dx, threads = torch.empty_like(x), torch.get_num_threads()
    z = quantile(k, n) + _number(shift)
    call = _function("tamis_soft_threshold_backward", x)
    call(_isa(), _at(x), _at(gradient), _at(saved), x.numel() // n, n, z, _at(dx), threads)
    return dx


@_soft_threshold_backward.register_fake
def _(gradient: Tensor, x: Tensor, saved: Tensor, k: int, shift: Tensor | None) -> Tensor:
    return _like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.k, shift = inputs
    ctx.save_for_backward(x, output[1], shift)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, saved, shift = ctx.saved_tensors
    return torch.ops.tamis.soft_threshold_backward(gradient, x, saved, ctx.k, shift), None, None


_soft_threshold.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("tamis::attention_weights", mutates_args=())
def _attention_weights(
    scores: Tensor, gates: Tensor | None, rows: Sequence[int], cap: float, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """rows: first, window, k."""
    scores = scores.contiguous()
    gates = None if gates is None else gates.contiguous()
    weights, saved = torch.empty_like(scores), scores.new_empty((*scores.shape[:-1], 3))
    described = _Rows.of(scores, rows, cap, shift)
    call = _function("tamis_attention_weights", scores)
    call(_isa(), described, _at(scores), _at(gates), _at(weights), _at(saved), torch.get_num_threads())
    return weights, saved


@_attention_weights.register_fake
def _(
    scores: Tensor, gates: Tensor | None, rows: Sequence[int], cap: float, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    return _like(scores), scores.new_empty((*scores.shape[:-1], 3))


@torch.library.custom_op("tamis::attention_weights_backward", mutates_args=())
def _attention_weights_backward(
    gradient: Tensor,
    scores: Tensor,
    gates: Tensor | None,
    saved: Tensor,
    rows: Sequence[int],
    cap: float,
) -> tuple[Tensor, Tensor]:
    """The threshold lies in `saved`. An operator returns tensors, never None: without gates the second one is empty."""
    gradient, scores = gradient.contiguous(), scores.contiguous()
    gates = None if gates is None else gates.contiguous()
    d_scores = torch.empty_like(scores)
    d_gates = scores.new_empty(0) if gates is None else torch.empty_like(gates)
    described, threads = _Rows.of(scores, rows, cap, None), torch.get_num_threads()
    at_gates = None if gates is None else _at(d_gates)
    call = _function("tamis_attention_weights_backward", scores)
    call(
        _isa(), described, _at(scores), _at(gates), _at(gradient), _at(saved), _at(d_scores), at_gates, threads
    )  # fmt: skip
    return d_scores, d_gates


@_attention_weights_backward.register_fake
def _(
    gradient: Tensor,
    scores: Tensor,
    gates: Tensor | None,
    saved: Tensor,
    rows: Sequence[int],
    cap: float,
) -> tuple[Tensor, Tensor]:
    return _like(scores), scores.new_empty(0) if gates is None else _like(scores)


def _keep_weights(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    scores, gates, ctx.rows, ctx.cap, _ = inputs
    ctx.save_for_backward(scores, gates, output[1])
    ctx.mark_non_differentiable(output[1])


def _weights_backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    scores, gates, saved = ctx.saved_tensors
    d_scores, d_gates = torch.ops.tamis.attention_weights_backward(
        gradient, scores, gates, saved, ctx.rows, ctx.cap
    )
    return d_scores, None if gates is None else d_gates, None, None, None


_attention_weights.register_autograd(_weights_backward, setup_context=_keep_weights)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _number(shift: Tensor | None) -> float:
    return 0.0 if shift is None else shift.item()


class _Rows(ctypes.Structure):
    """tamis_attention_rows of csrc/topk_native.h."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("keys", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("active", ctypes.c_int64),
        ("cap", ctypes.c_double),
        ("quantiles", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, scores: Tensor, rows: Sequence[int], cap: float, shift: Tensor | None) -> Any:
        (first, window, k), (queries, keys) = rows, scores.shape[-2:]
        table = _quantiles(k, keys) if shift is None else _quantiles(k, keys) + _number(shift)
        made = cls(scores.numel() // keys, queries, keys, first, window, k, cap, table.ctypes.data)
        made.table = table  # the structure holds its address only
        return ctypes.byref(made)


@lru_cache
def _quantiles(k: int, keys: int) -> Any:
    return np.array([quantile(k, n) if k else 0.0 for n in range(keys + 1)])


def _isa() -> int:
    isa = native.chosen()
    assert isa is not None, "the kernels were switched off after a tensor was given to them"
    return isa


def _at(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _check(status: int, function: Any, _: Any) -> None:
    if status == NO_MEMORY:
        raise MemoryError("Memory is not enough for the scratch of the training kernels.")
    if status:
        raise RuntimeError(f"{function.__name__} ended with status {status} (csrc/tamis_native.h).")


@lru_cache
def _bound(name: str) -> Any:
    """A function of the library, with its argument types."""
    function = getattr(native.load(), name)
    function.restype, function.errcheck = ctypes.c_int, _check
    pointer, number, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    function.argtypes = {
        "tamis_soft_threshold": [integer, pointer, number, number, ctypes.c_double, pointer, pointer, integer],
        "tamis_soft_threshold_backward":
            [integer, pointer, pointer, pointer, number, number, ctypes.c_double, pointer, integer],
        "tamis_attention_weights": [integer, pointer, pointer, pointer, pointer, pointer, integer],
        "tamis_attention_weights_backward":
            [integer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, integer],
    }[name.rsplit("_", 1)[0]]  # fmt: skip
    return function


def _function(name: str, x: Tensor) -> Any:
    return _bound(f"{name}_{_SUFFIX[x.dtype]}")
