"""Score probability maps against masks.

    tamis weakseg evaluate DATASET MAPS [--json] [--sheet SHEET.png]

MAPS holds NAME.png (as cross-validation writes) or NAME.probability.ome.tiff (as segment writes) for the images of the
dataset; several folders, as of several seeds, are scored one by one, or with --mean as the mean of their maps. Every figure
has a 95 % bootstrap interval over images (patients where labels.csv names them) and stands beside the mask of all
foreground. The threshold is 0.5 unless --threshold names another, which must not have been chosen on these images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tamis.agreement import Estimate
from tamis.errors import InputError
from tamis.weakseg.images import read_image, read_mask
from tamis.weakseg.labels import Dataset, LabelledImage, read_dataset, with_masks
from tamis.weakseg.maps import Map, read_map
from tamis.weakseg.metrics import Scored, figures, score
from tamis.weakseg.sheet import Case, write_sheet

THRESHOLD = 0.5
ENDINGS = (".png", ".probability.ome.tiff")
SHEET_CASES = 4


Folders = Sequence[Path]
"""The mean of the maps in them is scored."""


def scored(
    dataset: Dataset, maps: Folders, threshold: float = THRESHOLD
) -> tuple[list[Scored], list[Scored]]:
    """Every image that has a truth and a map, and the same images with everything marked.

    Raises InputError where a map is missing: a figure over whatever happened to be there would mean nothing.
    """
    found, baseline = [], []
    for image in with_masks(dataset):
        probability = _map(image, maps)
        truth = _truth(image, probability)
        if probability.shape != truth.shape:
            probability = cv2.resize(probability, truth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        about: dict[str, Any] = {
            "name": image.name,
            "unit": image.patient or image.name,
            "positive": image.positive,
            "um_per_px": image.um_per_px or 1.0,
        }
        found.append(score(probability > threshold, truth, **about))
        baseline.append(score(np.ones_like(truth), truth, **about))
    if not found:
        raise InputError(f"{dataset.folder} has no masks, and maps are scored against masks.")
    return found, baseline


def _truth(image: LabelledImage, probability: Map) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A negative without a mask has an empty one."""
    return read_mask(image.mask) if image.mask is not None else np.zeros(probability.shape, bool)


def _map(image: LabelledImage, maps: Folders) -> Map:
    return np.asarray(np.mean([_one_map(image, folder) for folder in maps], axis=0, dtype=np.float32))


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
            f"{row} {estimate[figure].value:8.3f} [{estimate[figure].low:.3f}, {estimate[figure].high:.3f}]"
            for row, estimate in rows.items()
        ]
        lines.append(f"  {figure:<18} " + "   ".join(cells))
    return lines


def cases(dataset: Dataset, maps: Folders, found: Sequence[Scored], threshold: float) -> list[Case]:
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
            probability = _map(image, maps)
            figure = f"F1 {one.f1:.2f}" if one.positive else f"{one.marked:.0%} marked"
            made.append(
                Case(
                    group,
                    f"{one.name}  {figure}",
                    read_image(image.path),
                    _truth(image, probability),
                    probability,
                )
            )
    return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("maps", type=Path, nargs="+", metavar="MAPS")
    parser.add_argument("--mean", action="store_true", help="score the mean of all MAPS, as of several seeds")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.add_argument(
        "--sheet", type=Path, metavar="SHEET.png", help="worst, median and best images of the first MAPS"
    )


def main(options: argparse.Namespace) -> None:
    dataset = read_dataset(options.dataset)
    records = []
    groups = [tuple(options.maps)] if options.mean else [(maps,) for maps in options.maps]
    for maps in groups:
        name = " + ".join(map(str, maps))
        found, baseline = scored(dataset, maps, options.threshold)
        rows = {"maps": figures(found), "all foreground": figures(baseline)}
        if options.json:
            plain = {row: {k: asdict(e) for k, e in estimates.items()} for row, estimates in rows.items()}
            records.append({"maps": name, "threshold": options.threshold, "figures": plain})
        else:
            print("\n".join(report(name, rows, found)))
    if options.json:
        print(json.dumps(records[0] if len(records) == 1 else records))
    if options.sheet:
        found, _ = scored(dataset, groups[0], options.threshold)
        write_sheet(cases(dataset, groups[0], found, options.threshold), options.sheet, options.threshold)
