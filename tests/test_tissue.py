"""The tissue mask: what is stained, and not ink, glass or dust.

python -m pytest tests/test_tissue.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis.errors import InputError
from tamis.slides import open_slide, tissue_mask
from tamis.tissue import tissue_in

GLASS = (244, 243, 242)
EOSIN, PURPLE, FAINT = (235, 150, 195), (150, 90, 160), (238, 212, 228)
INKS = {"black": (25, 25, 28), "blue": (40, 60, 190), "green": (30, 130, 60), "red": (200, 40, 45)}


def glass(seed: int = 0) -> np.ndarray:
    """400 x 300 at 8 um/px with scanner noise."""
    noise = np.random.default_rng(seed).normal(0, 1.5, (300, 400, 3))
    return np.clip(np.array(GLASS) + noise, 0, 255).astype(np.uint8)


def with_tissue(colour: tuple[int, int, int]) -> np.ndarray:
    picture = glass()
    cv2.ellipse(picture, (120, 150), (80, 60), 20, 0, 360, colour, -1)
    return picture


@pytest.mark.parametrize("colour", [EOSIN, PURPLE, FAINT])
def test_tissue_is_found_also_faint(colour: tuple[int, int, int]) -> None:
    mask = tissue_in(with_tissue(colour), 8.0)
    assert mask[150, 120] and mask[130:170, 80:160].all()
    assert not mask[:, 250:].any()
    assert abs(mask.sum() / (np.pi * 80 * 60) - 1) < 0.15


def test_a_blank_slide_has_none() -> None:
    assert not tissue_in(glass(), 8.0).any()
    assert not tissue_in(np.full((50, 50, 3), 255, np.uint8), 8.0).any()


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_no_tissue(ink: str) -> None:
    picture = with_tissue(EOSIN)
    cv2.line(picture, (280, 20), (380, 280), INKS[ink], 14)
    mask = tissue_in(picture, 8.0)
    assert mask[150, 120]
    assert mask[:, 270:].mean() < 0.01


def test_fat_is_mostly_left_out() -> None:
    picture = with_tissue(EOSIN)
    for y in range(60, 240, 24):
        for x in range(270, 390, 24):
            cv2.circle(picture, (x, y), 11, EOSIN, 1)
    mask = tissue_in(picture, 8.0)
    assert mask[150, 120] and mask[60:240, 270:390].mean() < 0.5


def test_a_fold_does_not_hide_faint_tissue() -> None:
    picture = with_tissue(FAINT)
    cv2.line(picture, (80, 120), (160, 190), (70, 25, 80), 8)
    assert tissue_in(picture, 8.0)[130:170, 80:160].mean() > 0.95


def test_dust_specks_are_dropped() -> None:
    picture = with_tissue(EOSIN)
    picture[20:24, 350:354] = PURPLE
    assert not tissue_in(picture, 8.0)[:40, 330:].any()


def test_real_slides(shared_data: Path) -> None:
    with open_slide(shared_data / "pathology" / "wsi" / "CMU-1-Small-Region.svs") as slide:
        mask, um_per_px = tissue_mask(slide)
        assert um_per_px == 8.0 and mask.shape == (186, 139)
        assert 0.15 < mask.mean() < 0.6


def test_fluorescence_is_refused(shared_data: Path) -> None:
    path = shared_data / "pathology" / "wsi" / "test3-DAPI-2-387.ndpi"
    with open_slide(path) as slide, pytest.raises(InputError, match="fluorescence"):
        tissue_mask(slide)
