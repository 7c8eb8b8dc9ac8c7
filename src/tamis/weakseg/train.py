"""Train a network from image labels, by cross-validation or on everything.

    tamis weakseg train DATASET -o RUN --recipe cdws --folds 5 --seed 0
    tamis weakseg evaluate DATASET RUN/maps

RUN/recipe.json holds what was asked for; RUN/fold-K/checkpoint.pt and .metrics.jsonl each fold (fold-all without --folds);
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
from tamis.pooling import mean
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

    trunk: str = "lite0"
    sides: int = 3
    width: int = 32
    """Channels of the heads; 0 for plain 1x1 side outputs, which need a trunk that is trained."""
    fusion: str = "fixed"
    objective: Objective = field(default_factory=Objective)
    um_per_px: float | None = 1.6
    """Working resolution; None takes images as they are (where no um/px exists, as in many radiographs)."""
    frozen: bool = True
    """Whether the trunk stays as it was pretrained: its features are then computed once, for `variants` of each image."""
    variants: int = 6
    """Augmented versions of each image whose features are kept, the image itself among them."""
    steps: int = 400
    batch: int = 6
    """Half of it positives, half negatives."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    ema_decay: float = 0.98
    stained: bool = True
    """Augment as stained tissue; otherwise contrast and brightness."""
    pretrained: str = "package"
    self_training: int = 0
    """Steps of a second training on the first one's maps of the training images, cut at the stated area; 0 for none."""


RECIPES = {
    "cdws": Recipe(),
    "full": Recipe(objective=Objective(mil=False, area=False, pixels=True)),
    "dws": Recipe(objective=Objective(area=False)),
    "mil": Recipe(sides=1, objective=Objective(area=False)),
}
"""Constrained DWS-MIL; the same network with pixel truth; without the areas; one output and image labels alone."""
VGG = {"trunk": "vgg", "width": 0, "frozen": False, "learning_rate": 2e-4, "batch": 4, "weight_decay": 0.01}
"""What `--set trunk=vgg` brings along: the paper's own network, trained whole."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image at working size, in memory."""

    image: NDArray[np.uint8]
    truth: NDArray[np.float32] | None
    label: LabelledImage


@dataclass(frozen=True, slots=True)
class Variant:
    """An augmented image, padded, as the heads of a frozen trunk see it. Sizes are those of the maps."""

    features: list[Tensor]
    inside: Tensor
    truth: Tensor | None


def load_samples(images: Sequence[LabelledImage], recipe: Recipe) -> list[Sample]:
    """Read and resize. Truth is read only where the objective needs it, so that no mask can leak into the others."""
    samples = []
    for label in images:
        image = to_working_size(read_image(label.path), label.um_per_px, recipe.um_per_px, label.path)
        truth = _truth(label, image.shape[:2]) if recipe.objective.pixels else None
        samples.append(Sample(image, truth, label))
    return samples


def _truth(label: LabelledImage, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if label.mask is None:
        if label.positive:
            raise InputError(f"{label.name} has no mask, and full supervision needs one for every positive.")
        return np.zeros(shape, np.float32)
    mask = read_mask(label.mask).astype(np.float32)
    return cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)


# batches


Bank = list[list[Variant]]
"""The variants of each sample; empty where the trunk is trained."""


def classes(samples: Sequence[Sample]) -> tuple[list[int], list[int]]:
    """Indices of positives and of negatives."""
    positive = [i for i, sample in enumerate(samples) if sample.label.positive]
    return positive, [i for i in range(len(samples)) if i not in set(positive)]


def drawn(members: Sequence[int], position: int, seed: tuple[int, ...]) -> int:
    """Member at `position` of an endless sequence of shuffled rounds."""
    lap, place = divmod(position, len(members))
    return members[np.random.default_rng((*seed, lap)).permutation(len(members))[place]]


