"""Planted nuclei for training.

python -m pytest tests/proliferation/test_grounds.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.proliferation import grounds
from tamis.proliferation.augment import SOURCE_PX
from tamis.proliferation.candidates import dark_nuclei
from tamis.proliferation.compose import Composer


def test_a_sheet_holds_a_slide_s_planted_nuclei_and_its_ground(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounds, "SHEET_SLIDE_PX", 2560)
    monkeypatch.setattr(grounds, "OF_A_SHEET", {"mitosis": 3, "expert": 1, "mined": 5, "ground": 2})
    data, seed = shared_data / "pathology", grounds.SHEET_SEED
    (field,), nuclei = grounds.planted_nuclei(data, 7, dark_nuclei, tmp_path, sheets=1)
    assert [n.label for n in nuclei].count(1) == 3 and {n.field for n in nuclei} == {7}
    assert field.pixels.shape == (SOURCE_PX * len(nuclei), SOURCE_PX, 3)
    composer = Composer(data, size_px=2560, seed=seed, part="train", mitoses=3)
    mitoses = [o for o in composer.objects if o.kind == "mitosis"][:3]
    half = SOURCE_PX // 2
    for (x, y), o in zip(field.mitoses, mitoses, strict=True):
        wanted = composer.pixels(
            round(o.x_um * 4) - half, round(o.y_um * 4) - half, SOURCE_PX, SOURCE_PX
        ).astype(int)
        shown = field.pixels[int(y) - half : int(y) + half, int(x) - half : int(x) + half]
        assert np.abs(shown - wanted).mean() < 6  # JPEG
    kinds = [n.weight for n in nuclei if not n.label]
    assert kinds.count(grounds.SHEET_WEIGHTS["expert"]) == 1 and len(kinds) == 1 + 5 + 2
    again, same = grounds.planted_nuclei(data, 7, lambda p: np.empty((0, 2)), tmp_path, sheets=1)
    assert same == nuclei and np.array_equal(again[0].pixels, field.pixels)  # read, not made again
