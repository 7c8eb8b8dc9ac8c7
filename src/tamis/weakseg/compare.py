"""Configurations side by side: every seed scored, their means with intervals, and each row's lead over the next.

    python -m tamis.weakseg.compare DATASET full=RUN,RUN cdws=RUN,RUN dws=RUN,RUN [--nested]

RUN is what cross-validation with one seed wrote (RUN/maps). A figure of a row is the mean over its seeds; images are drawn
again for its 95 % interval, the same ones for all seeds, and the spread over seeds stands beside it. The difference of two
rows is drawn pairwise: the same images for both, so that an image which is hard for every method does not blur it.

Treatments of the maps:
    as they are   above 0.5
    refined       guided filter, above 0.5
    negatives     guided filter; above the lowest threshold that marks at most 3 % of the negatives of the other folds
    nested        the same, but radius and share are chosen for each fold by the pooled F1 of the *other* folds, so that no
                  mask of a fold has a say in what is done to it
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamis.agreement import Estimate, bootstrap
from tamis.errors import UsageError
from tamis.weakseg.evaluate import LEVELS, THRESHOLD, Maps, crossed_thresholds, scored
from tamis.weakseg.images import read_mask
from tamis.weakseg.labels import Dataset, folds, read_dataset
from tamis.weakseg.metrics import FIGURES, Scored, divided, unit_terms
from tamis.weakseg.refine import RADIUS_PX

TREATMENTS = ("as they are", "refined", "negatives", "nested")
RESAMPLES = 2000
SHARE = 0.03
RADII_PX = (None, 12, 16, 20, 24, 32)
"""Tried by `nested`; None leaves maps as they are."""
SHARES = (0.01, 0.02, 0.03, 0.05, 0.08)
COLUMNS = (
    "pooled_f1",
    "f1_positives",
    "area_on_negatives",
    "f1_negatives",
    "iou_positives",
    "hd95_um",
    "area_error",
)

Curves = NDArray[np.float64]
"""[images, 3, LEVELS]: true positives and marked pixels above each threshold; and the pixels of the truth, of all."""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    seeds: list[list[Scored]]


def curves(dataset: Dataset, maps: Maps) -> Curves:
    found = np.zeros((len(dataset.images), 4, len(LEVELS)))
    bins = np.concatenate([[-1.0], LEVELS, [2.0]])
    for index, image in enumerate(dataset.images):
        probability = maps.of(image)
        truth = read_mask(image.mask) if image.mask is not None else np.zeros(probability.shape, bool)
        for row, values in ((0, probability[truth]), (1, probability.ravel())):
            counts, _ = np.histogram(values, bins=bins)
            found[index, row] = values.size - np.cumsum(counts)[:-1]
        found[index, 2], found[index, 3] = truth.sum(), truth.size
    return found


def nested_settings(
    dataset: Dataset,
    by_radius: Sequence[Curves],
    held_out: Sequence[Sequence[int]],
    shares: Sequence[float] = SHARES,
) -> list[tuple[int, float, float]]:
    """(index of the radius, share, threshold) of each fold: what gives the best pooled F1 on the images of the others."""
    negative = np.array([not image.positive for image in dataset.images])
    chosen = []
    for held in held_out:
        others = np.ones(len(negative), bool)
        others[list(held)] = False
        best = (-1.0, 0, 0.0, 0.0)
        for radius, found in enumerate(by_radius):
            marked = (found[:, 1] / found[:, 3])[others & negative].mean(0)
            sums = found[others].sum(0)
            for share in shares:
                allowed = np.flatnonzero(marked <= share)
                f1, threshold = 0.0, 1.0  # above which nothing lies
                if len(allowed):
                    hits, found_px, true_px = sums[:3, allowed[0]]
                    f1, threshold = float(2 * hits / (found_px + true_px)), float(LEVELS[allowed[0]])
                best = max(best, (f1, radius, share, threshold))
        chosen.append(best[1:])
    return chosen


def nested(dataset: Dataset, folder: Path, um_per_px: float, count: int) -> tuple[list[Scored], str]:
    """Every image scored with what the other folds chose, and what that was."""
    options = [Maps((folder,), None if r is None else um_per_px, r or RADIUS_PX) for r in RADII_PX]
    held_out = folds(dataset, count, seed=0)
    settings = nested_settings(dataset, [curves(dataset, maps) for maps in options], held_out)
    images: list[Scored] = []
    for held, (radius, _, threshold) in zip(held_out, settings, strict=True):
        part = Dataset(dataset.folder, tuple(dataset.images[i] for i in held))
        thresholds = {image.name: threshold for image in part.images}
        images += scored(part, options[radius], thresholds, baseline=False)[0]
    told = "; ".join(
        f"{'no filter' if RADII_PX[r] is None else f'{RADII_PX[r]} px'}, {share:.0%}"
        for r, share, _ in settings
    )
    return images, told


def estimate(rows: Sequence[Sequence[Sequence[Scored]]], figure: str) -> Estimate:
    """The mean over seeds of a row's figure, or, of two rows, the first's minus the second's; interval over units."""
    tables = [[unit_terms(images, FIGURES[figure]) for images in seeds] for seeds in rows]
    # Rows may have different numbers of seeds: one [2] each, laid end to end.
    flat = [terms for seeds in tables for terms in seeds]
    units = [np.stack([terms[unit] for terms in flat]) for unit in flat[0]]
    ends = np.cumsum([len(seeds) for seeds in rows])

    def value(drawn: Sequence[NDArray[np.float64]]) -> float:
        ratios = [divided(sums) for sums in np.sum(drawn, axis=0)]
        means = [float(np.mean(part)) for part in np.split(np.array(ratios), ends[:-1])]
        return means[0] - sum(means[1:])

    return bootstrap(units, value, generator=np.random.default_rng(0), resamples=RESAMPLES)