def batches(
    samples: Sequence[Sample], recipe: Recipe, network: SideOutputNetwork, bank: Bank, seed: int
) -> Callable[[int], Iterator[Bags]]:
    """Half positives, half negatives, each class in its own shuffled rounds; every batch depends on its step alone."""
    members = classes(samples)

    def stream(first: int) -> Iterator[Bags]:
        step = first
        while True:
            generator = np.random.default_rng((seed, 2, step))
            chosen = [
                drawn(members[k % 2], (step * recipe.batch + k) // 2, (seed, k % 2))
                for k in range(recipe.batch)
            ]
            labels = [samples[i].label for i in chosen]
            if bank:
                taken = [bank[i][generator.integers(recipe.variants)] for i in chosen]
                yield _bags(labels, None, taken)
            else:
                yield _augmented([samples[i] for i in chosen], recipe, network, generator)
            step += 1

    return stream


def variants(samples: Sequence[Sample], recipe: Recipe, network: SideOutputNetwork, seed: int) -> Bank:
    """The features of `recipe.variants` flips and stains of each image, in half precision, padded to one size."""
    height, width = _common_size([sample.image for sample in samples], network.stride)
    shake = shake_stain if recipe.stained else shake_light
    bank = []
    for index, sample in enumerate(samples):
        generator = np.random.default_rng((seed, 3, index))
        versions = []
        for k in range(recipe.variants):
            flips = {"transpose": False, "flip_x": k % 2 == 1, "flip_y": k // 2 % 2 == 1}
            image = turn(shake(sample.image, generator) if k else sample.image, **flips)
            truth = None if sample.truth is None else turn(sample.truth, **flips)
            versions.append(_seen(image, truth, height, width, network))
        bank.append(versions)
    return bank


def _seen(
    image: NDArray[Any], truth: NDArray[Any] | None, height: int, width: int, network: SideOutputNetwork
) -> Variant:
    with torch.inference_mode():
        features = network.features(torch.from_numpy(_padded(image, height, width))[None])
    inside = np.zeros((height, width), bool)
    inside[: image.shape[0], : image.shape[1]] = True
    return Variant(
        [feature[0].half() for feature in features],
        _shrunk_mask(inside, network.map_stride),
        None if truth is None else _shrunk_truth(_padded(truth, height, width), network.map_stride),
    )


def _shrunk_mask(inside: NDArray[np.bool_], stride: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(inside[stride // 2 :: stride, stride // 2 :: stride]))


def _shrunk_truth(truth: NDArray[np.float32], stride: int) -> Tensor:
    return nn.functional.avg_pool2d(torch.from_numpy(truth)[None], stride)[0]


def _augmented(
    chosen: Sequence[Sample], recipe: Recipe, network: SideOutputNetwork, generator: np.random.Generator
) -> Bags:
    transpose = bool(generator.integers(2))  # of the whole batch, so that long sides lie together
    shake = shake_stain if recipe.stained else shake_light
    turned = []
    for sample in chosen:
        flips = {
            "transpose": transpose,
            "flip_x": bool(generator.integers(2)),
            "flip_y": bool(generator.integers(2)),
        }
        truth = None if sample.truth is None else turn(sample.truth, **flips)
        turned.append((turn(shake(sample.image, generator), **flips), truth))
    height, width = _common_size([image for image, _ in turned], network.stride)
    images = torch.from_numpy(np.stack([_padded(image, height, width) for image, _ in turned]))
    taken = []
    for image, truth in turned:
        inside = np.zeros((height, width), bool)
        inside[: image.shape[0], : image.shape[1]] = True
        small = None if truth is None else _shrunk_truth(_padded(truth, height, width), network.map_stride)
        taken.append(Variant([], _shrunk_mask(inside, network.map_stride), small))
    return _bags([sample.label for sample in chosen], images, taken)


def _bags(labels: Sequence[LabelledImage], images: Tensor | None, taken: Sequence[Variant]) -> Bags:
    truths = [variant.truth for variant in taken if variant.truth is not None]
    features = None
    if images is None:
        features = [torch.stack(stage).float() for stage in zip(*(v.features for v in taken), strict=True)]
    return Bags(
        images=images,
        features=features,
        inside=torch.stack([variant.inside for variant in taken]),
        positive=torch.tensor([float(label.positive) for label in labels]),
        area_low=torch.tensor([label.area_low for label in labels]),
        area_high=torch.tensor([label.area_high for label in labels]),
        truth=torch.stack(truths) if truths else None,
    )


def _common_size(images: Sequence[NDArray[Any]], stride: int) -> tuple[int, int]:
    height, width = (-(-max(image.shape[axis] for image in images) // stride) * stride for axis in (0, 1))
    return height, width


def _padded(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Repeating the edge, which is more like tissue than any constant."""
    rest = ((0, height - plane.shape[0]), (0, width - plane.shape[1]), (0, 0))[: plane.ndim]
    return np.pad(plane, rest, mode="edge")


# training


def build(recipe: Recipe, seed: int = 0) -> SideOutputNetwork:
    torch.manual_seed(seed)
    network = SideOutputNetwork(recipe.trunk, sides=recipe.sides, width=recipe.width, fusion=recipe.fusion)
    load_pretrained(network, recipe.pretrained)
    if recipe.frozen:
        network.trunk.requires_grad_(False)
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
    """Fit one network, going on from `folder`/checkpoint.pt if that exists. `bank` as from `make_bank`."""
    network = _fitted(samples, recipe, folder / "checkpoint.pt", bank, seed, precision, report)
    if not recipe.self_training:
        return network
    if not recipe.frozen:
        raise UsageError("self_training goes with a frozen trunk: set frozen=true, or self_training=0.")
    second = replace(
        recipe,
        steps=recipe.self_training,
        objective=Objective(mil=False, area=False, pixels=True),
        self_training=0,
    )
    own = [
        [replace(variant, truth=own_truth(network, variant, sample.label)) for variant in versions]
        for sample, versions in zip(samples, bank, strict=True)
    ]
    return _fitted(samples, second, folder / "second.pt", own, seed, precision, report)


def own_truth(network: SideOutputNetwork, variant: Variant, label: LabelledImage) -> Tensor:
    """What the network itself would mark, 0 or 1 [h, w]: as much of a positive as its label says, nothing of a negative.

    With an interval the network's own area is kept where it lies inside; without an area its threshold of 0.5 is.
    """
    if not label.positive:
        return torch.zeros(variant.inside.shape)
    with torch.inference_mode():
        p = network.maps([feature[None].float() for feature in variant.features])[-1][0]
    inside = p[variant.inside]
    area = float((inside > 0.5).float().mean())
    if label.area_low == label.area_low:  # not NaN
        area = min(max(area, label.area_low), label.area_high)
    cut = torch.quantile(inside, 1 - area)
    return ((p >= cut) & variant.inside).float()


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
    half = {"bfloat16": True, "float32": False, "auto": fast_bfloat16() and not recipe.frozen}[precision]

    def loss(model: nn.Module, bags: Bags) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, SideOutputNetwork)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = bags.features if bags.images is None else model.features(bags.images)
            assert features is not None
            maps = model.maps(features)
        value, numbers = objective_loss(maps, bags, recipe.objective)
        v = mean(maps[-1].detach(), bags.inside)
        positive = bags.positive > 0
        numbers["area_on_positives"] = float(v[positive].mean())
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


def make_bank(samples: Sequence[Sample], recipe: Recipe, seed: int) -> Bank:
    """Features of every variant of every sample, once for all folds; nothing where the trunk is trained."""
    return variants(samples, recipe, build(recipe, seed), seed) if recipe.frozen else []


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware: convolutions are then twice as fast, elsewhere slower."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def predict(network: SideOutputNetwork, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 3] at working size -> fused map [H, W]; padded to the stride by repeating the edge, and cut back."""
    height, width = image.shape[:2]
    padded = _padded(image, *_common_size([image], network.stride))
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
    waiting = [index for index in only or range(count) if not (run / f"fold-{index}" / "finished").exists()]
    samples = load_samples(dataset.images, recipe) if waiting else []
    bank = make_bank(samples, recipe, seed) if waiting else []
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


def train_all(dataset: Dataset, recipe: Recipe, run: Path, *, seed: int, precision: str) -> None:
    samples = load_samples(dataset.images, recipe)
    bank = make_bank(samples, recipe, seed)
    train_network(samples, recipe, run / "fold-all", bank=bank, seed=seed, precision=precision, report=_tell)


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
        help="another value for a field of the recipe or its objective, as JSON: steps=800, trunk=vgg, pooling=top_mean",
    )


def changed(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """The recipe with fields of its own or of its objective replaced. Raises UsageError for one that does not exist."""
    if "trunk=vgg" in assignments:
        recipe = replace(recipe, **VGG)  # type: ignore[arg-type]
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
