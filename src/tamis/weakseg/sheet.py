"""A sheet of cases as one PNG: image, truth and map side by side, worst first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.weakseg.maps import Map
from tamis.writing import replacing

CELL_PX = (232, 160)
TITLE_PX = 20
GROUP_PX = 26
GAP_PX = 6
TRUTH = (0, 120, 0)
MARKED = (200, 0, 0)


@dataclass(frozen=True, slots=True)
class Case:
    group: str
    name: str
    title: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    probability: Map


def write_sheet(cases: Sequence[Case], path: Path, thresholds: Mapping[str, float]) -> None:
    """Two cases a line, each as image with the truth outlined (green) and the mask (red), and the map from black (0) to
    white (1)."""
    rows: list[NDArray[np.uint8]] = []
    for group in dict.fromkeys(case.group for case in cases):
        members = [case for case in cases if case.group == group]
        cells = [_cell(case, thresholds[case.name]) for case in members]
        width = 2 * cells[0].shape[1]
        rows.append(_text(group, width, GROUP_PX, 0.6))
        for k in range(0, len(cells), 2):
            pair = cells[k : k + 2]
            pair += [np.full_like(cells[0], 255)] * (2 - len(pair))
            rows.append(np.hstack(pair))
    encoded = cv2.imencode(".png", np.vstack(rows)[..., ::-1])[1].tobytes()
    with replacing(path) as beside:
        beside.write_bytes(encoded)


def _cell(case: Case, threshold: float) -> NDArray[np.uint8]:
    picture = cv2.resize(case.image, CELL_PX, interpolation=cv2.INTER_AREA)
    small = cv2.resize(case.probability, CELL_PX, interpolation=cv2.INTER_AREA)
    outlined = picture.copy()
    truth = cv2.resize(case.truth.astype(np.uint8), CELL_PX, interpolation=cv2.INTER_NEAREST)
    for mask, colour in ((truth, TRUTH), ((small > threshold).astype(np.uint8), MARKED)):
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(outlined, contours, -1, colour, 2)
    grey = np.repeat(np.rint(small * 255).astype(np.uint8)[..., None], 3, axis=2)
    gap = np.full((CELL_PX[1], GAP_PX, 3), 255, np.uint8)
    images = np.hstack([picture, gap, outlined, gap, grey, gap])
    return np.vstack([_text(case.title, images.shape[1], TITLE_PX, 0.45), images])


def _text(text: str, width: int, height: int, size: float) -> NDArray[np.uint8]:
    line = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(line, text, (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), 1, cv2.LINE_AA)
    return line
