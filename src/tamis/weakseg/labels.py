"""A dataset: a folder of images with `labels.csv`, and what can be wrong with it.

    DATASET/labels.csv     name,label[,area][,patient][,um_per_px]
    DATASET/images/NAME.*  one image each; or beside labels.csv
    DATASET/masks/NAME.png optional, for evaluation and full supervision: anything above 0 is cancer

label: cancer, malignant, positive, 1; or no_cancer, non_cancer, benign, normal, negative, 0.
area, of positives: a fraction (0.3), a percentage (30%), or an interval (0.2-0.5, 20-50%). Tenths are fine: that is the method.
patient: of all images or of none; those of one patient are never parted by cross-validation.
Columns may also be called file or image, tumor_fraction, slide or case, and mpp.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, TamisError
from tamis.weakseg.images import ENDINGS, image_size_px, read_mask

POSITIVE = frozenset({"cancer", "malignant", "positive", "tumor", "tumour", "1", "yes", "true"})
NEGATIVE = frozenset({"no_cancer", "non_cancer", "benign", "normal", "negative", "0", "no", "false"})
OTHER_NAMES = {
    "file": "name",
    "filename": "name",
    "image": "name",
    "tumor_fraction": "area",
    "tumour_fraction": "area",
    "slide": "patient",
    "case": "patient",
    "mpp": "um_per_px",
}
"""Of columns, as tables in use have them; counted only where the column itself is absent."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One row of labels.csv with the files it names. Areas are fractions of the image; NaN where unknown."""

    name: str
    path: Path
    positive: bool
    area_low: float
    area_high: float
    patient: str
    """Empty where the table names none."""
    um_per_px: float | None
    mask: Path | None


@dataclass(frozen=True, slots=True)
class Dataset:
    folder: Path
    images: tuple[LabelledImage, ...]

    @property
    def positives(self) -> int:
        return sum(image.positive for image in self.images)

    @property
    def patients_known(self) -> bool:
        return all(image.patient for image in self.images)


def read_dataset(folder: Path) -> Dataset:
    """The images of a dataset. Raises InputError with everything that `faults` finds in its table."""
    images, faults = _rows(folder)
    if faults:
        more = f" (and {len(faults) - 3} more; see  tamis weakseg check {folder})" if len(faults) > 3 else ""
        raise InputError(" ".join(faults[:3]) + more)
    return Dataset(folder, tuple(images))


def check_dataset(folder: Path) -> tuple[Dataset, list[str]]:
    """Every sound image, and a sentence for each thing that is wrong: the table, each image, each mask."""
    images, faults = _rows(folder)
    sound = []
    for image in images:
        try:
            size_px = image_size_px(image.path)
            if image.mask is not None:
                _check_mask(image, size_px)
            sound.append(image)
        except TamisError as error:
            faults.append(str(error))
    dataset = Dataset(folder, tuple(sound))
    faults += _one_class(dataset) + _gaps(folder, images)
    return dataset, faults


def _gaps(folder: Path, images: Sequence[LabelledImage]) -> list[str]:
    """What is there of some images and not of others."""
    faults, masks = [], folder / "masks"
    paths = sorted(masks.iterdir()) if masks.is_dir() else []
    used = {image.mask for image in images}
    if strays := [path.name for path in paths if path not in used and not path.name.startswith(".")]:
        faults.append(
            f"{masks}: {len(strays)} files are no image's mask ({_some(strays)}); a mask is named as its image, and ends in .png."
        )
    unmasked = [image.name for image in without_masks(images)]
    if unmasked and any(image.positive and image.mask is not None for image in images):
        faults.append(
            f"{masks}: {len(unmasked)} images with cancer have no mask ({_some(unmasked)}) and are left out of what is scored; "
            "draw them, or leave it so."
        )
    unscaled = [image.name for image in images if image.um_per_px is None]
    if 0 < len(unscaled) < len(images):
        faults.append(
            f"{folder / 'labels.csv'}: {len(unscaled)} of {len(images)} images have no um_per_px ({_some(unscaled)}); a network "
            "of one resolution needs it of all."
        )
    return faults


def _one_class(dataset: Dataset) -> list[str]:
    if not dataset.images or 0 < dataset.positives < len(dataset.images):
        return []
    kind = "cancer" if dataset.positives else "no cancer"
    return [
        f"{dataset.folder / 'labels.csv'}: all {len(dataset.images)} images are labelled {kind!r}; "
        "learning from labels needs images of both kinds, so add some of the other."
    ]


