"""Small datasets and pictures, drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from saved import save, write_table

from tamis.weakseg.phantom import phantom

Write = Callable[..., Path]


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
