"""Nuclei of composed slides for training: mitoses and others of the training cases in the grounds kept for training.

AMi-Br shows tumour around mitoses only. What lies elsewhere in a slide (stroma, lymphocytes, crushed nuclei) a network
trained on it has never seen, and a first one took 80 nuclei per mm2 of it for mitoses. Here such nuclei are negatives,
and the same ground holds mitoses, so that the ground itself means nothing. The slides differ in stain.

Those slides hold four mitoses to one other planted nucleus, and a network trained on them alone took what is planted for
likelier than the same nucleus in its own field (half a logit; validation cases). `planted_nuclei` gives it the others: single
planted nuclei of many more slides, two others to one mitosis, and the ground's likeliest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.augment import SOURCE_PX
from tamis.proliferation.compose import Composer
from tamis.proliferation.fields import UM_PER_PX, Field
from tamis.proliferation.windows import COMPOSED, Nucleus
from tamis.writing import replacing

SIZE_PX, SLIDES, MITOSES, SEED = 3072, 12, 90, 900_000
QUALITY = 85  # as a slide is written
NEAR_PX = 40.0
WEIGHTS = {"mitosis": 5.0, "expert": 3.0, "mined": 1.0, "ground": 0.4}
"""Of the sampler. For mitoses 5 balances that a slide counts as one case of 90."""

SHEETS, SHEET_SEED, SHEET_SLIDE_PX = 24, 910_000, 8192
OF_A_SHEET = {"mitosis": 24, "expert": 4, "mined": 48, "ground": 16}
SHEET_WEIGHTS = {"mitosis": 5.0, "expert": 3.0, "mined": 1.0, "ground": 1.0}

Search = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def composed_nuclei(
    data: Path, first_field: int, search: Search, keep: Path, *, part: str = "train", slides: int = SLIDES
) -> tuple[list[Field], list[Nucleus]]:
    """One field a slide, and the nuclei in them, numbered from `first_field`.

    search  picture -> places [n, 2] in px that the network would look at
    keep    a folder: the slides are made once, and read from it afterwards
    """
    fields: list[Field] = []
    nuclei: list[Nucleus] = []
    for number in range(slides):
        pixels, known = _slide(data, SEED + number, keep, part)
        index = first_field + len(fields)
        mitoses = tuple((x, y) for x, y, kind in known if kind == "mitosis")
        fields.append(
            Field(f"{COMPOSED} {number}", f"{COMPOSED} {number}", COMPOSED, pixels, mitoses, (), ())
        )
        for x, y, kind in known:
            nuclei.append(Nucleus(index, x, y, int(kind == "mitosis"), WEIGHTS[kind]))
        places = np.array([(x, y) for x, y, _ in known]).reshape(-1, 2)
        for x, y in search(pixels):
            if np.hypot(places[:, 0] - x, places[:, 1] - y).min(initial=np.inf) > NEAR_PX:
                nuclei.append(Nucleus(index, float(x), float(y), 0, WEIGHTS["ground"]))
    return fields, nuclei


def planted_nuclei(
    data: Path, first_field: int, rank: Search, keep: Path, *, part: str = "train", sheets: int = SHEETS
) -> tuple[list[Field], list[Nucleus]]:
    """One field for each of many slides: windows of SOURCE_PX around single nuclei, one below the other.

    rank  picture -> places [n, 2] in px, the likeliest candidates first
    """
    fields: list[Field] = []
    nuclei: list[Nucleus] = []
    for number in range(sheets):
        pixels, kinds = _sheet(data, SHEET_SEED + number, rank, keep, part)
        name = f"{COMPOSED} sheet {number}"
        half = SOURCE_PX / 2
        at = [(half, half + SOURCE_PX * row) for row in range(len(kinds))]
        mitoses = tuple(place for place, kind in zip(at, kinds, strict=True) if kind == "mitosis")
        nuclei += [
            Nucleus(first_field + number, *place, int(kind == "mitosis"), SHEET_WEIGHTS[kind])
            for place, kind in zip(at, kinds, strict=True)
        ]
        fields.append(Field(name, name, COMPOSED, pixels, mitoses, (), ()))
    return fields, nuclei


def _sheet(data: Path, seed: int, rank: Search, keep: Path, part: str) -> tuple[NDArray[np.uint8], list[str]]:
    picture, table = keep / f"{part}-{seed}.jpg", keep / f"{part}-{seed}.json"
    if not table.exists():
        keep.mkdir(parents=True, exist_ok=True)
        composer = Composer(data, size_px=SHEET_SLIDE_PX, seed=seed, part=part, mitoses=OF_A_SHEET["mitosis"])
        half, known = SOURCE_PX // 2, []
        for o in composer.objects:
            if sum(kind == o.kind for _, _, kind in known) < OF_A_SHEET[o.kind]:
                known.append((round(o.x_um / UM_PER_PX), round(o.y_um / UM_PER_PX), str(o.kind)))
        places = np.array([(x, y) for x, y, _ in known])
        left, top = _most_tissue(composer)
        for x, y in rank(composer.pixels(left, top, SIZE_PX // 2, SIZE_PX // 2)):
            here = round(x) + left, round(y) + top
            if np.hypot(*(places - here).T).min() > NEAR_PX:
                known.append((*here, "ground"))
            if sum(kind == "ground" for _, _, kind in known) == OF_A_SHEET["ground"]:
                break
        sheet = np.concatenate(
            [composer.pixels(x - half, y - half, SOURCE_PX, SOURCE_PX) for x, y, _ in known]
        )
        _write_picture(picture, sheet)
        with replacing(table) as beside:
            beside.write_text(json.dumps([kind for _, _, kind in known]))
    return _read_picture(picture), json.loads(table.read_text())


def _most_tissue(composer: Composer) -> tuple[int, int]:
    starts = range(0, SHEET_SLIDE_PX - SIZE_PX // 2, 512)
    _, left, top = max(
        (composer.ground.tissue_share(x, y, SIZE_PX // 2), x, y) for x in starts for y in starts
    )
    return left, top


def _slide(
    data: Path, seed: int, keep: Path, part: str
) -> tuple[NDArray[np.uint8], list[tuple[float, float, str]]]:
    picture, table = keep / f"{part}-{seed}.jpg", keep / f"{part}-{seed}.json"
    if not table.exists():
        keep.mkdir(parents=True, exist_ok=True)
        composer = Composer(data, size_px=SIZE_PX, seed=seed, part=part, mitoses=MITOSES, repeats=0)
        pixels = composer.pixels(0, 0, SIZE_PX, SIZE_PX)
        _write_picture(picture, pixels)
        objects = [(o.x_um / UM_PER_PX, o.y_um / UM_PER_PX, o.kind) for o in composer.objects]
        with replacing(table) as beside:
            beside.write_text(json.dumps(objects))
    return _read_picture(picture), [tuple(row) for row in json.loads(table.read_text())]


def _write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    with replacing(path) as beside:
        coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        beside.write_bytes(coded.tobytes())


def _read_picture(path: Path) -> NDArray[np.uint8]:
    seen = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert seen is not None
    return np.asarray(seen, np.uint8)
