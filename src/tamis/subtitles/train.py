"""Train the character CNNs on rendered lines: `tamis subtitles train` and the commands in `runs/`.

    tamis subtitles train vgg --lines LINES --out OUT
    tamis subtitles train residual --lines LINES --out OUT --head OUT/vgg.pt

The first member learns the class vectors; the others learn to speak the same language (their head is frozen).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tamis.errors import InputError
from tamis.subtitles.characters import base_classes, hangul_parts
from tamis.subtitles.networks import Recogniser, Targets, recognition_loss
from tamis.subtitles.strip import HEIGHT, STRIDE
from tamis.training import FitConfig, Fitted, fast_bfloat16, fit, load_weights

CROP = 512  # px of a training strip
SHARDS_PER_BATCH = 4
WAIT_S, PATIENCE_S = (
    2.0,
    600.0,
)  # between two looks for a shard; without any new one
VIEWS = (
    2  # how often a line is drawn, on average, before the window of shards moves on: rendering is not free
)


class Lines:
    """Rendered lines in shards, as batches that depend on the step alone.

    The renderer may still be at work: a shard that is not there yet is waited for, as long as others come.
    """

    def __init__(self, folder: Path, shards: int, lines_per_batch: int, seed: int) -> None:
        self.folder, self.shards, self.size, self.seed = folder, shards, lines_per_batch, seed
        self.load = lru_cache(maxsize=2 * SHARDS_PER_BATCH)(self._load)

    def _load(self, number: int) -> dict[str, NDArray[Any]]:
        path = self.folder / f"shard-{number:04d}.npz"
        if not path.exists():
            self._wait_for(path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("pixels", "labels", "spans", "offsets")}

    def _wait_for(self, path: Path) -> None:
        """Raises InputError when no renderer seems to be at work: no shard has come for `PATIENCE_S`."""
        print(f"waiting for {path}, which the renderer has not written yet", file=sys.stderr, flush=True)
        there, since = -1, time.monotonic()
        while not path.exists():
            if (now := len(list(self.folder.glob("shard-????.npz")))) != there:
                there, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                raise InputError(
                    f"{path} is missing, and no shard has come for {PATIENCE_S / 60:.0f} minutes: give --shards {there}, "
                    "or render more with python -m tamis.subtitles.synthesis."
                    if there
                    else f"{self.folder} holds no rendered lines: python -m tamis.subtitles.synthesis makes them."
                )
            time.sleep(WAIT_S)

    def batches(self, first: int) -> Iterator[tuple[Tensor, Targets]]:
        lines = len(self.load(0)["pixels"])
        steps_per_window = VIEWS * SHARDS_PER_BATCH * lines // self.size
        step = first
        while True:
            window = step // steps_per_window
            rng = np.random.default_rng((self.seed, step))
            strips, labels, spans = [], [], []
            for _ in range(self.size):
                number = (window * SHARDS_PER_BATCH + int(rng.integers(SHARDS_PER_BATCH))) % self.shards
                shard = self.load(number)
                i = int(rng.integers(lines))
                part = slice(shard["offsets"][i], shard["offsets"][i + 1])
                strip, moved = augment(rng, shard["pixels"][i], shard["spans"][part])
                strips.append(strip)
                labels.append(shard["labels"][part])
                spans.append(moved)
            yield collate(rng, strips, labels, spans)
            step += 1


def augment(
    rng: Generator, pixels: NDArray[np.uint8], spans: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A random crop [2, 40, CROP], with contrast and brightness changed, and at times one frame only."""
    y = int(np.clip(round(4 + rng.normal(0, 1.2)), 0, pixels.shape[1] - HEIGHT))
    x = int(rng.integers(0, pixels.shape[2] - CROP + 1))
    strip = pixels[:, y : y + HEIGHT, x : x + CROP]
    gain, lift = rng.uniform(0.6, 1.25), rng.uniform(-30, 30)
    table = np.clip((np.arange(256) - 128) * gain + 128 + lift, 0, 255).astype(np.uint8)
    return table[strip], spans - x


