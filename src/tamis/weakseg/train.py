"""Train a network from image labels, by cross-validation or on everything.

    tamis weakseg train DATASET -o RUN --recipe cdws --folds 5 --seed 0
    tamis weakseg evaluate DATASET RUN/maps

RUN/recipe.json holds what was asked for; RUN/fold-K/{checkpoint.pt, metrics.jsonl} each fold (fold-all without --folds);
RUN/maps/NAME.png the held-out probability maps (16 bits). A run that was killed goes on when the command is given again.
Split by patient where labels.csv names them, else by image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import InputError, UsageError
from tamis.training import FitConfig, fit
from tamis.weakseg.augment import shake_light, shake_stain, turn
from tamis.weakseg.images import read_image, read_mask
from tamis.weakseg.labels import Dataset, LabelledImage, folds, read_dataset, require_both_classes
from tamis.weakseg.losses import Bags, Objective, objective_loss
from tamis.weakseg.maps import to_working_size, write_map
from tamis.weakseg.networks import SideOutputNetwork
from tamis.weakseg.pretrained import load_pretrained
from tamis.writing import replacing


@dataclass(frozen=True, slots=True)
class Recipe:
    """Network, objective and schedule: everything that a result depends on, besides dataset and seed."""

    trunk: str = "vgg"
    sides: int = 3
    fusion: str = "fixed"
    objective: Objective = field(default_factory=Objective)
    um_per_px: float | None = 2.0
    """Working resolution; None takes images as they are (where no um/px exists, as in many radiographs)."""
    frozen_stages: int = 0
    """First stages of the trunk that stay as they were pretrained."""
    epochs: float = 15.0
    """Images seen, in sizes of the training set; classes alternate, so the rarer one is seen more than once."""
    batch: int = 4
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    ema_decay: float = 0.97
    stained: bool = True
    """Augment as stained tissue; otherwise contrast and brightness."""
    pretrained: str = "package"


RECIPES = {
    "cdws": Recipe(),
    "full": Recipe(objective=Objective(mil=False, area=False, pixels=True)),
    "dws": Recipe(objective=Objective(area=False)),
    "mil": Recipe(sides=1, objective=Objective(area=False)),
}
"""Constrained DWS-MIL; the same network with pixel truth; without the areas; one output and image labels alone."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image at working size, in memory."""

    image: NDArray[np.uint8]
    truth: NDArray[np.float32] | None
    label: LabelledImage


def load_samples(images: Sequence[LabelledImage], recipe: Recipe) -> list[Sample]:
    """Read and resize. Truth is read only where the objective needs it, so that no mask can leak into the others."""
    samples = []
    for label in images:
        image = to_working_size(read_image(label.path), label.um_per_px, recipe.um_per_px, label.path)
        truth = None
        if recipe.objective.pixels:
            truth = _truth(label, image.shape[:2])
        samples.append(Sample(image, truth, label))
    return samples


