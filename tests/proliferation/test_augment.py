"""Windows in other stains, tones and positions.

python -m pytest tests/proliferation/test_augment.py
"""

from __future__ import annotations

import cv2
import numpy as np

from tamis.proliferation.augment import SOURCE_PX, augmented, other_dyes, other_tones, placed, varied
from tamis.proliferation.stain import RUIFROK, Stain, stain_of


def tissue(side: int = SOURCE_PX, seed: int = 0) -> np.ndarray:
    amounts = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 0.9, (side, side, 2)), (0, 0), 3)
    amounts = np.clip((amounts - 0.45) * 4 + 0.4, 0, 1.2)
    return np.clip(246 * 10 ** -(amounts @ RUIFROK) - 1, 0, 255).astype(np.uint8)


def test_the_nucleus_stays_within_the_jitter() -> None:
    source = np.full((SOURCE_PX, SOURCE_PX, 3), 230, np.uint8)
    cv2.circle(source, (SOURCE_PX // 2, SOURCE_PX // 2), 6, (20, 20, 20), -1)
    for seed in range(30):
        seen = placed(source, (0.0, 0.0), 128, np.random.default_rng(seed))
        y, x = np.nonzero(seen[..., 0] < 100)
        assert len(y) > 50
        assert np.hypot(y.mean() - 63.5, x.mean() - 63.5) < 9 * 2**0.5 * 1.17 + 1


def test_a_window_takes_the_colours_of_another_stain() -> None:
    pixels, brown = (
        tissue(128),
        Stain(np.array([120, 150, 150], np.float32), np.array([25, 8, 9], np.float32)),
    )
    own = stain_of(pixels)
    assert own is not None
    moved = []
    for seed in range(60):
        seen = stain_of(varied(pixels, np.random.default_rng(seed), own=own, others=[brown]))
        assert seen is not None
        moved.append(seen.mean[2] - own.mean[2])
    towards = brown.mean[2] - own.mean[2]
    assert max(np.array(moved) / towards) > 0.7  # some arrive there
    assert np.mean(np.abs(moved) < 2) > 0.1  # and some stay what they were


def test_dyes_and_tones_change_colours_and_leave_shapes() -> None:
    pixels = tissue(128)
    for change in (other_dyes, other_tones):
        changed = [change(pixels, np.random.default_rng(seed)) for seed in range(20)]
        apart = [np.abs(c.astype(int) - pixels).mean() for c in changed]
        assert max(apart) > 8
        grey = [np.corrcoef(c.mean(2).ravel(), pixels.mean(2).ravel())[0, 1] for c in changed]
        assert np.median(grey) > 0.95


def test_a_seed_decides_everything() -> None:
    source = tissue()
    seen = [augmented(source, (0.2, 0.1), 128, np.random.default_rng(4)) for _ in range(2)]
    assert np.array_equal(seen[0], seen[1]) and seen[0].shape == (128, 128, 3)
