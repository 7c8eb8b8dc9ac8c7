"""Training images as bags: read, augmented, put through a frozen trunk once, and drawn in balanced batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import InputError
from tamis.weakseg.augment import shake_light, shake_stain, turn
from tamis.weakseg.images import read_image
from tamis.weakseg.labels import LabelledImage, mask_of
from tamis.weakseg.losses import Bags
from tamis.weakseg.maps import to_working_size
from tamis.weakseg.networks import SideOutputNetwork
from tamis.weakseg.recipe import Recipe
from tamis.writing import replacing


@dataclass(frozen=True, slots=True)
class Sample:
    """An image at working size, in memory."""

    image: NDArray[np.uint8]
    truth: NDArray[np.float32] | None
    label: LabelledImage


@dataclass(frozen=True, slots=True)
class Variant:
    """An augmented image, padded, as what is trained sees it. Sizes are those of the maps."""

    features: list[Tensor]
    """Of the stages that are not trained, in half precision."""
    inside: Tensor
    truth: Tensor | None
    flip_x: bool = False
    flip_y: bool = False

    def kept(self) -> list[Tensor]:
        """The features as a batch of one."""
        return [feature[None].float() for feature in self.features]


def load_samples(images: Sequence[LabelledImage], recipe: Recipe) -> list[Sample]:
    """Read and resize. Truth is read only where the objective needs it, so that no mask can leak into the others."""
    samples = []
    for label in images:
        stored = read_image(label.path)
        image = to_working_size(stored, label.um_per_px, recipe.um_per_px, label.path)
        truth = _truth(label, stored.shape[1::-1], image.shape[:2]) if recipe.objective.pixels else None
        samples.append(Sample(image, truth, label))
    return samples


def _truth(label: LabelledImage, size_px: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The mask at the working size `shape`, of an image that has `size_px` as stored."""
    if label.mask is None:
        if label.positive:
            raise InputError(f"{label.name} has no mask, and full supervision needs one for every positive.")
        return np.zeros(shape, np.float32)
    mask = mask_of(label.mask, size_px).astype(np.float32)
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
    positives, negatives = classes(samples)
    members = positives, negatives if recipe.negatives else positives

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


class Features:
    """What the frozen stages of a network make of images; with a folder, once for all runs.

    A file is named by the hash of the weights and the pixels, so that nothing else can be read back by mistake.
    """

    def __init__(self, network: SideOutputNetwork, folder: Path | None = None) -> None:
        self.network = network
        self.folder = folder
        self._weights = sha256(str((network.kept, type(network.trunk).__name__)).encode())
        for value in network.trunk.state_dict().values():
            self._weights.update(value.contiguous().numpy().tobytes())

    def of(self, image: NDArray[np.uint8]) -> list[Tensor]:
        """[H, W, 3] -> [C, h, w] a stage, in half precision."""
        path = None
        if self.folder is not None:
            digest = self._weights.copy()
            digest.update(str(image.shape).encode() + image.tobytes())
            path = self.folder / f"{digest.hexdigest()[:32]}.pt"
            if path.exists():
                found: list[Tensor] = torch.load(path, weights_only=True)
                return found
        with torch.inference_mode():
            made = [feature[0].half() for feature in self.network.begin(torch.from_numpy(image)[None])]
        if path is not None:
            with replacing(path) as beside:
                torch.save(made, beside)
        return made


def variants(samples: Sequence[Sample], recipe: Recipe, features: Features, seed: int) -> Bank:
    """The features of `recipe.variants` flips and stains of each image, in half precision, padded to one size."""
    height, width = common_size([sample.image for sample in samples], features.network.stride)
    shake = shake_stain if recipe.stained else shake_light
    bank = []
    for index, sample in enumerate(samples):
        generator = np.random.default_rng((seed, 3, index))
        versions = []
        for k in range(recipe.variants):
            flips = {"transpose": False, "flip_x": k % 2 == 1, "flip_y": k // 2 % 2 == 1}
            image = turn(shake(sample.image, generator) if k else sample.image, **flips)
            truth = None if sample.truth is None else turn(sample.truth, **flips)
            seen = seen_by(image, truth, height, width, features)
            versions.append(replace(seen, flip_x=flips["flip_x"], flip_y=flips["flip_y"]))
        bank.append(versions)
    return bank


def seen_by(
    image: NDArray[Any], truth: NDArray[Any] | None, height: int, width: int, features: Features
) -> Variant:
    stride = features.network.map_stride
    inside = np.zeros((height, width), bool)
    inside[: image.shape[0], : image.shape[1]] = True
    return Variant(
        features.of(padded(image, height, width)),
        _shrunk_mask(inside, stride),
        None if truth is None else shrunk_truth(padded(truth, height, width), stride),
    )


def _shrunk_mask(inside: NDArray[np.bool_], stride: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(inside[stride // 2 :: stride, stride // 2 :: stride]))


def shrunk_truth(truth: NDArray[np.float32], stride: int) -> Tensor:
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
    height, width = common_size([image for image, _ in turned], network.stride)
    images = torch.from_numpy(np.stack([padded(image, height, width) for image, _ in turned]))
    taken = []
    for image, truth in turned:
        inside = np.zeros((height, width), bool)
        inside[: image.shape[0], : image.shape[1]] = True
        small = None if truth is None else shrunk_truth(padded(truth, height, width), network.map_stride)
        taken.append(Variant([], _shrunk_mask(inside, network.map_stride), small))
    return _bags([sample.label for sample in chosen], images, taken)


def _bags(labels: Sequence[LabelledImage], images: Tensor | None, taken: Sequence[Variant]) -> Bags:
    truths = [variant.truth for variant in taken if variant.truth is not None]
    features = None
    if images is None:
        stages = [torch.stack(stage).float() for stage in zip(*(v.features for v in taken), strict=True)]
        # A third less for a step of the heads than in the layout that they were stacked in.
        features = [stage.contiguous(memory_format=torch.channels_last) for stage in stages]
    return Bags(
        images=images,
        features=features,
        inside=torch.stack([variant.inside for variant in taken]),
        positive=torch.tensor([float(label.positive) for label in labels]),
        area_low=torch.tensor([label.area_low for label in labels]),
        area_high=torch.tensor([label.area_high for label in labels]),
        truth=torch.stack(truths) if truths else None,
    )


def common_size(images: Sequence[NDArray[Any]], stride: int) -> tuple[int, int]:
    height, width = (-(-max(image.shape[axis] for image in images) // stride) * stride for axis in (0, 1))
    return height, width


def padded(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Repeating the edge, which is more like tissue than any constant."""
    rest = ((0, height - plane.shape[0]), (0, width - plane.shape[1]), (0, 0))[: plane.ndim]
    return np.pad(plane, rest, mode="edge")
