"""python -m pytest tests/test_tiff_colours.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tamis.errors import InputError
from tamis.slides import open_slide

PINK = (225, 170, 205)


def seen(path: Path, pixels: np.ndarray, **options: Any) -> list[int]:
    """The colour of a slide of one colour, which is written and read again."""
    tifffile.imwrite(path, pixels, **options)
    with open_slide(path, mpp=0.5) as slide:
        shown = slide.read_region(0, 0, 8, 8, 0.5)
    assert (shown == shown[0, 0]).all()
    return shown[0, 0].tolist()


def flat(*samples: int) -> np.ndarray:
    return np.full((32, 32, len(samples)), samples, np.uint8).squeeze()


def test_inks_palettes_and_white_is_zero_are_shown_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    palette = np.zeros((3, 256), np.uint16)
    palette[:, 7] = np.array(PINK) * 257
    assert seen(path, flat(7), photometric="palette", colormap=palette) == list(PINK)
    assert seen(path, flat(30), photometric="minisblack") == [30] * 3
    assert seen(path, flat(30), photometric="miniswhite") == [225] * 3
    assert seen(path, flat(*PINK), photometric="rgb") == list(PINK)
    assert seen(path, flat(30, 85, 50, 0), photometric="separated") == list(PINK)
    assert seen(path, flat(0, 0, 0, 205), photometric="separated") == [50] * 3


def test_colours_that_nobody_reads_here_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.tif has colours of the kind CIELAB.*save it as RGB"):
        seen(tmp_path / "a.tif", flat(*PINK), photometric="cielab")
