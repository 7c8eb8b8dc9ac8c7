"""GlaS / Warwick-QU (colon glands, H&E, 0.62 um/px) as a dataset of cancer labels.

    python -m tamis.weakseg.glas GLAS -o FOLDER [--area tenths]

In a malignant image the glands are the cancer; in a benign one there is none, and its mask becomes empty. The area
that a trainer sees is made from the mask as an annotator would state it: in tenths, in halves, in quarters as an
interval, exact, or not at all. Reads the challenge's own layout (NAME.bmp, NAME_anno.bmp, Grade.csv, which names patients)
and the one with labels.csv, images/ and masks/.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tamis.errors import InputError
from tamis.weakseg.images import read_mask
from tamis.writing import replacing

UM_PER_PX = 0.62005
STATED = ("tenths", "halves", "quarters", "exact", "none")


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    malignant: bool
    patient: str
    image: Path
    mask: Path


def import_glas(source: Path, target: Path, stated: str = "tenths", split: str = "train") -> int:
    """Write the dataset and return how many images it has. Raises InputError when `source` is not GlaS."""
    fields = _fields(source, split)
    rows = []
    for field in fields:
        mask = read_mask(field.mask) if field.malignant else np.zeros(read_mask(field.mask).shape, bool)
        _copy(field.image, target / "images" / f"{field.name}{field.image.suffix}")
        encoded = cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
        with replacing(target / "masks" / f"{field.name}.png") as beside:
            beside.write_bytes(encoded)
        area = state_area(float(mask.mean()), stated) if field.malignant else ""
        label = "cancer" if field.malignant else "no_cancer"
        rows.append([field.name, label, area, field.patient, str(UM_PER_PX)])
    with replacing(target / "labels.csv") as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label", "area", "patient", "um_per_px"])
        writer.writerows(rows)
    return len(rows)


def state_area(fraction: float, stated: str) -> str:
    """A fraction of the image as an annotator would put it.

    Halves are what a slide's report tells of one of its fields: about half, or nearly all. No statement is "none".
    """
    if stated == "tenths":
        return f"{max(1, round(fraction * 10)) / 10:.1f}"
    if stated == "halves":
        return f"{max(1, round(fraction * 2)) / 2:.1f}"
    if stated == "quarters":
        quarter = min(3, int(fraction * 4))
        return f"{quarter / 4:.2f}-{(quarter + 1) / 4:.2f}"
    return f"{fraction:.4f}" if stated == "exact" else ""


def _fields(source: Path, split: str) -> list[Field]:
    if (source / "Grade.csv").exists():
        return _challenge_layout(source, split)
    if not (source / "labels.csv").exists():
        raise InputError(f"{source} is not GlaS: it holds neither Grade.csv nor labels.csv.")
    with (source / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", split) == split]
    images = {path.stem: path for path in (source / "images").iterdir()}
    return [
        Field(
            row["name"],
            row["label"] == "malignant",
            row.get("patient", ""),
            images[row["name"]],
            source / "masks" / f"{row['name']}.png",
        )
        for row in rows
    ]


def _challenge_layout(source: Path, split: str) -> list[Field]:
    fields = []
    with (source / "Grade.csv").open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            values = [value.strip() for value in row.values()]
            name, patient, grade = values[0], values[1], values[2]
            if name.startswith(split):
                mask = source / f"{name}_anno.bmp"
                fields.append(Field(name, grade == "malignant", patient, source / f"{name}.bmp", mask))
    return fields


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as beside:
        shutil.copyfile(source, beside)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--area", choices=STATED, default="tenths")
    parser.add_argument(
        "--split", default="train", help="images whose name or split says so (default: %(default)s)"
    )
    options = parser.parse_args()
    count = import_glas(options.source, options.output, options.area, options.split)
    print(f"{options.output}: {count} images, area: {options.area}")


if __name__ == "__main__":
    main()
