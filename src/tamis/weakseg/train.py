"""Train a network from image labels, by cross-validation or on everything.

    tamis weakseg train DATASET -o RUN --recipe cdws --folds 5 --seed 0
    tamis weakseg evaluate DATASET RUN/maps

RUN/recipe.json holds what was asked for; RUN/fold-K/checkpoint.pt and .metrics.jsonl each fold (fold-all without --folds);
RUN/maps/NAME.png the held-out probability maps (16 bits). A run that was killed goes on when the command is given again,
and with nothing else than recipe, dataset, folds and seed that it was begun with (RUN/begun.json).
Split by patient where labels.csv names them, else by image.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import UsageError
from tamis.pooling import mean
from tamis.training import FitConfig, fast_bfloat16, fit
from tamis.weakseg.bags import (
    Bank,
    Features,
    Sample,
    Variant,
    batches,
    common_size,
    load_samples,
    padded,
    seen_by,
    variants,
)
from tamis.weakseg.beginning import begin
from tamis.weakseg.images import read_image
from tamis.weakseg.labels import Dataset, folds, read_dataset, require_both_classes
from tamis.weakseg.losses import Bags, Objective, objective_loss
from tamis.weakseg.maps import write_map
from tamis.weakseg.networks import Mean, SideOutputNetwork
from tamis.weakseg.own_marks import marked_bank
from tamis.weakseg.pretrained import load_pretrained
from tamis.weakseg.recipe import RECIPES, Recipe, changed


def build(recipe: Recipe, seed: int = 0) -> SideOutputNetwork:
    torch.manual_seed(seed)
    network = SideOutputNetwork(recipe.trunk, sides=recipe.sides, width=recipe.width, fusion=recipe.fusion)
    load_pretrained(network, recipe.pretrained)
    network.keep(len(network.trunk.strides) if recipe.frozen else recipe.kept_stages)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_network(
    samples: Sequence[Sample],
    recipe: Recipe,
    folder: Path,
    *,
    bank: Bank,
    seed: int,
    precision: str,
    report: Callable[[dict[str, float]], None] | None = None,
) -> SideOutputNetwork:
    """Fit one network, going on from `folder`/checkpoint.pt if that exists; the result is `folder`/network.pt.

    `bank` as from `make_bank`.
    """
    network = _fitted(samples, recipe, folder / "checkpoint.pt", bank, seed, precision, report)
    if recipe.self_training:
        for number in range(2, 2 + recipe.rounds):
            checkpoint = folder / f"training-{number}.pt"
            network = _again(network, samples, recipe, checkpoint, bank, seed, precision, report)
    calibrate(network, samples, bank, recipe)
    torch.save(network.state_dict(), folder / "network.pt.part")
    (folder / "network.pt.part").replace(folder / "network.pt")
    return network


def _again(
    network: SideOutputNetwork,
    samples: Sequence[Sample],
    recipe: Recipe,
    checkpoint: Path,
    bank: Bank,
    seed: int,
    precision: str,
    report: Callable[[dict[str, float]], None] | None,
) -> SideOutputNetwork:
    """Trained from the start, on what the network before marks in its own training images (tamis.weakseg.own_marks)."""
    if not bank:
        raise UsageError(
            "self_training goes with a frozen trunk: set frozen=true or kept_stages=2, or self_training=0."
        )
    taught = replace(
        recipe,
        steps=recipe.self_training,
        objective=Objective(mil=False, area=False, pixels=True),
        self_training=0,
        rounds=1,
    )
    own = marked_bank(network, samples, bank)
    return _fitted(samples, taught, checkpoint, own, seed, precision, report)


def calibrate(network: SideOutputNetwork, samples: Sequence[Sample], bank: Bank, recipe: Recipe) -> None:
    """Set the offset so that above 0.5 lies, over the training positives together, as much area as their labels state.

    The constraint holds the mean probability to the area; what is above 0.5 is less where the fused map is unsure. Masks
    state areas for full supervision; without any area the offset stays 0. Nothing held out is looked at.
    """
    stated, values = [], []
    for index, sample in enumerate(samples):
        area = _stated_area(sample, recipe)
        if area is None:
            continue
        stated.append(area)
        values.append(_inside_map(network, sample, bank[index][0] if bank else None))
    if not stated:
        return
    low, high = 0.0, 1.0
    for _ in range(30):  # the share above a threshold falls with the threshold
        middle = (low + high) / 2
        share = sum(float((p > middle).float().mean()) for p in values) / len(values)
        low, high = (middle, high) if share > sum(stated) / len(stated) else (low, middle)
    threshold = min(max((low + high) / 2, 0.1), 0.9)
    network.offset.fill_(math.log((1 - threshold) / threshold))  # type: ignore[operator]


def _stated_area(sample: Sample, recipe: Recipe) -> float | None:
    if not sample.label.positive:
        return None
    if recipe.objective.pixels:
        return None if sample.truth is None else float(sample.truth.mean())
    low, high = sample.label.area_low, sample.label.area_high
    return None if not recipe.objective.area or math.isnan(low) else (low + high) / 2


def _inside_map(network: SideOutputNetwork, sample: Sample, variant: Variant | None) -> Tensor:
    """The fused probabilities of one training image, uncalibrated, outside its padding."""
    if variant is None:
        height, width = common_size([sample.image], network.stride)
        variant = seen_by(sample.image, None, height, width, Features(network))
    with torch.inference_mode():
        return network.maps(network.finish(variant.kept()))[-1][0][variant.inside]


def _fitted(
    samples: Sequence[Sample],
    recipe: Recipe,
    checkpoint: Path,
    bank: Bank,
    seed: int,
    precision: str,
    report: Callable[[dict[str, float]], None] | None,
) -> SideOutputNetwork:
    network = build(recipe, seed)
    half = {"bfloat16": True, "float32": False, "auto": fast_bfloat16()}[precision]

    def loss(model: nn.Module, bags: Bags) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, SideOutputNetwork)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if bags.images is not None:
                features = model.features(bags.images)
            else:
                assert bags.features is not None
                features = model.finish(bags.features)
            maps = model.maps(features)
        value, numbers = objective_loss(maps, bags, recipe.objective)
        v = mean(maps[-1].detach(), bags.inside)
        positive = bags.positive > 0
        numbers["area_on_positives"] = float(v[positive].mean())
        if recipe.negatives:
            numbers["area_on_negatives"] = float(v[~positive].mean())
        return value, numbers

    config = FitConfig(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=min(20, recipe.steps // 2),
        weight_decay=recipe.weight_decay,
        ema_decay=recipe.ema_decay,
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_every=200,
        metrics=checkpoint.with_suffix(".metrics.jsonl"),
        log_every=50,
    )
    fitted = fit(network, batches(samples, recipe, network, bank, seed), loss, config, report=report)
    assert isinstance(fitted.model, SideOutputNetwork)
    return fitted.model


def make_bank(samples: Sequence[Sample], recipe: Recipe, seed: int, features: Path | None = None) -> Bank:
    """Features of every variant of every sample, once for all folds; nothing where the whole trunk is trained.

    features  a folder in which they are left for, or found from, another run with the same trunk, variants and seed
    """
    if not (recipe.frozen or recipe.kept_stages):
        return []
    return variants(samples, recipe, Features(build(recipe, seed), features), seed)


def predict(network: SideOutputNetwork | Mean, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] at working size -> fused map [H, W]; padded to the stride by repeating the edge, and cut back."""
    height, width = image.shape[:2]
    enlarged = padded(image, *common_size([image], network.stride))
    with torch.inference_mode():
        fused: NDArray[np.float32] = network(torch.from_numpy(enlarged)[None])[0].float().numpy()
    return fused[:height, :width]


