"""Floating-point operations of one decoded token: by the formula, and summed over the products that are computed.

A product of a matrix [m, n] and a vector is 2 m n operations. Per layer, over n visible keys, D = heads * d_head:

    FFN         dense 6 d_model d_ff'      Spark 2 r d_ff + 2 (d_model - r) k + 2 d_model k
    attention   dense 4 D n                Spark 2 R n + 2 (2 D - R) min(k, n), R = heads * r

Norms, activations, rotations and the 2 d_ff of the two moments are left out on both sides, as in the paper. Light.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def formula(config: Mapping[str, Any], context: int, *, head: bool = False) -> float:
    """Per token with `context` visible keys (fewer in a sliding window), k taken as exactly met.

    head adds the vocabulary projection.
    """
    c = config
    d, f = c["hidden_size"], c["intermediate_size"]
    queries, keys = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    if c["ffn"] == "spark":
        r, k = c["ffn_predictor_size"], min(c["ffn_active"], f)
        ffn = 2 * r * f + 2 * (d - r) * k + 2 * d * k
    else:
        ffn = 6 * d * f
    total = float(c["num_hidden_layers"] * (ffn + 4 * d * queries + 4 * d * keys))
    for kind in c["layer_types"]:
        n = min(context, c["sliding_window"]) if kind == "sliding_attention" else context
        if c["attention"] == "spark":
            predictor = c["num_attention_heads"] * c["attention_predictor_size"]
            total += 2 * predictor * n + 2 * (2 * queries - predictor) * min(c["attention_active"], n)
        else:
            total += 4 * queries * n
    return total + (2 * d * c["vocab_size"] if head else 0)


def counted(
    config: Mapping[str, Any],
    active: Sequence[float],
    attended: Sequence[float],
    visible: Sequence[float],
    *,
    head: bool = False,
) -> float:
    """Per token, from what was observed a layer: active neurons; attended and visible keys a query head (means).

    Sums the products of a decoding step one by one, in the order of `reference.py`.
    """
    products: list[tuple[float, float]] = []  # rows, columns
    c = config
    d, size, heads = c["hidden_size"], c["head_dim"], c["num_attention_heads"]
    for neurons, kept, seen in zip(active, attended, visible, strict=True):
        products += [
            (heads * size, d),
            (c["num_key_value_heads"] * size, d),
            (c["num_key_value_heads"] * size, d),
        ]
        for _ in range(heads):
            if c["attention"] == "spark":
                r = c["attention_predictor_size"]
                products += [(seen, r), (kept, size - r), (size, kept)]
            else:
                products += [(seen, size), (size, seen)]
        products.append((d, heads * size))
        if c["ffn"] == "spark":
            r = c["ffn_predictor_size"]
            products += [(c["intermediate_size"], r), (neurons, d - r), (d, neurons)]
        else:
            products += [
                (c["intermediate_size"], d),
                (c["intermediate_size"], d),
                (d, c["intermediate_size"]),
            ]
    if head:
        products.append((c["vocab_size"], d))
    return sum(2 * rows * columns for rows, columns in products)