def spread(seeds: Sequence[Sequence[Scored]], figure: str) -> float:
    """Standard deviation over seeds; NaN for one."""
    values = [FIGURES[figure](images) for images in seeds]
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def told(rows: Sequence[Row]) -> Iterator[str]:
    """A table, and the pairs beneath it."""
    yield "| | " + " | ".join(COLUMNS) + " | seeds |"
    yield "|" + "---|" * (len(COLUMNS) + 2)
    for row in rows:
        cells = []
        for figure in COLUMNS:
            found, over = estimate([row.seeds], figure), spread(row.seeds, figure)
            digits = 0 if figure == "hd95_um" else 3
            interval = f" {found.interval(f'.{digits}f')}"
            cells.append(
                f"{found.value:.{digits}f}{interval}" + ("" if math.isnan(over) else f" ± {over:.{digits}f}")
            )
        yield f"| {row.name} | " + " | ".join(cells) + f" | {len(row.seeds)} |"
    for first, second in pairwise(rows):
        for figure in ("pooled_f1", "f1_positives"):
            found = estimate([first.seeds, second.seeds], figure)
            yield (
                f"{first.name} - {second.name}, {figure}: {found.value:+.3f} {found.interval('+.3f')} "
                f"over {found.n} units"
            )


def _rows(
    dataset: Dataset, runs: Sequence[tuple[str, list[Path]]], treatment: str, options: argparse.Namespace
) -> list[Row]:
    rows: list[Row] = []
    baseline: list[Scored] = []
    for name, folders in runs:
        seeds = []
        for run in folders:
            folder = run / "maps"
            if treatment == "nested":
                images, chosen = nested(dataset, folder, options.refine, options.folds)
                print(f"{run}: {chosen}")
            else:
                plain = treatment == "as they are"
                maps = Maps((folder,), None if plain else options.refine)
                thresholds = dict.fromkeys((image.name for image in dataset.images), THRESHOLD)
                if treatment == "negatives":
                    thresholds, _ = crossed_thresholds(dataset, maps, options.folds, SHARE)
                images, everything = scored(dataset, maps, thresholds, baseline=not baseline)
                baseline = baseline or everything
            seeds.append(images)
        rows.append(Row(name, seeds))
    if baseline:
        rows.append(Row("all foreground", [baseline]))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("rows", nargs="+", metavar="NAME=RUN[,RUN...]", help="best first, as expected")
    parser.add_argument(
        "--refine", type=float, default=1.24, metavar="UM", help="um per px of the guided filter"
    )
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--nested", action="store_true", help="the last two treatments as well")
    options = parser.parse_args(arguments)
    dataset = read_dataset(options.dataset)
    runs = []
    for row in options.rows:
        name, sign, folders = row.partition("=")
        if not sign:
            raise UsageError(f"{row}: write NAME=RUN, or NAME=RUN,RUN for several seeds.")
        runs.append((name, [Path(folder) for folder in folders.split(",")]))
    for treatment in TREATMENTS[: 4 if options.nested else 2]:
        print(f"\n{treatment}")
        print("\n".join(told(_rows(dataset, runs, treatment, options))), flush=True)


if __name__ == "__main__":
    main()
