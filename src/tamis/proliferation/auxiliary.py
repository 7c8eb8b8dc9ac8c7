"""TUPAC16's auxiliary set in its own layout -> the patches that the mitosis detector is trained on.

    IMAGES/.../05/01.tif   a field at 0.25 um/px; folders around it, such as mitoses_image_data_part_1, do not matter
    LABELS/.../05/01.csv   its mitoses, row,col in px; no file, or an empty one, for none
    TO/mitosis_amibr/      a patch of 128 x 128 px around every mitosis, in the layout of AMi-Br that `fields` reads

What is dark in a patch and far from every mitosis of its field is listed as a mined negative, by darkness within the case.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.proliferation.candidates import dark_nuclei
from tamis.proliferation.stain import haematoxylin
from tamis.proliferation.submission import TUPAC_UM_PER_PX, read_truth
from tamis.writing import replacing

PATCH_PX = 128
FAR_PX = 30.0  # from every mitosis: 7.5 um, TUPAC16's distance for a hit
ENDINGS = (".tif", ".tiff", ".png", ".jpg")
DATASET = "TUPAC16-AUX"
# Columns of the three tables, as AMi-Br and what was derived from it have them.
MITOSES = ("slide", "dataset", "patch", "scanner", "x", "y")
LABELS = ("patch", "dataset", "slide", "x", "y", "label")
MINED = ("patch", "dataset", "slide", "x", "y", "hema_od", "slide_pct")


def cut(images: Path, labels: Path, to: Path) -> int:
    """Write the patches and tables below `to`. Returns the number of patches.

    Raises InputError where no field has a mitosis, or a field cannot be read.
    """
    folder = to / "mitosis_amibr"
    marked = _marked(labels)
    fields = {_name(path): path for path in sorted(images.rglob("*")) if path.suffix.lower() in ENDINGS}
    if missing := sorted(set(marked) - set(fields)):
        raise InputError(
            f"{labels} has labels of {', '.join(missing[:3])}, of which {images} holds no image."
        )
    mitoses: list[dict[str, Any]] = []
    known: list[dict[str, Any]] = []
    mined: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, path in fields.items():
        if name not in marked or not len(marked[name]):
            continue
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise InputError(f"{path} cannot be read as a picture.")
        case = name.split("/")[0]
        for n, (patch, corner, inside, dark) in enumerate(_patches(pixels, marked[name])):
            file = f"patches/{name.replace('/', '_')}_{n}.png"
            shared = {"patch": file.removeprefix("patches/"), "dataset": DATASET, "slide": case}
            with replacing(folder / file) as beside:
                # Not imwrite, which says nothing of a full disk.
                beside.write_bytes(cv2.imencode(".png", patch[..., ::-1])[1].tobytes())
            x, y = marked[name][n]
            mitoses.append(shared | {"scanner": "", "x": x, "y": y})
            known += [
                shared | {"x": x - corner[0], "y": y - corner[1], "label": "mitosis"} for x, y in inside
            ]
            mined[case] += [shared | {"x": x, "y": y, "hema_od": round(od, 3)} for x, y, od in dark]
    if not mitoses:
        raise InputError(f"No field in {images} has a mitosis in {labels}.")
    for rows in mined.values():
        order = np.argsort([row["hema_od"] for row in rows])
        for rank, place in enumerate(order):
            rows[place]["slide_pct"] = round((rank + 1) / len(rows), 3)
    _write(folder / "labels_in_patches.csv", LABELS, known)
    _write(folder / "mined_negatives.csv", MINED, [row for rows in mined.values() for row in rows])
    _write(folder / "mitoses.csv", MITOSES, mitoses)  # last: where it is, all of it is there
    return len(mitoses)


def _marked(labels: Path) -> dict[str, NDArray[np.float64]]:
    """Field such as "05/01" -> its mitoses (x, y) [n, 2] in px."""
    points = read_truth(labels).points
    if points is None:
        raise InputError(f"{labels} holds no positions: one CSV an image (05/01.csv: row,col) was expected.")
    return {"/".join(n.split("/")[-2:]): p[:, :2] / TUPAC_UM_PER_PX for n, p in points.images.items()}


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _patches(
    pixels: NDArray[np.uint8], mitoses: NDArray[np.float64]
) -> Iterator[
    tuple[NDArray[np.uint8], tuple[int, int], NDArray[np.float64], list[tuple[float, float, float]]]
]:
    """For each mitosis: the patch around it, its corner, the mitoses in it, and its dark nuclei (x, y, density)."""
    half = PATCH_PX // 2
    padded = cv2.copyMakeBorder(pixels, half, half, half, half, cv2.BORDER_REFLECT_101)
    for x, y in mitoses:
        left, top = round(x) - half, round(y) - half
        patch = padded[top + half : top + half + PATCH_PX, left + half : left + half + PATCH_PX]
        inside = mitoses[((mitoses >= (left, top)) & (mitoses < (left + PATCH_PX, top + PATCH_PX))).all(1)]
        density = cv2.GaussianBlur(haematoxylin(patch), (0, 0), 4)
        dark = [
            (float(u), float(v), float(density[int(v), int(u)]))
            for u, v in dark_nuclei(patch)
            if np.hypot(*(mitoses - (u + left, v + top)).T).min() > FAR_PX
        ]
        yield patch, (left, top), inside, dark


def _write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
