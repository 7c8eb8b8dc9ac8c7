"""Nuclei of composed slides for training: mitoses and others of the training cases in the grounds kept for training.

AMi-Br shows tumour around mitoses only. What lies elsewhere in a slide (stroma, lymphocytes, crushed nuclei) a network
trained on it has never seen, and a first one took 80 nuclei per mm2 of it for mitoses. Here such nuclei are negatives,
and the same ground holds mitoses, so that the ground itself means nothing. The slides differ in stain.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.compose import Composer
from tamis.proliferation.fields import UM_PER_PX, Field
from tamis.proliferation.windows import COMPOSED, Nucleus
from tamis.writing import replacing

SIZE_PX, SLIDES, MITOSES, SEED = 3072, 24, 90, 900_000
QUALITY = 85  # as a slide is written
NEAR_PX = {"mitosis": 56.0, "expert": 40.0, "mined": 40.0}
"""Closer than this to something planted no dark place is the ground's. What was planted with a mitosis may be a part of it."""
WEIGHTS = {"mitosis": 5.0, "expert": 3.0, "mined": 1.0, "ground": 0.4}
"""Of the sampler. For mitoses 5 balances that a slide counts as one case of 90."""

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
        near = np.array([NEAR_PX[kind] for _, _, kind in known])
        for x, y in search(pixels):
            if (np.hypot(places[:, 0] - x, places[:, 1] - y) > near).all():
                nuclei.append(Nucleus(index, float(x), float(y), 0, WEIGHTS["ground"]))
    return fields, nuclei


def _slide(
    data: Path, seed: int, keep: Path, part: str
) -> tuple[NDArray[np.uint8], list[tuple[float, float, str]]]:
    picture, table = keep / f"{part}-{seed}.jpg", keep / f"{part}-{seed}.json"
    if not table.exists():
        keep.mkdir(parents=True, exist_ok=True)
        composer = Composer(data, size_px=SIZE_PX, seed=seed, part=part, mitoses=MITOSES, repeats=0)
        pixels = composer.pixels(0, 0, SIZE_PX, SIZE_PX)
        with replacing(picture) as beside:
            coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
            beside.write_bytes(coded.tobytes())
        objects = [(o.x_um / UM_PER_PX, o.y_um / UM_PER_PX, o.kind) for o in composer.objects]
        with replacing(table) as beside:
            beside.write_text(json.dumps(objects))
    seen = cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)
    assert seen is not None
    return np.asarray(seen, np.uint8), [tuple(row) for row in json.loads(table.read_text())]
