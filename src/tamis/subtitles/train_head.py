"""Fit the shared class vectors again, on what finished members see: the mean of their features at every character's centre.

    python -m tamis.subtitles.train_head CHECKPOINT... --lines LINES --out OUT/head.pt

While the first member trains, its class vectors chase moving features, and those of rare characters fall behind: each batch
shows a few hundred of 17,000 classes, and Adam turns the faint push that all others get into a full step away. Here the
features stand still, are computed once and kept beside OUT, and a larger epsilon keeps faint pushes faint.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.subtitles.networks import Head, Recogniser, classification_loss
from tamis.subtitles.train import augment, collate
from tamis.training import FitConfig, fast_bfloat16, fit, load_weights

LINES_AT_ONCE = 16
Rows = tuple[Tensor, Tensor, Tensor]
"""features [N, F] float16, base classes [N], parts [N, 3]"""


class SharedHead(nn.Module):
    """The head alone, under the name it has in a member's checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.head = Head()


def load_members(checkpoints: Sequence[Path]) -> list[Recogniser]:
    members = []
    for path in checkpoints:
        member = Recogniser(path.stem)
        member.load_state_dict(load_weights(path))
        members.append(member.eval().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return members


def features_of(members: Sequence[Recogniser], shard: Path, seed: int) -> dict[str, NDArray[Any]]:
    """Mean features of all labelled characters of a shard, cropped and shifted as in training."""
    rng = np.random.default_rng(seed)
    with np.load(shard, allow_pickle=False) as stored:
        pixels, labels, spans, offsets = (stored[name] for name in ("pixels", "labels", "spans", "offsets"))
    found, base, parts = [], [], []
    for first in range(0, len(pixels), LINES_AT_ONCE):
        strips, of_strips, moved = [], [], []
        for i in range(first, min(first + LINES_AT_ONCE, len(pixels))):
            part = slice(offsets[i], offsets[i + 1])
            strip, shifted = augment(rng, pixels[i], spans[part])
            strips.append(strip)
            of_strips.append(labels[part])
            moved.append(shifted)
        batch, targets = collate(rng, strips, of_strips, moved)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
            mean = torch.stack([member.trunk(batch)[0].float() for member in members]).mean(0)
        found.append(mean[targets.strip, :, targets.position].half().numpy())
        base.append(targets.base.numpy().astype(np.int16))
        parts.append(targets.parts.numpy().astype(np.int8))
    return {
        "features": np.concatenate(found),
        "base": np.concatenate(base),
        "parts": np.concatenate(parts),
    }


def gather(members: Sequence[Recogniser], lines: Path, shards: int, kept: Path, seed: int) -> Rows:
    """Features of the first `shards` shards of a folder of lines, from `kept` where they were computed before."""
    kept.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(shards):
        path = kept / f"{lines.name}-{number:04d}.npz"
        if not path.exists():
            arrays = features_of(members, lines / f"shard-{number:04d}.npz", seed * 100_003 + number)
            draft = path.with_suffix(".part.npz")
            np.savez(draft, **arrays)  # type: ignore[arg-type]
            draft.replace(path)
            print(path.name, flush=True)
        with np.load(path, allow_pickle=False) as stored:
            rows.append(
                [stored["features"], stored["base"].astype(np.int64), stored["parts"].astype(np.int64)]
            )
    features, base, parts = (torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True))
    return features, base, parts


def batches_of(rows: Rows, size: int, seed: int) -> Callable[[int], Iterator[Rows]]:
    """Batches that depend on their step alone: every row once in each pass, in an order of that pass."""

    def batches(first: int) -> Iterator[Rows]:
        per_pass, order, of_pass = len(rows[0]) // size, torch.empty(0, dtype=torch.int64), -1
        step = first
        while True:
            if step // per_pass != of_pass:
                of_pass = step // per_pass
                generator = torch.Generator().manual_seed(seed * 1009 + of_pass)
                order = torch.randperm(len(rows[0]), generator=generator)
            chosen = order[(step % per_pass) * size :][:size]
            yield rows[0][chosen].float(), rows[1][chosen], rows[2][chosen]
            step += 1

    return batches


def head_loss(model: nn.Module, batch: Rows) -> tuple[Tensor, dict[str, float]]:
    assert isinstance(model, SharedHead)
    loss, accuracy = classification_loss(model.head, *batch)
    return loss, {"accuracy": accuracy}


def evaluator(rows: Rows) -> Callable[[nn.Module], dict[str, float]]:
    """Loss and accuracy on rendered lines of unseen faces, sentences and footage."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert isinstance(model, SharedHead)
        loss, accuracy = classification_loss(model.head, rows[0].float(), rows[1], rows[2])
        return {"dev_class_loss": loss.item(), "dev_accuracy": accuracy}

    return evaluate


def key_of(checkpoints: Sequence[Path]) -> str:
    """Names the features of just these trunks."""
    digest = hashlib.sha256()
    for path in checkpoints:
        for name, value in load_weights(path).items():
            if name.startswith("trunk."):
                digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--start", type=Path, help="class vectors to start from (default: the first member's)"
    )
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--passes", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epsilon", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    members = load_members(arguments.checkpoints)
    kept = arguments.out.parent / f"features-{key_of(arguments.checkpoints)}"
    train = gather(members, arguments.lines / "train", arguments.shards, kept, arguments.seed)
    dev = gather(members, arguments.lines / "dev", 2, kept, arguments.seed)
    model = SharedHead()
    if arguments.start is None:
        model.head.load_state_dict(members[0].head.state_dict())
    else:
        model.load_state_dict(load_weights(arguments.start))
    look = evaluator(dev)
    with torch.no_grad():
        print("before", look(model), f"{len(train[0])} characters", flush=True)
    steps = int(arguments.passes * (len(train[0]) // arguments.batch))
    config = FitConfig(
        steps=steps,
        learning_rate=arguments.learning_rate,
        warmup_steps=min(50, steps // 10),
        epsilon=arguments.epsilon,
        ema_decay=0.99,
        clip_norm=5.0,
        seed=arguments.seed,
        checkpoint=arguments.out,
        checkpoint_every=200,
        metrics=arguments.out.with_suffix(".jsonl"),
        log_every=25,
        evaluate_every=100,
    )
    report = lambda line: print(" ".join(f"{k}={v:.4g}" for k, v in line.items()), flush=True)  # noqa: E731
    fit(
        model,
        batches_of(train, arguments.batch, arguments.seed),
        head_loss,
        config,
        evaluate=look,
        report=report,
    )


if __name__ == "__main__":
    main()