def _truth(label: LabelledImage, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if label.mask is None:
        if label.positive:
            raise InputError(f"{label.name} has no mask, and full supervision needs one for every positive.")
        return np.zeros(shape, np.float32)
    mask = read_mask(label.mask).astype(np.float32)
    return cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


def batches(
    samples: Sequence[Sample], recipe: Recipe, stride: int, seed: int
) -> Callable[[int], Iterator[Bags]]:
    """Half positives, half negatives, each class in its own shuffled rounds; every batch depends on its step alone."""
    classes = [
        [i for i, s in enumerate(samples) if s.label.positive is positive] for positive in (True, False)
    ]

    def stream(first: int) -> Iterator[Bags]:
        step = first
        while True:
            generator = np.random.default_rng((seed, 2, step))
            chosen = [
                samples[_drawn(classes[k % 2], (step * recipe.batch + k) // 2, (seed, k % 2))]
                for k in range(recipe.batch)
            ]
            yield _assemble(chosen, recipe, stride, generator)
            step += 1

    return stream


def _drawn(members: Sequence[int], position: int, seed: tuple[int, ...]) -> int:
    """Member at `position` of an endless sequence of shuffled rounds."""
    lap, place = divmod(position, len(members))
    return members[np.random.default_rng((*seed, lap)).permutation(len(members))[place]]


def _assemble(chosen: Sequence[Sample], recipe: Recipe, stride: int, generator: np.random.Generator) -> Bags:
    transpose = bool(generator.integers(2))  # of the whole batch, so that long sides lie together
    shake = shake_stain if recipe.stained else shake_light
    images, truths = [], []
    for sample in chosen:
        flips = {
            "transpose": transpose,
            "flip_x": bool(generator.integers(2)),
            "flip_y": bool(generator.integers(2)),
        }
        images.append(turn(shake(sample.image, generator), **flips))
        if sample.truth is not None:
            truths.append(turn(sample.truth, **flips))
    height, width = (-(-max(i.shape[a] for i in images) // stride) * stride for a in (0, 1))
    stacked = np.stack([_padded(image, height, width) for image in images])
    inside = np.stack([_padded(np.ones(image.shape[:2], bool), height, width) for image in images])
    labels = [sample.label for sample in chosen]
    return Bags(
        images=torch.from_numpy(stacked),
        inside=torch.from_numpy(inside),
        positive=torch.tensor([float(label.positive) for label in labels]),
        area_low=torch.tensor([label.area_low for label in labels]),
        area_high=torch.tensor([label.area_high for label in labels]),
        truth=torch.from_numpy(np.stack([_padded(t, height, width) for t in truths])) if truths else None,
    )


def _padded(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    rest = ((0, height - plane.shape[0]), (0, width - plane.shape[1]), (0, 0))[: plane.ndim]
    return np.pad(plane, rest, mode="constant" if plane.dtype == bool else "edge")


def build(recipe: Recipe) -> SideOutputNetwork:
    network = SideOutputNetwork(recipe.trunk, sides=recipe.sides, fusion=recipe.fusion)
    load_pretrained(network, recipe.pretrained)
    stages = list(network.trunk.stages if recipe.trunk == "vgg" else network.trunk.groups)  # type: ignore[union-attr]
    for stage in stages[: recipe.frozen_stages]:
        stage.requires_grad_(False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train_network(
    samples: Sequence[Sample],
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    precision: str,
    report: Callable[[dict[str, float]], None] | None = None,
) -> SideOutputNetwork:
    """Fit one network, going on from `folder`/checkpoint.pt if that exists."""
    torch.manual_seed(seed)
    network = build(recipe)
    steps = max(2, round(recipe.epochs * len(samples) / recipe.batch))
    half = {"bfloat16": True, "float32": False, "auto": fast_bfloat16()}[precision]

    def loss(model: nn.Module, bags: Bags) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            maps = model.maps(bags.images)  # type: ignore[operator]
        value, numbers = objective_loss(maps, bags, recipe.objective)
        v = (maps[-1].detach() * bags.inside).sum((1, 2)) / bags.inside.sum((1, 2))
        positive = bags.positive > 0
        numbers["area_on_positives"] = float(v[positive].mean())
        numbers["area_on_negatives"] = float(v[~positive].mean())
        return value, numbers

    config = FitConfig(
        steps=steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=min(20, steps // 2),
        weight_decay=recipe.weight_decay,
        ema_decay=recipe.ema_decay,
        beta2=0.99,
        seed=seed,
        checkpoint=folder / "checkpoint.pt",
        checkpoint_every=100,
        metrics=folder / "metrics.jsonl",
        log_every=25,
    )
    fitted = fit(network, batches(samples, recipe, network.stride, seed), loss, config, report=report)
    assert isinstance(fitted.model, SideOutputNetwork)
    return fitted.model


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware: twice as fast here, and slower than float32 elsewhere."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def predict(network: SideOutputNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] at working size -> fused map [H, W]; padded to the stride by repeating the edge, and cut back."""
    height, width = image.shape[:2]
    stride = network.stride
    padded = _padded(image, -(-height // stride) * stride, -(-width // stride) * stride)
    with torch.inference_mode():
        fused: NDArray[np.float32] = network(torch.from_numpy(padded)[None])[0].float().numpy()
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
) -> None:
    """Train on all folds but one, map the images of that one; for each fold of `only` (default: all)."""
    held_out = folds(dataset, count, seed=0)  # the same folds whatever the seed of the training
    for index in only or range(count):
        folder, held = run / f"fold-{index}", held_out[index]
        maps = [run / "maps" / f"{dataset.images[i].name}.png" for i in held]
        if (folder / "finished").exists() and all(path.exists() for path in maps):
            continue
        kept = [image for i, image in enumerate(dataset.images) if i not in set(held)]
        network = train_network(
            load_samples(kept, recipe), recipe, folder, seed=seed, precision=precision, report=_tell
        )
        for i, path in zip(held, maps, strict=True):
            label = dataset.images[i]
            pixels = read_image(label.path)
            probability = predict(
                network, to_working_size(pixels, label.um_per_px, recipe.um_per_px, label.path)
            )
            size = (pixels.shape[1], pixels.shape[0])
            write_map(cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR), path)
        (folder / "finished").touch()


def train_all(dataset: Dataset, recipe: Recipe, run: Path, *, seed: int, precision: str) -> None:
    train_network(
        load_samples(dataset.images, recipe),
        recipe,
        run / "fold-all",
        seed=seed,
        precision=precision,
        report=_tell,
    )


def _tell(line: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)


def recipe_from(text: str) -> Recipe:
    """A recipe from JSON, as `store` wrote it."""
    stored = json.loads(text)
    return Recipe(**(stored | {"objective": Objective(**stored["objective"])}))


def store(recipe: Recipe, run: Path) -> None:
    """RUN/recipe.json; refuses a run that was begun with another recipe."""
    path = run / "recipe.json"
    if path.exists() and recipe_from(path.read_text(encoding="utf-8")) != recipe:
        raise UsageError(f"{run} holds a run with another recipe ({path}): give another folder with -o.")
    with replacing(path) as beside:
        beside.write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="RUN")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="cdws")
    parser.add_argument(
        "--folds", type=int, default=0, metavar="K", help="cross-validate; 0 trains on everything"
    )
    parser.add_argument(
        "--fold", type=int, action="append", default=[], metavar="I", help="only this fold, from 0"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 leaves its default")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value for a field of the recipe or its objective, as JSON: epochs=30, trunk=lite0, pooling=top_mean",
    )


def changed(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with fields of its own or of its objective replaced. Raises UsageError for one that does not exist."""
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if name in Objective.__dataclass_fields__:
            recipe = replace(recipe, objective=replace(recipe.objective, **{name: value}))
        elif name in Recipe.__dataclass_fields__ and name != "objective":
            recipe = replace(recipe, **{name: value})
        else:
            names = ", ".join([*Recipe.__dataclass_fields__, *Objective.__dataclass_fields__])
            raise UsageError(f"--set {assignment}: a recipe has no field {name!r}; it has {names}.")
    return recipe


def main(options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = changed(RECIPES[options.recipe], options.set)
    dataset = read_dataset(options.dataset)
    require_both_classes(dataset)
    store(recipe, options.output)
    settings: dict[str, Any] = {"seed": options.seed, "precision": options.precision}
    if options.folds:
        unit = "patient" if dataset.patients_known else "image"
        print(
            f"{len(dataset.images)} images, {dataset.positives} with cancer; {options.folds} folds by {unit}",
            flush=True,
        )
        cross_validate(dataset, recipe, options.output, count=options.folds, only=options.fold, **settings)
    else:
        train_all(dataset, recipe, options.output, **settings)


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(_parser)
    main(_parser.parse_args())