def collate(
    rng: Generator,
    strips: list[NDArray[np.uint8]],
    labels: list[NDArray[np.int32]],
    spans: list[NDArray[np.float32]],
) -> tuple[Tensor, Targets]:
    """Strips and their truth as tensors. Class targets are looked up at most one position beside the centre."""
    positions = CROP // STRIDE
    hangul = len(base_classes())
    state = np.zeros((len(strips), positions), np.int64)
    rows: list[tuple[int, int, int, int, int, int]] = []
    grid = np.arange(positions) * STRIDE + STRIDE / 2
    for b, (label, span) in enumerate(zip(labels, spans, strict=True)):
        for number, (left, right, _) in zip(label, span, strict=True):
            state[b, (grid >= left) & (grid < right)] = 3 if number == -1 else 2
        for number, (_, _, centre) in zip(label, span, strict=True):
            t = int(centre // STRIDE)
            if number == -1 or not 0 <= t < positions:
                continue
            state[b, t] = 1
            if number < 0:
                continue
            t = int(np.clip(t + rng.choice([-1, 0, 0, 0, 1]), 0, positions - 1))
            if number >= hangul:
                rows.append((b, t, hangul, *hangul_parts(int(number) - hangul)))
            else:
                rows.append((b, t, int(number), -1, -1, -1))
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 6)
    pixels = torch.from_numpy(np.stack(strips)).to(memory_format=torch.channels_last).float() / 255
    return pixels, Targets(torch.from_numpy(state), table[:, 0], table[:, 1], table[:, 2], table[:, 3:])


def evaluator(folder: Path) -> Callable[[torch.nn.Module], dict[str, float]]:
    """Loss and accuracy on rendered lines of unseen faces, sentences and footage."""
    lines = Lines(folder, shards=2, lines_per_batch=32, seed=7)

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        stream = lines.batches(0)
        rows = [recognition_loss(model, next(stream))[1] for _ in range(12)]
        return {f"dev_{name}": float(np.mean([row[name] for row in rows])) for name in rows[0]}

    return evaluate


def train(arguments: argparse.Namespace) -> Fitted:
    """Raises InputError where there is no folder of lines. Lines that are still being rendered are waited for."""
    if not arguments.lines.is_dir():
        raise InputError(
            f"{arguments.lines} is no folder of rendered lines: python -m tamis.subtitles.synthesis makes one."
        )
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    half = {"bfloat16": True, "float32": False, "auto": fast_bfloat16()}[arguments.precision]
    model = Recogniser(arguments.design, freeze_head=arguments.head is not None, half_precision=half)
    if arguments.start is not None:
        model.load_state_dict(load_weights(arguments.start))
    if arguments.head is not None:
        adopt_head(model, arguments.head, arguments.out / f"{arguments.design}.pt")
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lines = Lines(arguments.lines / "train", arguments.shards, arguments.batch, arguments.seed)
    config = FitConfig(
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        warmup_steps=min(200, arguments.steps // 10),
        epsilon=arguments.epsilon,
        ema_decay=0.998,
        clip_norm=5.0,
        seed=arguments.seed,
        checkpoint=arguments.out / f"{arguments.design}.pt",
        checkpoint_every=250,
        metrics=arguments.out / f"{arguments.design}.jsonl",
        log_every=25,
        evaluate_every=500,
        time_budget_s=arguments.minutes * 60,
    )
    report = lambda line: print(" ".join(f"{k}={v:.4g}" for k, v in line.items()), flush=True)  # noqa: E731
    return fit(
        model,
        lines.batches,
        recognition_loss,
        config,
        evaluate=evaluator(arguments.lines / "dev"),
        report=report,
    )


def adopt_head(model: Recogniser, source: Path, checkpoint: Path) -> None:
    """Give a member the class vectors of `source`, also in the checkpoint that it goes on from, if there is one.

    So a member can start while the first one still trains, and take over its final class vectors later.
    """
    head = {name: value for name, value in load_weights(source).items() if name.startswith("head.")}
    model.load_state_dict(head, strict=False)
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for weights in filter(None, (state["model"], state["averaged"])):
            weights.update(head)
        beside = checkpoint.with_suffix(".part")
        torch.save(state, beside)
        beside.replace(checkpoint)
