"""Nuclei of composed slides for training: mitoses and others of the training cases in the grounds kept for training.

AMi-Br shows tumour around mitoses only. What lies elsewhere in a slide (stroma, lymphocytes, crushed nuclei) a network
trained on it has never seen, and a first one took 80 nuclei per mm2 of it for mitoses. Here such nuclei are negatives,
and the same ground holds mitoses, so that the ground itself means nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamis.proliferation.compose import Composer
from tamis.proliferation.fields import UM_PER_PX, Field
from tamis.proliferation.windows import COMPOSED, Nucleus

SIZE_PX, SLIDES, MITOSES = 3072, 4, 110
FIELD_PX, BLOCK_PX = 240, 1024
CASE_OF = 16  # so many mitoses count as one case in the sampler
GROUND_WEIGHT = 6.0

Search = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


def composed_nuclei(data: Path, first_field: int, search: Search) -> tuple[list[Field], list[Nucleus]]:
    """Fields of FIELD_PX, one a nucleus, and the nuclei, numbered from `first_field`.

    search  picture -> places [n, 2] in px that the network would look at
    """
    fields: list[Field] = []
    nuclei: list[Nucleus] = []

    def add(composer: Composer, x: float, y: float, label: int, weight: float) -> None:
        half = FIELD_PX // 2
        pixels = composer.pixels(round(x) - half, round(y) - half, FIELD_PX, FIELD_PX)
        case = f"{COMPOSED} {len(fields) // CASE_OF}"
        fields.append(Field(f"{COMPOSED} {len(fields)}", case, COMPOSED, pixels, (), (), ()))
        nuclei.append(Nucleus(first_field + len(fields) - 1, float(half), float(half), label, weight))

    for seed in range(SLIDES):
        composer = Composer(data, size_px=SIZE_PX, seed=900_000 + seed, part="train", mitoses=MITOSES)
        known = np.array([(o.x_um / UM_PER_PX, o.y_um / UM_PER_PX) for o in composer.objects])
        for (x, y), planted in zip(known, composer.objects, strict=True):
            add(composer, x, y, int(planted.kind == "mitosis"), 2.0)
        for top in range(0, SIZE_PX, BLOCK_PX):
            for left in range(0, SIZE_PX, BLOCK_PX):
                places = search(composer.pixels(left, top, BLOCK_PX, BLOCK_PX))
                for x, y in places + np.array([left, top]):
                    if np.hypot(known[:, 0] - x, known[:, 1] - y).min() > 40:
                        add(composer, float(x), float(y), 0, GROUND_WEIGHT)
    return fields, nuclei
