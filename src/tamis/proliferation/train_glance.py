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

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tamis.proliferation.candidates import GLANCE_PX, CandidateScorer, dark_nuclei
from tamis.proliferation.fields import UM_PER_PX, part_of, read_fields
from tamis.proliferation.grounds import composed_nuclei
from tamis.proliferation.networks import GlanceNetwork
from tamis.proliferation.train_mitosis import BATCH as SMALL_BATCH
from tamis.proliferation.train_mitosis import harder, looked_at
from tamis.proliferation.windows import WINDOW_PX, Sampler, nuclei_of
from tamis.training import FitConfig, Metrics, fit
from tamis.writing import replacing

STEPS, BATCH = 1500, 4 * SMALL_BATCH
HIT_PX = 30.0
VALIDATION_SLIDES = 3
SHARES = (0.8, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)


class Glancing:
    """The middle of a Sampler's windows at half their resolution."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __call__(self, first_step: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        start = WINDOW_PX // 2 - GLANCE_PX
        for windows, labels in self.sampler(first_step):
            middle = windows[:, start : start + 2 * GLANCE_PX, start : start + 2 * GLANCE_PX]
            small = [cv2.resize(w, (GLANCE_PX, GLANCE_PX), interpolation=cv2.INTER_AREA) for w in middle]
            yield np.asarray(np.stack(small), np.uint8), labels


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
        kept, per_mm2, bounds = curve(options.work, options.data)
        for share in SHARES:
            at = int(np.searchsorted(kept, share))
            if at < len(kept):
                print(
                    f"{share:.2f} kept: {per_mm2[at]:.0f} candidates per mm2 of picture, log-odds {bounds[at]:.2f}"
                )


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
        Glancing(Sampler(fields, nuclei, batch=BATCH, seed=7)),
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
        return torch.as_tensor(self.network(pixels.permute(0, 3, 1, 2).float())[:, 0])


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


def curve(work: Path, data: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(share of planted mitoses with a candidate within 7.5 um, other candidates per mm2, log-odds), from strict to lax."""
    scorer = CandidateScorer.load((work / "candidates.npz").read_bytes())
    fields, nuclei = composed_nuclei(
        data,
        0,
        lambda p: np.empty((0, 2)),
        work / "grounds",
        part="validation",
        slides=VALIDATION_SLIDES,
    )
    best, others, area_mm2 = [], [], 0.0
    for i, field in enumerate(fields):
        places, scores, _ = scorer.candidates(field.pixels)
        real = np.array([(n.x, n.y) for n in nuclei if n.field == i and n.label])
        away = np.hypot(*(places[:, None] - real[None]).transpose(2, 0, 1))
        best += [scores[away[:, j] < HIT_PX].max(initial=-np.inf) for j in range(len(real))]
        others.append(scores[away.min(1, initial=np.inf) >= HIT_PX])
        area_mm2 += field.pixels[..., 0].size * UM_PER_PX**2 / 1e6
    bounds = np.linspace(8, -8, 161)
    kept = (np.array(best)[None] >= bounds[:, None]).mean(1)
    return kept, (np.concatenate(others)[None] >= bounds[:, None]).sum(1) / area_mm2, bounds


if __name__ == "__main__":
    main()
