"""Shapes of models by name, dense and Spark with equal numbers of parameters.

    arrange("gemma2-2b", ffn="spark", attention="spark")     a complete configuration

A gated FFN has three matrices of d_model * d_ff', a Spark FFN two (its predictor and up_proj share the input): equal
parameters at d_ff = 1.5 d_ff'. Attention has the same matrices in both. Light: no PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tamis.errors import UsageError
from tamis.spark.checkpoint import ABLATIONS, complete, tensor_shapes

ACTIVE_SHARE = 0.08
"""Of the FFN's neurons (paper): 5-10 % cost no quality, 3 % clearly do."""

_TINY = {
    "vocab_size": 2048, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512, "attention_active": 32,
    "sliding_window": 128, "query_pre_attn_scalar": 32, "max_position_embeddings": 1024,
}  # fmt: skip

# intermediate_size is that of the gated FFN.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # 1.2 M parameters: the parity experiment. A window of 128 and 32 attended keys are for contexts of some 256 tokens.
    "tiny": _TINY,
    # 5.5 M parameters.
    "small": _TINY | {
        "vocab_size": 4096, "hidden_size": 256, "num_attention_heads": 4, "head_dim": 64, "intermediate_size": 1024,
        "query_pre_attn_scalar": 64, "attention_active": 64, "sliding_window": 256, "max_position_embeddings": 2048,
    },
    # 2.6 G parameters, the shapes of Gemma-2 2B (paper: r = 1024, k = 1106; attention r = 128, k = 256).
    "gemma2-2b": {
        "vocab_size": 256000, "hidden_size": 2304, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216, "ffn_predictor_size": 1024,
        "attention_active": 256, "sliding_window": 4096, "query_pre_attn_scalar": 256,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip


def arrange(preset: str, *, ffn: str = "spark", attention: str = "spark", **changes: Any) -> dict[str, Any]:
    """The configuration of a preset as `config.json` holds it, with fields changed by name.

    intermediate_size, if changed, is that of the gated FFN, and becomes 1.5 times as many neurons in a Spark one.
    Raises UsageError for an unknown preset, InputError for a configuration that contradicts itself.
    """
    if preset not in PRESETS:
        raise UsageError(f"The preset {preset!r} is unknown: it is one of {', '.join(PRESETS)}.")
    known = complete({"model_type": "tamis_spark"} | dict(PRESETS[preset])).keys() | ABLATIONS.keys()
    if unknown := sorted(changes.keys() - known - {"initializer_range"}):
        raise UsageError(f"A model has no field {unknown[0]!r}: it has {', '.join(sorted(known))}.")
    config = (
        {"model_type": "tamis_spark"} | dict(PRESETS[preset]) | {"ffn": ffn, "attention": attention} | changes
    )
    config.setdefault("gate_rows", "equal" if ffn == "spark" else "free")
    if ffn == "spark":
        config["intermediate_size"] = config["intermediate_size"] * 3 // 2
        config.setdefault("ffn_active", max(1, round(ACTIVE_SHARE * config["intermediate_size"])))
    return complete(config, f"the preset {preset}")


def parameters(config: Mapping[str, Any]) -> int:
    """How many numbers a model with this complete configuration learns."""
    total = 0
    for shape in tensor_shapes(config).values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total
