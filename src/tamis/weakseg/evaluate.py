"""Score probability maps against masks.

    tamis weakseg evaluate DATASET MAPS [--json] [--sheet SHEET.png]

MAPS holds NAME.png (as cross-validation writes) or NAME.probability.ome.tiff (as segment writes) for the images of the
dataset; several folders, as of several seeds, are scored one by one, or with --mean as the mean of their maps. Every figure
has a 95 % bootstrap interval over images (patients where labels.csv names them) and stands beside the mask of all
foreground. The threshold is 0.5 unless --threshold names another, which must not have been chosen on these images; or, with
--negatives 0.05 --folds 5, the lowest that marks at most 5 % of the negatives of the other four folds: chosen from image
labels alone, and never on the image that is scored.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.agreement import Estimate
from tamis.errors import InputError, UsageError
from tamis.weakseg.images import image_size_px, read_image
from tamis.weakseg.labels import (
    Dataset,
    LabelledImage,
    folds,
    mask_of,
    read_dataset,
    with_masks,
    without_masks,
)
from tamis.weakseg.maps import Map, read_map, to_working_size
from tamis.weakseg.metrics import Scored, figures, score
from tamis.weakseg.refine import RADIUS_PX, refine
from tamis.weakseg.sheet import Case, write_sheet
from tamis.writing import check_writable

THRESHOLD = 0.5
ENDINGS = (".png", ".probability.ome.tiff")
SHEET_CASES = 4
LEVELS = np.arange(1, 200) / 200
"""Thresholds that are tried."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Where the maps of a dataset lie and what is done to them before they are scored."""

    folders: tuple[Path, ...]
    """Their mean is taken."""
    refine_at_um_per_px: float | None = None
    """Refined by the image at this resolution; None leaves them as they are."""
    radius_px: int = RADIUS_PX
    """Of the refinement."""

    def of(self, image: LabelledImage) -> Map:
        mean = np.asarray(
            np.mean([_one_map(image, folder) for folder in self.folders], axis=0, dtype=np.float32)
        )
        if self.refine_at_um_per_px is None:
            return mean
        guide = to_working_size(read_image(image.path), image.um_per_px, self.refine_at_um_per_px, image.path)
        small = cv2.resize(mean, (guide.shape[1], guide.shape[0]), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(refine(small, guide, radius_px=self.radius_px), mean.shape[::-1]))


