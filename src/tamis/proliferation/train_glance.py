"""Train the small network that looks at what the perceptron leaves, on windows as `train_mitosis` draws them.

    python -m tamis.proliferation.train_glance --work work/mitosis --grounds

Goes on from its checkpoint. Adds the network to candidates.npz and prints, for composed slides of validation cases, the share of
mitoses kept against the candidates per mm2.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tamis.proliferation.candidates import GLANCE_PX, CandidateScorer, dark_nuclei
from tamis.proliferation.fields import Field, part_of, read_fields
from tamis.proliferation.grounds import composed_nuclei
from tamis.proliferation.networks import GlanceNetwork
from tamis.proliferation.train_candidates import tell
from tamis.proliferation.train_mitosis import harder, looked_at
from tamis.proliferation.windows import WINDOW_PX, Sampler, nuclei_of
from tamis.training import FitConfig, Metrics, fit
from tamis.writing import replacing

STEPS, BATCH, DRAWS = 2500, 128, 200
MOVED_PX = 3  # at 0.5 um/px
VALIDATION_SLIDES = 3


class Glancing:
    """The middle of a Sampler's windows at half their resolution, moved, turned and mirrored anew at every step.

    Drawing a window costs more than a step's share of it, so `draws` batches are drawn once.
    """

    def __init__(self, sampler: Sampler, draws: int) -> None:
        self.seed = sampler.seed
        self.batch = sampler.batch
        start, side = WINDOW_PX // 2 - GLANCE_PX - MOVED_PX * 2, GLANCE_PX + 2 * MOVED_PX
        middle = slice(start, start + 2 * side)
        pictures, labels = [], []
        for _, (windows, of) in zip(range(draws), sampler(0), strict=False):
            pictures += [
                cv2.resize(w[middle, middle], (side, side), interpolation=cv2.INTER_AREA) for w in windows
            ]
            labels.append(of)
        self.windows = np.asarray(np.stack(pictures), np.uint8)
        self.labels = np.concatenate(labels)

    def __call__(self, first_step: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        step = first_step
        while True:
            generator = np.random.default_rng((self.seed, step))
            chosen = generator.integers(len(self.windows), size=self.batch)
            y, x = generator.integers(2 * MOVED_PX + 1, size=2)
            seen = np.rot90(self.windows[chosen], int(generator.integers(4)), (1, 2))
            seen = seen[:, y : y + GLANCE_PX, x : x + GLANCE_PX]
            seen = seen[:, :, ::-1] if generator.random() < 0.5 else seen
            yield np.ascontiguousarray(seen), self.labels[chosen]
            step += 1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="train_glance", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    )
    parser.add_argument("--grounds", action="store_true", help="with nuclei of composed training slides")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = train(options.work, options.data, options.grounds, options.steps)
    file = options.work / "candidates.npz"
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "glance"}
    with replacing(file) as beside, beside.open("wb") as out:
        np.savez(out, **arrays, glance=np.frombuffer(to_onnx(network), np.uint8))
    if options.grounds:
        tell(composed_validation(options.work, options.data), CandidateScorer.load(file.read_bytes()))


def train(work: Path, data: Path, grounds: bool, steps: int) -> GlanceNetwork:
    fields = part_of(read_fields(data), "train")
    nuclei = nuclei_of(fields, peaks=dark_nuclei)
    if grounds:
        scorer = CandidateScorer.load((work / "candidates.npz").read_bytes())
        more_fields, more = composed_nuclei(
            data, len(fields), lambda p: looked_at(p, scorer), work / "grounds"
        )
        fields, nuclei = [*fields, *more_fields], [*nuclei, *more]
    nuclei = harder(nuclei, json.loads((work / "hard.json").read_text()), weight=2.0)
    config = FitConfig(
        steps=steps,
        learning_rate=2e-3,
        warmup_steps=min(100, steps // 4),
        weight_decay=0.02,
        ema_decay=0.995,
        checkpoint=work / "glance.pt",
        checkpoint_every=200,
        metrics=work / "glance.jsonl",
    )
    fitted = fit(
        GlanceNetwork().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        Glancing(Sampler(fields, nuclei, batch=BATCH, seed=7), min(DRAWS, steps)),
        _loss,
        config,
        report=lambda line: print(json.dumps({k: round(v, 5) for k, v in line.items()}), flush=True),
    )
    assert isinstance(fitted.model, GlanceNetwork)
    return fitted.model.eval()


def _loss(model: nn.Module, batch: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> tuple[Tensor, Metrics]:
    logits = model(torch.from_numpy(batch[0]).permute(0, 3, 1, 2).float())[:, 0]
    labels = torch.from_numpy(batch[1])
    right = ((logits > 0) == (labels > 0.5)).float().mean().item()
    return functional.binary_cross_entropy_with_logits(logits, labels * 0.96 + 0.02), {"right": right}


class _Exported(nn.Module):
    """uint8 [B, 36, 36, 3] -> logits [B]."""

    def __init__(self, network: GlanceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return cast(Tensor, self.network(pixels.permute(0, 3, 1, 2).float())[:, 0])


def to_onnx(network: GlanceNetwork) -> bytes:
    buffer = io.BytesIO()
    torch.onnx.export(
        _Exported(network).eval(),
        (torch.zeros(2, GLANCE_PX, GLANCE_PX, 3, dtype=torch.uint8),),
        buffer,  # type: ignore[arg-type]
        input_names=["pixels"],
        output_names=["logit"],
        dynamic_axes={"pixels": {0: "n"}, "logit": {0: "n"}},
        dynamo=False,
    )
    return buffer.getvalue()


def composed_validation(work: Path, data: Path) -> list[Field]:
    """Composed slides of validation cases in grounds of their own, with the planted mitoses."""
    fields, _ = composed_nuclei(
        data, 0, lambda p: np.empty((0, 2)), work / "grounds", part="validation", slides=VALIDATION_SLIDES
    )
    return fields


if __name__ == "__main__":
    main()
