"""Real fields with known mitoses: AMi-Br patches (MIDOG 2021, TUPAC16) and ICPR 2012 crops, split by case.

    AMi-Br      128 x 128 px at 0.25 um/px, each centred on a mitosis; expert labels and mined dark nuclei inside
    ICPR 2012   256 x 256 px at 0.2456 um/px of one slide, every mitosis outlined; used for training only

The pixels stay where they are: this reads them from the shared data.

AMi-Br's mined nuclei are dark places 8 um or more from any label. A label is the middle of a figure, and where chromatin lies in
several places (anaphase, telophase, most atypical mitoses) that middle may be empty and the daughters 8 to 12 um off: they were
mined as negatives. Nothing dark within 16 um of a mitosis that both experts call so is a negative here (`Field.of_a_mitosis`).
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError

UM_PER_PX = 0.25
PATCH_PX = 128  # of AMi-Br, a mitosis in the middle
SPLIT_SEED = 16
TEST_SHARE, VALIDATION_SHARE = 0.28, 0.14
DARKEST_THIRD = 2 / 3
MOST_BLACK = 12  # of the brightest channel; JPEG leaves some noise in black padding
LEAST_SEEN = 0.3  # of a row or column that belongs to the picture
COMPACT = "NMF prometaphase", "NMF metaphase", "NMF ring shape"
"""Phases, as AMi-Br's experts name them, in which all chromatin of a mitosis lies together."""
SPREAD_PX = 64.0
"""Within 16 um of a mitosis in another phase a dark place that nobody labelled may be its daughter or a chromosome it lost."""
JUDGED_PX = 32.0  # closer than this to such a mitosis even what an expert calls a look-alike is a part of it
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Field:
    """A picture and what is known in it; places are (x, y) in px."""

    name: str
    case: str
    origin: str
    """The scanner where it is named, else the data set."""
    pixels: NDArray[np.uint8]
    mitoses: tuple[tuple[float, float], ...]
    lookalikes: tuple[tuple[float, float], ...]
    """What experts took for a mitosis at first and then did not."""
    mined: tuple[tuple[float, float, float], ...]
    """Dark nuclei far from any label: x, y, darkness rank within the slide in [0, 1]."""
    spread: tuple[tuple[float, float], ...] = ()
    """Mitoses whose chromatin lies in several places, those whose middle lies beyond the picture, too."""

    def of_a_mitosis(self, x: float, y: float, within_px: float = SPREAD_PX) -> bool:
        """Whether what is dark at (x, y) may be a part of a mitosis labelled elsewhere: it is then no negative."""
        return any(math.hypot(a - x, b - y) < within_px for a, b in self.spread)


def read_fields(pathology: Path, *, parts_too: bool = False) -> list[Field]:
    """All fields below the folder `pathology` of the shared data. Raises InputError where they are absent.

    parts_too  with the negatives that may be parts of a mitosis, as all figures before 2026-11-26 were measured
    """
    folder = pathology / "mitosis_amibr"
    if not (folder / "mitoses.csv").exists():
        raise InputError(f"{folder} holds no mitoses.csv: expected the AMi-Br patches (docs/data.md).")
    labels, mined = defaultdict(list), defaultdict(list)
    for row in _rows(folder / "labels_in_patches.csv"):
        labels[row["patch"]].append((float(row["x"]), float(row["y"]), row["label"]))
    for row in _rows(folder / "mined_negatives.csv"):
        mined[row["patch"]].append((float(row["x"]), float(row["y"]), float(row["slide_pct"])))
    rows = _rows(folder / "mitoses.csv")
    spread = _spread(rows)
    fields = []
    for row in rows:
        patch = row["patch"]
        pixels, left, top = without_black_edges(_picture(folder / "patches" / patch))
        known = [(x - left, y - top, label) for x, y, label in labels[patch]]
        field = Field(
            patch,
            f"{row['dataset']} {row['slide']}",
            row["scanner"] or row["dataset"],
            pixels,
            tuple((x, y) for x, y, label in known if label == "mitosis"),
            tuple((x, y) for x, y, label in known if label != "mitosis"),
            tuple((x - left, y - top, rank) for x, y, rank in mined[patch]),
            tuple((x - left, y - top) for x, y in spread[patch]),
        )
        fields.append(field if parts_too else without_parts(field))
    return fields + _icpr(pathology / "mitosis_icpr12")