def require_both_classes(dataset: Dataset) -> None:
    """Raises InputError when all images carry one label."""
    for sentence in _one_class(dataset):
        raise InputError(sentence)


def _check_mask(image: LabelledImage, size_px: tuple[int, int]) -> None:
    assert image.mask is not None
    mask = mask_of(image.mask, size_px)
    if not image.positive and mask.any():
        raise InputError(
            f"{image.mask}: the mask marks {mask.mean():.0%} of {image.name} as cancer, but labels.csv says it has none; "
            "correct the one that is wrong."
        )
    if image.positive and not mask.any():
        raise InputError(
            f"{image.mask}: the mask is empty, but labels.csv says {image.name} has cancer; correct the one that is wrong."
        )


def mask_of(path: Path, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask [H, W] of an image of (width, height). Raises InputError where it has another size."""
    mask = read_mask(path)
    found = mask.shape[1], mask.shape[0]
    if found != size_px:
        raise InputError(
            f"{path}: the mask is {found[0]} x {found[1]} px and its image {size_px[0]} x {size_px[1]} px; "
            "a mask must have the size of its image."
        )
    return mask


def _rows(folder: Path) -> tuple[list[LabelledImage], list[str]]:
    table = folder / "labels.csv"
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: a dataset is a folder with labels.csv and images.")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = _columns([column.strip().lower() for column in reader.fieldnames or []])
            rows = [
                (
                    reader.line_num,
                    {
                        column: (value or "").strip()
                        for column, value in zip(header, row.values(), strict=False)
                        if column
                    },
                )
                for row in reader
            ]
    except FileNotFoundError:
        raise InputError(
            f"{table} is missing: write one line an image, with the header name,label[,area][,patient]."
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is no table in UTF-8 ({error}): save it again as CSV.") from None
    if not {"name", "label"} <= set(header):
        other = next((f"{mark!r}" for mark in (";", "\t") if len(header) == 1 and mark in header[0]), "")
        way_out = f"; they seem to be parted by {other}, so save it with commas" if other else ""
        raise InputError(
            f"{table} begins with the columns {', '.join(header) or '(none)'}: the columns name and label are needed{way_out}."
        )
    if not rows:
        raise InputError(f"{table} has a header and no image: write one line an image.")
    files, twins = _files(folder)
    images: list[LabelledImage] = []
    faults = [
        f"{one} and {other.name} have one name but for the ending, and masks and maps are named without: rename one."
        for one, other in twins
    ]
    seen: set[str] = set()
    for number, row in rows:
        try:
            image = _image(folder, table, number, row, files)
        except InputError as error:
            faults.append(str(error))
            continue
        if image.name in seen:
            faults.append(f"{table}, line {number}: {image.name} is there twice; keep one of its lines.")
            continue
        seen.add(image.name)
        images.append(image)
    unnamed = [image.name for image in images if not image.patient]
    if 0 < len(unnamed) < len(images):
        faults.append(
            f"{table}: {len(unnamed)} of {len(images)} images name no patient ({_some(unnamed)}), so images of one patient "
            "could be parted; name all of them (by the image's own name where it is the only one), or none."
        )
    unlabelled = sorted(
        set(files) - {Path(row["name"]).stem for _, row in rows} - {row["name"] for _, row in rows}
    )
    if unlabelled:
        faults.append(
            f"{table}: {len(unlabelled)} images have no line ({_some(unlabelled)}); label them or take them out."
        )
    return images, faults


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _columns(header: Sequence[str]) -> list[str]:
    """The header in the names that are used here."""
    named = []
    for column in header:
        known = OTHER_NAMES.get(column, column)
        named.append(column if known in header or known in named else known)
    return named


def _files(folder: Path) -> tuple[dict[str, Path], list[tuple[Path, Path]]]:
    """The images by stem; and pairs of one stem, of which the first counts."""
    inside = folder / "images" if (folder / "images").is_dir() else folder
    found: dict[str, Path] = {}
    twins = []
    for path in sorted(inside.iterdir()):
        if path.suffix.lower() in ENDINGS and found.setdefault(path.stem, path) is not path:
            twins.append((found[path.stem], path))
    return found, twins


def _image(
    folder: Path, table: Path, number: int, row: dict[str, str], files: dict[str, Path]
) -> LabelledImage:
    where = f"{table}, line {number}"
    name = row["name"]
    if not name:
        raise InputError(f"{where}: the name is empty; write the image's file name, with or without ending.")
    path = files.get(name) or files.get(Path(name).stem)
    if path is None:
        raise InputError(
            f"{where}: there is no image {name} in the folder; correct the name or add the file."
        )
    label = row["label"].lower().replace(" ", "_").replace("-", "_")
    if label not in POSITIVE | NEGATIVE:
        raise InputError(
            f"{where}: {name} is labelled {row['label']!r}; write cancer or no_cancer (or 1 and 0, malignant and benign)."
        )
    low, high = _area(row.get("area", ""), f"{where}: {name}")
    if label in NEGATIVE:
        if high > 0:
            raise InputError(
                f"{where}: {name} has no cancer but an area of {row['area']}; leave the area empty."
            )
        low = high = math.nan
    elif high == 0:
        raise InputError(
            f"{where}: {name} has cancer but an area of 0; give a fraction above 0, or leave it empty."
        )
    mask = folder / "masks" / f"{path.stem}.png"
    return LabelledImage(
        name=path.stem,
        path=path,
        positive=label in POSITIVE,
        area_low=low,
        area_high=high,
        patient=row.get("patient", ""),
        um_per_px=_um_per_px(row.get("um_per_px", ""), f"{where}: {name}"),
        mask=mask if mask.exists() else None,
    )


_AREA = re.compile(r"([0-9.]+)\s*(%?)(?:\s*-\s*([0-9.]+)\s*(%?))?")


def _area(text: str, where: str) -> tuple[float, float]:
    """Lower and upper end of an area. NaN for an empty one.

    >>> _area("0.3", ""), _area("20-50%", "")
    ((0.3, 0.3), (0.2, 0.5))
    """
    if not text:
        return math.nan, math.nan
    match = _AREA.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        low, high = float(match[1]), float(match[3] or match[1])
    except ValueError:
        low, high = math.nan, math.nan
    if match is not None and "%" in (match[2], match[4]):
        low, high = low / 100, high / 100
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"{where} has the area {text!r}; write a fraction of the image such as 0.3, 30%, or an interval such as 0.2-0.5."
        )
    return low, high


def _um_per_px(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"{where} has um_per_px {text!r}; write micrometres a pixel such as 0.5, or leave it empty."
        )
    return value


def folds(dataset: Dataset, count: int, seed: int) -> list[list[int]]:
    """Indices held out in each of `count` folds: whole patients where all are named, else images; classes spread evenly.

    Raises InputError where there are fewer positives or negatives (or patients) than folds.
    """
    generator = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for index, image in enumerate(dataset.images):
        groups.setdefault(image.patient if dataset.patients_known else image.name, []).append(index)
    held: list[list[int]] = [[] for _ in range(count)]
    for positive in (True, False):
        names = [name for name, group in groups.items() if _mostly(dataset, group) is positive]
        if len(names) < count:
            unit = "patients" if dataset.patients_known else "images"
            kind = "cancer" if positive else "no cancer"
            way_out = "ask for fewer folds"
            if dataset.patients_known and len(names) < 2:
                way_out = "leave their column empty to split by image, which scores too well"
            raise InputError(
                f"{dataset.folder}: {len(names)} {unit} with {kind}, and {count} folds; {way_out}."
            )
        generator.shuffle(names)
        # Onto the emptiest fold each time, so that large patients do not pile up.
        for name in sorted(names, key=lambda name: -len(groups[name])):
            min(held, key=lambda fold: sum(dataset.images[i].positive is positive for i in fold)).extend(
                groups[name]
            )
    return [sorted(fold) for fold in held]


def _mostly(dataset: Dataset, group: Sequence[int]) -> bool:
    return 2 * sum(dataset.images[i].positive for i in group) >= len(group)


def without_masks(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """Those that cannot be scored: where cancer is in them is not known."""
    return [image for image in images if image.mask is None and image.positive]


def with_masks(dataset: Dataset) -> Iterator[LabelledImage]:
    """The images that can be scored: those with a mask, and negatives without one, whose mask is empty."""
    return (image for image in dataset.images if image.mask is not None or not image.positive)
