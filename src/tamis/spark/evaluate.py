"""How well a model predicts a text, and how much of itself it uses for that.

Loss (nats a token), bits per byte, active neurons and attended keys a layer, and floating-point operations a token, counted
from what was active and beside the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import InputError
from tamis.spark import flops
from tamis.spark.checkpoint import complete, read_model
from tamis.spark.huggingface import SparkForCausalLM, open_gemma2
from tamis.spark.tokens import end_token, open_tokenizer, read_documents

IDLE = 1e-3
"""A neuron that fewer tokens use, as a share, learns next to nothing."""


@dataclass
class Count:
    """Of one layer: sums over tokens (neurons) or over tokens and query heads (keys)."""

    sum: float = 0.0
    max: int = 0
    n: int = 0

    def add(self, counts: Tensor) -> None:
        if counts.numel():
            self.sum += float(counts.sum())
            self.max = max(self.max, int(counts.max()))
            self.n += counts.numel()

    @property
    def mean(self) -> float:
        return self.sum / self.n if self.n else math.nan


@dataclass(frozen=True)
class Activity:
    """What was active, a layer."""

    neurons: list[Count]
    keys: list[Count]
    """Attended by a query head, over all tokens."""
    crowded: list[Count]
    """Attended where more than k keys were visible: there the threshold has to choose."""
    visible: list[Count]
    uses: list[Tensor]
    """How many tokens used each neuron."""


@contextmanager
def watching(model: SparkForCausalLM) -> Iterator[Activity]:
    """Count what is active while the block runs. Slower: the fused operators do not tell."""
    layers = list(model.model.layers)
    config = model.config
    neurons, keys, crowded, visible = ([Count() for _ in layers] for _ in range(4))
    uses = [torch.zeros(config.intermediate_size, dtype=torch.int64) for _ in layers]
    seen = Activity(neurons, keys, crowded, visible, uses)

    def ffn(i: int, active: Tensor) -> None:
        seen.neurons[i].add(active.sum(-1))
        seen.uses[i] += active.flatten(0, -2).sum(0).cpu()

    def attention(i: int, window: int | None, counts: Tensor) -> None:
        t = counts.shape[-1]  # whole sequences without a cache: query q sees q + 1 keys
        visible = torch.arange(1, t + 1).clamp(max=window or t)
        seen.keys[i].add(counts)
        seen.crowded[i].add(counts[..., visible > config.attention_active])
        seen.visible[i].add(visible)

    try:
        for i, layer in enumerate(layers):
            layer.mlp.observer = partial(ffn, i)
            window = config.sliding_window if layer.local else None
            layer.self_attn.observer = partial(attention, i, window)
        yield seen
    finally:
        for layer in layers:
            layer.mlp.observer = layer.self_attn.observer = None


@torch.no_grad()
def loss_of(model: nn.Module, tokens: NDArray[Any], context: int, rows: int = 8) -> tuple[float, int]:
    """Sum of the losses of tokens[1:], each predicted from up to `context` tokens before it, and their number."""
    device = next(model.parameters()).device
    total, starts = 0.0, list(range(0, len(tokens) - 1, context))
    whole = [start for start in starts if start + context < len(tokens)]
    groups = [whole[i : i + rows] for i in range(0, len(whole), rows)] + [[s] for s in starts[len(whole) :]]
    for group in groups:
        batch = np.stack([tokens[s : s + context + 1] for s in group]).astype(np.int64)
        window = torch.from_numpy(batch).to(device)
        total += float(model(window[:, :-1], targets=window[:, 1:]).loss) * window[:, 1:].numel()
    return total, max(0, len(tokens) - 1)


def report(model: SparkForCausalLM, tokens: NDArray[Any], size_bytes: int, context: int) -> dict[str, Any]:
    """Everything `tamis spark evaluate` prints, as plain numbers. The first token is only given, not predicted."""
    with watching(model) as seen:
        total, count = loss_of(model, tokens, context)
    config = complete(model.config.to_dict())
    kept = [c.mean for c in seen.keys]
    visible = [c.mean for c in seen.visible]
    active = [c.mean for c in seen.neurons]
    # The formula at the mean number of visible keys is exact for dense attention; for Spark min(k, n) is convex in n,
    # so it is averaged over the queries of a window.
    expected = float(np.mean([flops.formula(config, n) for n in range(1, context + 1)]))
    found = flops.counted(config, active, kept, visible)
    head = 2 * config["hidden_size"] * config["vocab_size"]
    return {
        "tokens": count,
        "bytes": size_bytes,
        "loss": total / count,
        "bits_per_byte": total / math.log(2) / size_bytes if size_bytes else None,
        "context": context,
        "ffn_active": config["ffn_active"] if config["ffn"] == "spark" else config["intermediate_size"],
        "attention_active": config["attention_active"] if config["attention"] == "spark" else None,
        "layers": [
            {
                "active_neurons_mean": n.mean,
                "active_neurons_max": n.max,
                "active_share": n.mean / config["intermediate_size"],
                "idle_neurons": int((uses < IDLE * n.n).sum()),
                "attended_keys_mean": k.mean,
                "attended_keys_max": k.max,
                "attended_keys_mean_beyond_k": None if math.isnan(c.mean) else c.mean,
                "visible_keys_mean": v.mean,
            }
            for n, k, c, v, uses in zip(
                seen.neurons, seen.keys, seen.crowded, seen.visible, seen.uses, strict=True
            )
        ],
        "mflop_per_token_counted": found / 1e6,
        "mflop_per_token_formula": expected / 1e6,
        "mflop_per_token_vocabulary": head / 1e6,
    }


def open_model(folder: Path) -> SparkForCausalLM:
    """A checkpoint folder of `tamis_spark` or a dense `gemma2`, in float32. Raises InputError in a sentence."""
    config, _ = read_model(folder)  # names what is wrong before anything large is built
    if config["model_type"] == "gemma2":
        return open_gemma2(folder).float().eval()
    return SparkForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def encode(
    paths: list[Path], tokenizer: Any, vocab_size: int, limit: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The documents as one row of tokens, each followed by the end mark and the first preceded by it; and for each token how
    many bytes of text it and those before it stand for. Of tokens that share a character the first has its bytes.

    limit: no document is read once there are more tokens.
    """
    end = end_token(tokenizer)
    ids, ends = [end], [0]
    for document in (document for path in paths for document in read_documents(path)):
        found, before = tokenizer.encode(document), ends[-1]
        ids += [*found.ids, end]
        length = [0, *accumulate(len(character.encode()) for character in document)]
        ends += [before + length[last] for _, last in found.offsets]
        ends.append(before + length[-1])
        if limit is not None and len(ids) > limit + 1:
            break
    if not ends[-1]:
        raise InputError(f"No text was found in {', '.join(map(str, paths))}.")
    tokens = np.array(ids, np.int64)
    if tokens.max() >= vocab_size:
        raise InputError(
            f"The tokenizer makes token {tokens.max()}, the model knows {vocab_size}: they do not belong together."
        )
    return tokens, np.array(ends, np.int64)