def scored(
    dataset: Dataset, maps: Maps, thresholds: Mapping[str, float], *, baseline: bool = True
) -> tuple[list[Scored], list[Scored]]:
    """Every image that has a truth and a map, and the same images with everything marked. `thresholds` by image name.

    baseline  False leaves the second list empty

    Raises InputError where a map is missing: a figure over whatever happened to be there would mean nothing.
    """
    found, everything = [], []
    for image in with_masks(dataset):
        probability = maps.of(image)
        truth = _truth(image, probability)
        if probability.shape != truth.shape:
            _require_alike(image, probability, truth)
            probability = cv2.resize(probability, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        about: dict[str, Any] = {
            "name": image.name,
            "unit": image.patient or image.name,
            "positive": image.positive,
            "um_per_px": math.nan if image.um_per_px is None else image.um_per_px,
        }
        found.append(score(probability > thresholds[image.name], truth, **about))
        if baseline:
            everything.append(score(np.ones_like(truth), truth, **about))
    if dataset.positives and not any(one.positive for one in found):
        raise InputError(
            f"{dataset.folder} has no mask of an image with cancer, and maps are scored against masks: put them in masks/."
        )
    return found, everything


def crossed_thresholds(
    dataset: Dataset, maps: Maps, count: int, marked: float
) -> tuple[dict[str, float], float]:
    """(threshold of each image, that of all images together): the lowest that marks at most the share `marked` of the
    negatives, on average; of each image, over the negatives of the other folds. Masks play no part."""
    held_out = folds(dataset, count, seed=0)
    negatives = [i for i, image in enumerate(dataset.images) if not image.positive]
    curves = {i: _marked_shares(maps.of(dataset.images[i])) for i in negatives}

    def lowest(members: Sequence[int]) -> float:
        mean = np.mean([curves[i] for i in members], axis=0)
        allowed = np.flatnonzero(mean <= marked)
        return float(LEVELS[allowed[0]]) if len(allowed) else 1.0  # above which nothing lies

    chosen: dict[str, float] = {}
    for held in held_out:
        threshold = lowest([i for i in negatives if i not in set(held)])
        chosen |= {dataset.images[i].name: threshold for i in held}
    return chosen, lowest(negatives)


def _marked_shares(probability: Map) -> NDArray[np.float64]:
    """Share of the image above each of LEVELS."""
    counts, _ = np.histogram(probability, bins=np.append(LEVELS, 2.0))
    return np.asarray(
        1 - (probability < LEVELS[0]).mean() - np.append(0, np.cumsum(counts[:-1])) / probability.size
    )


def _truth(image: LabelledImage, probability: Map) -> NDArray[np.bool_]:
    """A negative without a mask has an empty one. Raises InputError for a mask of another size than its image."""
    if image.mask is None:
        return np.zeros(probability.shape, bool)
    return mask_of(image.mask, image_size_px(image.path))


def _require_alike(image: LabelledImage, probability: Map, truth: NDArray[np.bool_]) -> None:
    """Raises InputError where map and mask cannot show one picture at two resolutions."""
    down, across = (a / b for a, b in zip(probability.shape, truth.shape, strict=True))
    if abs(down / across - 1) > 0.01 + 2 / min(
        *probability.shape, *truth.shape
    ):  # sides are rounded to pixels
        raise InputError(
            f"{image.name}: its map is {probability.shape[1]} x {probability.shape[0]} px and its mask {truth.shape[1]} x "
            f"{truth.shape[0]} px: they do not show the same picture."
        )


def _one_map(image: LabelledImage, folder: Path) -> Map:
    for ending in ENDINGS:
        path = folder / f"{image.name}{ending}"
        if path.exists():
            return read_map(path)
    raise InputError(
        f"{folder} holds no map of {image.name} ({image.name}.png or {image.name}.probability.ome.tiff): segment it, or wait "
        "until all folds are done."
    )


def report(name: str, rows: dict[str, dict[str, Estimate]], images: Sequence[Scored]) -> list[str]:
    positives = sum(image.positive for image in images)
    lines = [f"{name}: {len(images)} images, {positives} with cancer; value [95 % interval over images]"]
    for figure in next(iter(rows.values())):
        cells = [
            f"{row} {estimate[figure].value:8.3f} {estimate[figure].interval()}"
            for row, estimate in rows.items()
        ]
        lines.append(f"  {figure:<18} " + "   ".join(cells))
    return lines


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """As JSON has it, which knows no NaN."""
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def cases(dataset: Dataset, maps: Maps, found: Sequence[Scored]) -> list[Case]:
    """Worst, median and best positives by their own F1, and the negatives with the most marked."""
    by_name = {image.name: image for image in dataset.images}
    positives = sorted((s for s in found if s.positive), key=lambda s: s.f1)
    negatives = sorted((s for s in found if not s.positive), key=lambda s: -s.marked)
    middle = max(0, len(positives) // 2 - SHEET_CASES // 2)
    groups = (
        ("worst", positives[:SHEET_CASES]),
        ("median", positives[middle : middle + SHEET_CASES]),
        ("best", positives[-SHEET_CASES:]),
        ("no cancer, most marked", negatives[:SHEET_CASES]),
    )
    made = []
    for group, members in groups:
        for one in members:
            image = by_name[one.name]
            probability = maps.of(image)
            figure = f"F1 {one.f1:.2f}" if one.positive else f"{one.marked:.0%} marked"
            made.append(
                Case(
                    group,
                    image.name,
                    f"{one.name}  {figure}",
                    read_image(image.path),
                    _truth(image, probability),
                    probability,
                )
            )
    return made


def main(options: argparse.Namespace) -> None:
    if options.folds < 2:
        raise UsageError(f"--folds {options.folds}: give 2 or more.")
    if options.sheet is not None:
        check_writable(options.sheet)
    dataset = read_dataset(options.dataset)
    if dropped := without_masks(dataset.images):
        names = ", ".join(image.name for image in dropped)
        print(
            f"tamis: {len(dropped)} images with cancer have no mask and are not scored: {names}.",
            file=sys.stderr,
        )
    groups = [tuple(options.maps)] if options.mean else [(folder,) for folder in options.maps]
    records = []
    for index, folders in enumerate(groups):
        maps, name = Maps(folders, options.refine), " + ".join(map(str, folders))
        thresholds, overall = (
            dict.fromkeys((i.name for i in dataset.images), options.threshold),
            options.threshold,
        )
        if options.negatives is not None:
            thresholds, overall = crossed_thresholds(dataset, maps, options.folds, options.negatives)
        found, baseline = scored(dataset, maps, thresholds)
        rows = {"maps": figures(found), "all foreground": figures(baseline)}
        if options.json:
            plain = {row: {k: _plain(e) for k, e in estimates.items()} for row, estimates in rows.items()}
            records.append({"maps": name, "threshold": overall, "figures": plain})
        else:
            used = sorted({round(value, 3) for value in thresholds.values()})
            print("\n".join(report(f"{name}, above {', '.join(map(str, used))}", rows, found)))
        if options.sheet and index == 0:
            write_sheet(cases(dataset, maps, found), options.sheet, thresholds)
    if options.json:
        print(json.dumps(records[0] if len(records) == 1 else records))
