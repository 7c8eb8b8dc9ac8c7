"""Small datasets and pictures, drawn."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tamis.weakseg.phantom import phantom

Write = Callable[..., Path]


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Eight fields of 96 x 64, four with cancer, in tenths, with masks."""
    folder = tmp_path / "dataset"
    rows = []
    for index in range(8):
        sick = index < 4
        image, mask = phantom(96, 64, seed=index, cancer=sick)
        save(folder / "images" / f"field_{index}.png", image)
        save(folder / "masks" / f"field_{index}.png", mask.astype(np.uint8) * 255)
        area = f"{max(0.1, round(mask.mean(), 1))}" if sick else ""
        rows.append([f"field_{index}", "cancer" if sick else "no_cancer", area, "2.0"])
    write_table(folder, ["name", "label", "area", "um_per_px"], rows)
    return folder


def write_table(folder: Path, header: list[str], rows: list[list[str]]) -> None:
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
