"""What segmentation writes.  python -m pytest tests/weakseg/test_outputs.py"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tamis.weakseg.outputs import STEPS, png, write_overlay, write_probability


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (40, 31)])
def test_png_gives_back_every_pixel(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    read = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[..., ::-1], picture)


@pytest.mark.parametrize("size", [(300, 700), (256, 256), (17, 5)])
def test_probabilities_are_kept_and_halved(tmp_path: Path, size: tuple[int, int]) -> None:
    kept = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    write_probability(kept, tmp_path / "map.ome.tiff", 1.24)
    with tifffile.TiffFile(tmp_path / "map.ome.tiff") as file:
        levels = file.series[0].levels
        np.testing.assert_allclose(levels[0].asarray(), kept / STEPS, atol=1e-6)
        assert levels[0].dtype == np.float32
        assert max(levels[-1].shape) <= 256
        for larger, smaller in pairwise(levels):
            assert smaller.shape == tuple(-(-side // 2) for side in larger.shape)
            assert abs(smaller.asarray().mean() - larger.asarray().mean()) < 0.02
        assert 'PhysicalSizeX="1.24"' in file.ome_metadata


def test_overlay_tints_what_is_marked_and_leaves_the_rest(tmp_path: Path) -> None:
    picture = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((120, 160), bool)
    mask[40:100, 60:140] = True
    write_overlay(picture, mask, tmp_path / "overlay.png")
    seen = cv2.imread(str(tmp_path / "overlay.png"))[..., ::-1]
    assert seen[5, 5].tolist() == [100, 100, 100]
    assert seen[35, 50].tolist() == [125, 75, 75]
    assert seen[20, 50].tolist() == [200, 0, 0]  # the outline
