"""Train the perceptron that ranks dark nuclei; `train_glance` trains the sieve after it.

    python -m tamis.proliferation.train_candidates --work work/mitosis

Writes candidates.npz and prints, for validation cases, the share of mitoses kept against the candidates per mm2.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tamis.proliferation.candidates import (
    COARSE,
    COARSE_CHANNELS,
    FINE,
    FINE_CHANNELS,
    CandidateScorer,
    nuclei_with_samples,
    samples_at,
)
from tamis.proliferation.fields import UM_PER_PX, Field, part_of, read_fields
from tamis.writing import replacing

UNITS = 96
NEAR_PX = 22.0  # a peak this close to a mitosis is its own; an anaphase has two
FAR_PX = 30.0
EPOCHS, BATCH = 60, 512
Float = NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="train_candidates", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fields = read_fields(options.data)
    samples, labels = training_samples(part_of(fields, "train"))
    scorer = train(samples, labels)
    with replacing(options.work / "candidates.npz") as beside, beside.open("wb") as file:
        np.savez(
            file,
            hidden=scorer.hidden.astype(np.float16),
            hidden_bias=scorer.hidden_bias,
            output=scorer.output,
            output_bias=np.float32(scorer.output_bias),
        )
    tell(part_of(fields, "validation"), scorer)


def tell(fields: Sequence[Field], scorer: CandidateScorer) -> None:
    """Print the curve."""
    kept, per_mm2 = curve(fields, scorer)
    for share in (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98):
        at = int(np.searchsorted(kept, share))
        if at < len(kept):
            print(
                f"{share:.2f} of the mitoses: {per_mm2[at]:.0f} candidates per mm2, log-odds {THRESHOLDS[at]:.2f}"
            )


THRESHOLDS = np.linspace(6, -12, 181)


def training_samples(fields: Sequence[Field]) -> tuple[Float, NDArray[np.float32]]:
    """Samples [n, INPUTS] and labels of every mitosis (at its peaks and at its centre) and of peaks far from any."""
    samples, labels = [], []
    for field in fields:
        places, seen = nuclei_with_samples(field.pixels)
        centres = np.array(field.mitoses).reshape(-1, 2)
        away = np.hypot(*(places[:, None] - centres[None]).transpose(2, 0, 1)).min(1, initial=np.inf)
        other = (away > FAR_PX) & ~np.array([field.of_a_mitosis(x, y) for x, y in places], bool)
        samples += [seen[other], seen[away < NEAR_PX / 2], samples_at(field.pixels, centres)]
        labels += [
            np.zeros(other.sum()),
            np.ones((away < NEAR_PX / 2).sum()),
            np.ones(len(centres)),
        ]
    return np.concatenate(samples), np.concatenate(labels).astype(np.float32)


def train(samples: Float, labels: NDArray[np.float32], epochs: int = EPOCHS) -> CandidateScorer:
    torch.manual_seed(0)
    x, y = torch.from_numpy(samples), torch.from_numpy(labels)
    mean, std = x.mean(0), x.std(0) + 0.05
    first, last = nn.Linear(x.shape[1], UNITS), nn.Linear(UNITS, 1)
    model = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.3), last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * (len(x) // BATCH + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    weight = torch.where(y > 0, 0.3 / y.sum(), 0.7 / (len(y) - y.sum()))
    for _ in range(steps):
        chosen = torch.multinomial(weight, BATCH, replacement=True)
        seen = (_varied(x[chosen]) - mean) / std
        loss = functional.binary_cross_entropy_with_logits(model(seen)[:, 0], y[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    hidden = first.weight.detach() / std
    return CandidateScorer(
        np.ascontiguousarray(hidden.T.numpy()),
        (first.bias.detach() - hidden @ mean).numpy(),
        last.weight.detach()[0].numpy(),
        float(last.bias.detach()),
    )


SIDES = [COARSE] * len(COARSE_CHANNELS) + [FINE] * len(FINE_CHANNELS)


def _varied(samples: Tensor) -> Tensor:
    """Mirrored, turned, and as if stained more or less, in all and in each colour."""
    count = len(samples)
    turns, mirrored = int(torch.randint(4, ())), bool(torch.rand(()) < 0.5)
    gain = torch.exp(torch.randn(count, 1) * 0.3)
    varied = []
    for part, side in zip(torch.split(samples, [s * s for s in SIDES], 1), SIDES, strict=True):
        seen = torch.rot90(part.view(count, side, side), turns, (1, 2))
        seen = seen.flip(2) if mirrored else seen
        own = torch.exp(torch.randn(count, 1) * 0.15)
        varied.append(seen.reshape(count, -1) * gain * own + torch.randn(count, 1) * 0.04)
    return torch.cat(varied, 1)


def curve(fields: Sequence[Field], scorer: CandidateScorer) -> tuple[Float, Float]:
    """At each of THRESHOLDS: the share of mitoses with a candidate within 7.5 um, and other candidates per mm2."""
    best, others, area_mm2 = [], [], 0.0
    for field in fields:
        places, scores, _ = scorer.candidates(field.pixels)
        centres = np.array(field.mitoses).reshape(-1, 2)
        away = np.hypot(*(places[:, None] - centres[None]).transpose(2, 0, 1))
        best += [scores[away[:, j] < 30].max(initial=-np.inf) for j in range(len(centres))]
        others.append(scores[away.min(1, initial=np.inf) >= 30])
        area_mm2 += field.pixels[..., 0].size * UM_PER_PX**2 / 1e6
    kept = (np.array(best)[None] >= THRESHOLDS[:, None]).mean(1)
    found = (np.concatenate(others)[None] >= THRESHOLDS[:, None]).sum(1) / area_mm2
    return kept.astype(np.float32), found.astype(np.float32)


if __name__ == "__main__":
    main()
