"""Grounds of composed slides: split by patient, without their own mitoses, the same however they are read.

python -m pytest tests/proliferation/test_textures.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis.errors import InputError
from tamis.proliferation.stain import Stain, repainted, stain_of
from tamis.proliferation.textures import CELL_PX, GLASS, MITOSES, SEAM_PX, Ground, grounds_of


def texture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 40, (800, 900, 3))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 2) * 4 + (190, 120, 180), 0, 255).astype(np.uint8)


def test_a_part_of_the_plane_is_the_same_across_seams() -> None:
    ground = Ground([texture(), texture(1)], stain_of(texture()), size_px=4000, seed=4)
    whole = ground.pixels(600, 600, 900, 900)
    for left, top, width, height in ((600, 600, 10, 10), (630, 650, 120, 80), (1275, 1279, 200, 3)):
        part = ground.pixels(left, top, width, height)
        assert np.array_equal(part, whole[top - 600 : top - 600 + height, left - 600 : left - 600 + width])


def test_every_place_knows_what_it_shows() -> None:
    textures = [texture(), texture(1)]
    ground = Ground(textures, stain_of(textures[0]), size_px=4000, seed=4)
    y, x = np.argwhere(cv2.erode((ground.tissue >= 1).astype(np.uint8), np.ones((5, 5))) > 0)[0] * 32
    for cell in range(9):
        left, top = x + CELL_PX * (cell % 3), y + CELL_PX * (cell // 3)
        # Away from seams, where two textures are mixed.
        left, top = (int(v // CELL_PX * CELL_PX + SEAM_PX + 50) for v in (left, top))
        number, across, down = ground.origin(left, top)
        if (ground.pixels(left, top, 1, 1) != GLASS).any():
            assert np.array_equal(ground.pixels(left, top, 1, 1)[0, 0], ground.textures[number][down, across])


def test_far_from_tissue_there_is_glass() -> None:
    ground = Ground([texture()], stain_of(texture()), size_px=4000, seed=4)
    row, column = np.argwhere(cv2.erode((ground.tissue <= 0).astype(np.uint8), np.ones((5, 5))) > 0)[0]
    assert (ground.pixels(int(column) * 32, int(row) * 32, 20, 20) == GLASS).all()


def test_patients_are_in_one_part_each(tmp_path: Path) -> None:
    for patient in "abcdefghi":
        for n in (1, 2):
            value = 10 * (ord(patient) - 96)
            picture = np.full((CELL_PX + SEAM_PX, CELL_PX + SEAM_PX, 3), value, np.uint8)
            cv2.imwrite(str(tmp_path / f"{patient}_malignant{n}.png"), picture)
    seen = {
        part: [int(g.mean()) for g in grounds_of(tmp_path, part)] for part in ("train", "validation", "test")
    }
    assert sorted(v for values in seen.values() for v in values) == sorted(2 * [10 * n for n in range(1, 10)])
    assert not set(seen["train"]) & set(seen["test"]) and not set(seen["validation"]) & set(seen["test"])
    assert all(values.count(v) == 2 for values in seen.values() for v in values)


def test_no_ground_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected breast_ucsb \(docs/data.md\)"):
        grounds_of(tmp_path, "test")


def test_figures_of_the_fields_are_painted_over(shared_data: Path) -> None:
    folder = shared_data / "pathology" / "breast_ucsb" / "images"
    (name, places), *_ = MITOSES.items()
    original = cv2.imread(str(folder / f"{name}.jpg"))[..., ::-1]
    grounds = [g for part in ("train", "validation", "test") for g in grounds_of(folder, part)]
    same = [g for g in grounds if (g == original).mean() > 0.9]
    assert len(same) == 1
    for x, y in places:
        here = slice(int(y) - 6, int(y) + 6), slice(int(x) - 6, int(x) + 6)
        assert same[0][here].mean() > original[here].mean() + 30


def test_repainting_brings_the_colours_and_leaves_glass() -> None:
    pixels = texture()
    pixels[:100] = 250
    own = stain_of(pixels)
    assert own is not None
    to = Stain(own.mean + np.float32([-20, 8, -6]), own.deviation)
    out = repainted(pixels, own, to)
    after = stain_of(out)
    assert after is not None and np.abs(after.mean - to.mean).max() < 3
    assert np.abs(out[:100].astype(int) - 250).max() <= 2
    assert np.abs(repainted(pixels, own, own).astype(int) - pixels).mean() < 1.5


def test_glass_has_no_stain() -> None:
    assert stain_of(np.full((50, 50, 3), 240, np.uint8)) is None
