"""Augmentation keeps what the label says.  python -m pytest tests/weakseg/test_augment.py"""

from __future__ import annotations

import itertools

import numpy as np

from tamis.weakseg.augment import STAINS, UNMIX, shake_light, shake_stain, turn
from tamis.weakseg.phantom import phantom

IMAGE, _ = phantom(60, 40, seed=2)
MASK = np.random.default_rng(1).random((40, 60)) < 0.3


def test_turns_are_the_eight_symmetries_and_keep_the_area() -> None:
    seen = set()
    for transpose, flip_x, flip_y in itertools.product([False, True], repeat=3):
        turned = turn(MASK, transpose=transpose, flip_x=flip_x, flip_y=flip_y)
        assert turned.sum() == MASK.sum()
        assert turned.shape == ((60, 40) if transpose else (40, 60))
        seen.add(turned.tobytes())
    assert len(seen) == 8


def test_image_and_mask_turn_alike() -> None:
    both = np.dstack([MASK, MASK, MASK]).astype(np.uint8)
    flips = {"transpose": True, "flip_x": True, "flip_y": False}
    np.testing.assert_array_equal(turn(both, **flips)[..., 0] > 0, turn(MASK, **flips))


def test_stain_is_shaken_and_no_change_is_none() -> None:
    same = shake_stain(IMAGE, np.random.default_rng(0), gain=0, offset=0)
    assert np.abs(same.astype(int) - IMAGE).max() <= 1
    other = shake_stain(IMAGE, np.random.default_rng(0))
    assert 1 < np.abs(other.astype(int) - IMAGE).mean() < 60
    assert shake_light(IMAGE, np.random.default_rng(0)).shape == IMAGE.shape


def test_stains_are_unmixed() -> None:
    np.testing.assert_allclose(UNMIX @ STAINS, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(STAINS, axis=1), 1)