def without_parts(field: Field) -> Field:
    """`field` without the negatives that may be parts of a mitosis."""
    return replace(
        field,
        lookalikes=tuple(p for p in field.lookalikes if not field.of_a_mitosis(*p, within_px=JUDGED_PX)),
        mined=tuple(row for row in field.mined if not field.of_a_mitosis(row[0], row[1])),
    )


def _spread(rows: Sequence[dict[str, str]]) -> dict[str, list[tuple[float, float]]]:
    """Patch -> mitoses of several parts near it, in its px. Tables without phases (TUPAC16's own) have none."""
    several: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        phases = row.get("expert1_label"), row.get("expert2_label")
        if all(phases) and not any(phase in COMPACT for phase in phases):
            several[row["dataset"], row["slide"]].append((float(row["x"]), float(row["y"])))
    found = {}
    for row in rows:
        left, top = float(row["x"]) - PATCH_PX / 2, float(row["y"]) - PATCH_PX / 2
        here = [(x - left, y - top) for x, y in several[row["dataset"], row["slide"]]]
        reach = PATCH_PX + SPREAD_PX
        found[row["patch"]] = [(x, y) for x, y in here if min(x, y) > -SPREAD_PX and max(x, y) < reach]
    return found


def split_cases(fields: Iterable[Field], seed: int = SPLIT_SEED) -> dict[str, str]:
    """Case -> "train", "validation" or "test". Shares are kept within each scanner, with and without look-alikes."""
    strata: dict[tuple[str, bool], set[str]] = defaultdict(set)
    doubtful = {field.case for field in fields if field.lookalikes}
    for field in fields:
        strata[field.origin, field.case in doubtful].add(field.case)
    parts = {}
    generator = np.random.default_rng(seed)
    for (origin, _), cases in sorted(strata.items()):
        order = [str(case) for case in generator.permutation(sorted(cases))]
        tests = round(TEST_SHARE * len(order))
        held = tests + round(VALIDATION_SHARE * len(order))
        for i, case in enumerate(order):
            part = "test" if i < tests else "validation" if i < held else "train"
            parts[case] = "train" if origin == "ICPR12" else part
    return parts


def without_black_edges(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int, int]:
    """The picture without rows and columns of padding at its edges, and how much was cut at the left and the top.

    Patches cut at the edge of a scan are filled up with black: three in a hundred of AMi-Br's, all around mitoses.
    """
    ends = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    if all((end.max(-1) > MOST_BLACK).mean() > LEAST_SEEN for end in ends):
        return pixels, 0, 0  # most pictures: the whole of it need not be gone through
    # NumPy's maximum over the last axis takes six times as long.
    seen = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2]) > MOST_BLACK
    rows, columns = np.flatnonzero(seen.mean(1) > LEAST_SEEN), np.flatnonzero(seen.mean(0) > LEAST_SEEN)
    if len(rows) < 16 or len(columns) < 16:
        return pixels, 0, 0
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if (bottom - top, right - left) == pixels.shape[:2]:
        return pixels, 0, 0
    return np.ascontiguousarray(pixels[top:bottom, left:right]), left, top


def part_of(fields: Sequence[Field], part: str, seed: int = SPLIT_SEED) -> list[Field]:
    parts = split_cases(fields, seed)
    return [field for field in fields if parts[field.case] == part]


def _icpr(folder: Path) -> list[Field]:
    fields = []
    for path in sorted((folder / "images").glob("*.jpg")):
        mask = cv2.imread(str(folder / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise InputError(
                f"{folder / 'masks' / path.name} is missing or damaged: expected a mask of mitoses."
            )
        _, _, stats, centres = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
        real = [(float(x), float(y)) for (x, y), s in zip(centres[1:], stats[1:], strict=True) if s[4] >= 60]
        fields.append(
            Field(f"icpr12/{path.name}", "ICPR12 A00", "ICPR12", _picture(path), tuple(real), (), ())
        )
    return fields


def _picture(path: Path) -> NDArray[np.uint8]:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(
            f"{path} is missing or damaged: expected a field of the AMi-Br patches (docs/data.md)."
        )
    return np.ascontiguousarray(bgr[..., ::-1])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
