"""csrc/tamis_native.h in ctypes: the structures and functions of the decoding engine, field by field."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from functools import cache

from tamis import native

TYPES = {"f32": 0, "bf16": 1, "int8": 2}
NO_MEMORY, NO_THREADS, NO_ISA, REFUSED = 1, 2, 3, 4
"""How a call ended, if not with 0."""
PROJECTIONS, ATTENTION, FFN, HEAD, EVERYTHING = 1, 2, 4, 8, 15


class Matrix(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("scale", c_void_p),
        ("row_sum", c_void_p),
        ("stride", c_int64),
        ("rows", c_int32),
        ("cols", c_int32),
        ("type", c_int32),
        ("unused", c_int32),
    )


class Config(ctypes.Structure):
    _fields_ = (
        *(
            (name, c_int32)
            for name in ("vocabulary", "hidden", "layers", "heads", "kv_heads", "head_dim", "neurons")
        ),
        *((name, c_int32) for name in ("ffn_spark", "ffn_predictor", "ffn_active")),
        *((name, c_int32) for name in ("attention_spark", "attention_predictor", "attention_active")),
        *((name, c_int32) for name in ("window", "context", "slots", "rows", "cache_type")),
        *((name, c_float) for name in ("rope_theta", "epsilon", "attention_cap", "final_cap")),
        *((name, c_float) for name in ("query_scale", "embedding_scale")),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, Matrix) for name in ("qkv", "out", "gate", "up", "down", "rescore")),
        ("norms", c_void_p * 4),
        ("sliding", c_int32),
        ("unused", c_int32),
    )


class Ends(ctypes.Structure):
    _fields_ = (
        ("embedding", Matrix),
        ("head", Matrix),
        ("norm", c_void_p),
        ("rescore_margin", c_float),
        ("head_scale", c_float),
        ("head_length", c_float),
    )


class Step(ctypes.Structure):
    _fields_ = (
        ("rows", c_int32),
        ("parts", c_int32),
        ("token", c_void_p),
        ("slot", c_void_p),
        ("position", c_void_p),
        ("wanted", c_int32),
        ("unused", c_int32),
        ("wanted_row", c_void_p),
        ("logits", c_void_p),
        ("seconds", c_double * 5),
        ("active", c_int64),
        ("attended", c_int64),
        ("rescored", c_int64),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The kernels with every function of the engine typed, or None without them."""
    found = native.load()
    if found is None:
        return None
    for name, result, arguments in (
        (
            "open",
            c_void_p,
            [POINTER(Config), POINTER(Ends), POINTER(Layer), c_int, c_int, c_int, POINTER(c_int)],
        ),
        ("close", None, [c_void_p]),
        ("shift", None, [c_void_p, c_void_p, c_void_p]),
        ("step", c_int, [c_void_p, POINTER(Step)]),
        ("fill_cache", c_int, [c_void_p, c_uint64]),
        ("read", c_double, [c_void_p, c_void_p, c_size_t]),
    ):
        function = getattr(found, f"tamis_spark_{name}")
        function.restype, function.argtypes = result, arguments
    found.tamis_matmul.argtypes = [c_int, POINTER(Matrix), c_void_p, c_int, c_void_p]
    found.tamis_soft_threshold.argtypes = [c_int, c_void_p, c_int, c_float, c_void_p, c_void_p, c_void_p]
    found.tamis_elementwise.argtypes = [c_int, c_int, c_void_p, c_int, c_float]
    return found
