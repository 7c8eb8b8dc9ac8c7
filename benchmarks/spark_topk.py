"""Statistical top-k forward + backward against its competitors, and a whole training step, Spark against dense.

    python benchmarks/spark_topk.py [--rows 512] [--neurons 13824] [--repeats 9] [--threads 1] [--step PRESET]

Interleaved in one process; medians of CPU time (on a busy machine wall time measures the others), and ratios to the fused
operator. Competitors: torch.topk + scatter (exact, straight-through), the plain PyTorch expression with autograd, sort, and
ReLU as the cheapest thing that reads and writes as much.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tamis import native
from tamis.spark import topk_native
from tamis.spark.huggingface import SparkConfig, SparkForCausalLM
from tamis.spark.presets import arrange
from tamis.topk import quantile


def plain(x: Tensor, k: int) -> Tensor:
    """The definition, as `topk_autograd` has it."""
    mean = x.mean(-1, keepdim=True)
    std = (x - mean).square().mean(-1, keepdim=True).sqrt()
    return (x - (mean + std * quantile(k, x.shape[-1]))).relu()


def one_liner(x: Tensor, k: int) -> Tensor:
    """What one writes first."""
    theta = x.mean(-1, keepdim=True) + x.std(-1, keepdim=True) * quantile(k, x.shape[-1])
    return torch.relu(x - theta)


def topk_scatter(x: Tensor, k: int) -> Tensor:
    values, index = x.topk(k, dim=-1)
    return torch.zeros_like(x).scatter(-1, index, values)


def topk_threshold(x: Tensor, k: int) -> Tensor:
    return (x - x.topk(k + 1, dim=-1).values[..., -1:]).relu()


def by_sort(x: Tensor, k: int) -> Tensor:
    return (x - x.sort(dim=-1, descending=True).values[..., k : k + 1]).relu()


COMPETITORS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "fused": topk_native.soft_threshold,
    "ReLU": lambda x, k: x.relu(),
    "plain expression": plain,
    "torch.std one-liner": one_liner,
    "torch.topk threshold": topk_threshold,
    "torch.topk + scatter": topk_scatter,
    "torch.sort threshold": by_sort,
}


def interleaved(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds a call. Each is timed right after an untimed one of its own kind: the one before it left other
    memory to the allocator, and pages that the system must give first would be counted to whoever comes next."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def operators(rows: int, n: int, repeats: int) -> None:
    k = round(0.08 * n)
    x = torch.randn(rows, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    gradient = torch.randn(rows, n, generator=torch.Generator().manual_seed(1))

    def run(form: Callable[[Tensor, int], Tensor]) -> None:
        x.grad = None
        form(x, k).backward(gradient)

    found = interleaved({name: lambda form=form: run(form) for name, form in COMPETITORS.items()}, repeats)
    print(f"forward + backward, [{rows}, {n}] float32, k = {k}:")
    for name, seconds in found.items():
        print(f"  {name:22s} {1e3 * seconds:9.1f} ms   {seconds / found['fused']:6.1f} x")


def steps(preset: str, batch: int, context: int, repeats: int, precision: str) -> None:
    arms = {
        "dense": ("gated", "softmax"),
        "Spark FFN": ("spark", "softmax"),
        "Spark FFN + attention": ("spark", "spark"),
    }
    calls = {}
    for name, (ffn, attention) in arms.items():
        torch.manual_seed(0)
        config = arrange(preset, ffn=ffn, attention=attention)
        model = SparkForCausalLM(SparkConfig(**{key: v for key, v in config.items() if key != "model_type"}))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        tokens = torch.randint(0, config["vocab_size"], (batch, context + 1))

        def step(model: Any = model, optimiser: Any = optimiser, tokens: Tensor = tokens) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(tokens[:, :-1], targets=tokens[:, 1:]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

        calls[name] = step
    found = interleaved(calls, repeats)
    print(f"whole training step, preset {preset}, {batch} x {context} tokens, {precision}, equal parameters:")
    for name, seconds in found.items():
        print(f"  {name:22s} {1e3 * seconds:9.1f} ms   {seconds / found['dense']:6.2f} x dense")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("rows", 512),
        ("neurons", 13824),
        ("repeats", 9),
        ("threads", 1),
        ("batch", 8),
        ("context", 256),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--step", nargs="*", default=["tiny", "small"], metavar="PRESET", help="presets of the whole step"
    )
    parser.add_argument(
        "--precision", nargs="*", default=["float32", "bfloat16"], metavar="P", help="of products"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    machine = models[0].split(":")[1].strip() if models else platform.machine()
    print(
        f"{machine}, {len(models)} cores; torch {torch.__version__}, {options.threads} threads; {native.description()}"
    )
    operators(options.rows, options.neurons, options.repeats)
    for preset in options.step:
        for precision in options.precision:
            steps(preset, options.batch, options.context, options.repeats, precision)


if __name__ == "__main__":
    main()