def cross_validate(
    dataset: Dataset,
    recipe: Recipe,
    run: Path,
    *,
    count: int,
    seed: int,
    precision: str,
    only: Sequence[int] = (),
    features: Path | None = None,
) -> None:
    """Train on all folds but one, map the images of that one; for each fold of `only` (default: all)."""
    held_out = folds(dataset, count, seed=0)  # the same folds whatever the seed of the training
    waiting = [index for index in only or range(count) if not (run / f"fold-{index}" / "finished").exists()]
    samples = load_samples(dataset.images, recipe) if waiting else []
    bank = make_bank(samples, recipe, seed, features) if waiting else []
    for index in waiting:
        kept = [i for i in range(len(samples)) if i not in set(held_out[index])]
        network = train_network(
            [samples[i] for i in kept],
            recipe,
            run / f"fold-{index}",
            bank=[bank[i] for i in kept] if bank else [],
            seed=seed,
            precision=precision,
            report=_tell,
        )
        for i in held_out[index]:
            label, sample = dataset.images[i], samples[i]
            height, width = read_image(label.path).shape[:2]
            probability = cv2.resize(
                predict(network, sample.image), (width, height), interpolation=cv2.INTER_LINEAR
            )
            write_map(probability, run / "maps" / f"{label.name}.png")
        (run / f"fold-{index}" / "finished").touch()


def train_all(
    dataset: Dataset, recipe: Recipe, run: Path, *, seed: int, precision: str, features: Path | None = None
) -> None:
    samples = load_samples(dataset.images, recipe)
    bank = make_bank(samples, recipe, seed, features)
    train_network(samples, recipe, run / "fold-all", bank=bank, seed=seed, precision=precision, report=_tell)


def _tell(line: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)


def main(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = changed(RECIPES[options.recipe], options.set)
    if options.folds == 1 or options.folds < 0:
        raise UsageError(f"--folds {options.folds}: give 2 or more, or 0 to train on everything.")
    if wrong := [fold for fold in options.fold if not 0 <= fold < options.folds]:
        raise UsageError(f"--fold {wrong[0]}: with --folds {options.folds} they are numbered from 0 on.")
    dataset = read_dataset(options.dataset)
    if recipe.negatives:
        require_both_classes(dataset)
    if options.folds:
        folds(dataset, options.folds, seed=0)  # too many are refused before the run begins
    begin(options.output, recipe, dataset, folds=options.folds, seed=options.seed)
    settings: dict[str, Any] = {
        "seed": options.seed,
        "precision": options.precision,
        "features": options.features,
    }
    if options.folds:
        unit = "patient" if dataset.patients_known else "image"
        print(
            f"{len(dataset.images)} images, {dataset.positives} with cancer; {options.folds} folds by {unit}",
            flush=True,
        )
        cross_validate(dataset, recipe, options.output, count=options.folds, only=options.fold, **settings)
        done = sum((options.output / f"fold-{index}" / "finished").exists() for index in range(options.folds))
        print(
            f"{options.output}: {done} of {options.folds} folds are done; held-out maps: {options.output / 'maps'}"
        )
    else:
        train_all(dataset, recipe, options.output, **settings)
        print(
            f"{options.output}: trained on all {len(dataset.images)} images; tamis weakseg export makes a network of it"
        )
