"""Which cheap threshold lets k of n trained scores pass?

    python benchmarks/spark_thresholds.py RUN [--windows 16] [--context 256]

RUN is a folder of `tamis spark train` with its tokens. Of each Spark FFN: skewness and excess kurtosis of its standardised
scores u = (x - mean) / std, then the share of neurons with u > q, mean and standard deviation over tokens of the test text,
for q by several rules. All see two to four moments or one constant; the exact rule, sorting, would give k/n with sd 0.

    normal      z = Qn(1 - k/n), the paper's
    skewness    Cornish-Fisher: z + (z^2 - 1) g1 / 6, every row's own third moment
    kurtosis    and + (z^3 - 3 z) g2 / 24 - (2 z^3 - 5 z) g1^2 / 36, every row's own fourth moment
    clipped     z in mean and std of what lies within 2 std, the std mended for a normal row
    counted     z + (count(u > z) / n - k/n) / phi(z): a second pass that counts, then a secant step
    constant    the layer's own quantile, fitted on the first half of the windows; all rules are scored on the second
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tamis.spark.evaluate import open_model
from tamis.spark.tokens import open_tokens
from tamis.topk import quantile

Array = NDArray[np.float64]


def standardised(rows: Array) -> Array:
    return np.asarray((rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True))


def clipped(u: Array, z: float, limit: float = 2.0) -> Array:
    inside = np.abs(u) < limit
    count = inside.sum(1, keepdims=True)
    mean = (u * inside).sum(1, keepdims=True) / count
    variance = (np.square(u - mean) * inside).sum(1, keepdims=True) / count
    density = math.exp(-limit * limit / 2) / math.sqrt(2 * math.pi)
    kept = 1 - 2 * limit * density / math.erf(limit / math.sqrt(2))  # variance of a clipped normal one
    return np.asarray(mean + np.sqrt(variance / kept) * z)


def rules(z: float, share: float, constant: float) -> dict[str, Callable[[Array], Any]]:
    def skewness(u: Array) -> Array:
        return np.asarray(z + (z * z - 1) * (u**3).mean(1, keepdims=True) / 6)

    def kurtosis(u: Array) -> Array:
        g1, g2 = (u**3).mean(1, keepdims=True), (u**4).mean(1, keepdims=True) - 3
        return np.asarray(skewness(u) + (z**3 - 3 * z) * g2 / 24 - (2 * z**3 - 5 * z) * g1**2 / 36)

    def counted(u: Array) -> Array:
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return np.asarray(z + ((u > z).mean(1, keepdims=True) - share) / density)

    return {
        "normal": lambda u: z, "skewness": skewness, "kurtosis": kurtosis, "clipped": partial(clipped, z=z),
        "counted": counted, "constant": lambda u: constant,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256)
    options = parser.parse_args()
    model = open_model(options.run)
    tokens = open_tokens(options.run / "tokens", "test")[: options.windows * options.context]
    scores: dict[int, Array] = {}

    def keep(layer: int, _: Any, __: Any, output: torch.Tensor) -> None:
        scores[layer] = output.flatten(0, 1).double().numpy()

    for i, layer in enumerate(model.model.layers):
        layer.mlp.predictor.register_forward_hook(partial(keep, i))
    with torch.no_grad():
        model(torch.from_numpy(tokens.astype(np.int64)).view(options.windows, options.context))
    k, n = model.config.ffn_active, model.config.intermediate_size
    z, share = quantile(k, n), k / n
    print(f"k = {k} of n = {n}: {share:.2%}; share that passes, mean (sd over tokens)")
    for i, rows in sorted(scores.items()):
        first, u = np.split(standardised(rows), 2)
        constant = float(np.quantile(first, 1 - share))
        g1, g2 = (u**3).mean(), (u**4).mean() - 3
        print(f"layer {i}: skewness {g1:.2f}, excess kurtosis {g2:.2f}, constant {constant - z:+.3f}")
        for name, rule in rules(z, share, constant).items():
            found = (u > rule(u)).mean(1)
            print(f"  {name:10}{found.mean():7.2%} ({found.std():.2%})")


if __name__ == "__main__":
    main()