def evaluate(
    folder: Path,
    texts: list[Path],
    *,
    context: int | None = None,
    tokenizer: Path | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The report of a checkpoint folder on texts. limit: of tokens."""
    model = open_model(folder)
    longest = model.config.max_position_embeddings
    context = context or min(longest, 1024)
    if context > longest:
        raise InputError(f"--context {context} is longer than the model's {longest}.")
    vocabulary = open_tokenizer(tokenizer or folder / "tokenizer.json")
    tokens, ends = encode(texts, vocabulary, model.config.vocab_size, limit)
    if limit is not None:
        tokens, ends = tokens[: limit + 1], ends[: limit + 1]
    return report(model, tokens, int(ends[-1]), context)


def describe(found: dict[str, Any]) -> list[str]:
    """The report as lines to print."""
    bits = found["bits_per_byte"]
    lines = [
        f"{found['tokens']} tokens, {found['bytes']} bytes, context {found['context']}",
        f"loss {found['loss']:.4f} nats a token, {'no' if bits is None else f'{bits:.4f}'} bits per byte",
        "layer  active neurons: mean   share   max  idle    attended keys: mean  max  beyond k",
    ]
    for i, layer in enumerate(found["layers"]):
        beyond = layer["attended_keys_mean_beyond_k"]
        lines.append(
            f"{i:5d}  {layer['active_neurons_mean']:20.1f}  {layer['active_share']:6.2%}  {layer['active_neurons_max']:4d}  "
            f"{layer['idle_neurons']:4d}  "
            f"{layer['attended_keys_mean']:19.1f}  {layer['attended_keys_max']:3d}  "
            + ("       -" if beyond is None else f"{beyond:8.1f}")
        )
    for what, more in (("without", 0.0), ("with", found["mflop_per_token_vocabulary"])):
        lines.append(
            f"MFLOP a token {what} the vocabulary projection: {found['mflop_per_token_counted'] + more:.3f} counted, "
            f"{found['mflop_per_token_formula'] + more:.3f} by the formula"
        )
    return lines


def dev_metrics(tokens: NDArray[Any], context: int, windows: int) -> Callable[[nn.Module], dict[str, float]]:
    """For `fit`: loss on the first windows of the development text, and the active share a layer on two of them."""
    part = tokens[: windows * context + 1]

    def measure(model: nn.Module) -> dict[str, float]:
        plain: Any = getattr(model, "module", model)  # DDP wraps
        total, count = loss_of(model, part, context)
        scores = {"dev_loss": total / max(1, count)}
        with watching(plain) as seen:
            loss_of(model, part[: 2 * context + 1], context)
        neurons = plain.config.intermediate_size
        for i, (active, keys) in enumerate(zip(seen.neurons, seen.crowded, strict=True)):
            scores[f"active_share_{i}"] = active.mean / neurons
            if keys.n:
                scores[f"attended_{i}"] = keys.mean
        return scores

    return measure
