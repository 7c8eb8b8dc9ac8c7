"""python -m pytest tests/proliferation/test_features.py"""

from __future__ import annotations

import numpy as np
import pytest

from tamis.proliferation.features import NAMES, slide_features
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region

SIDE = 1414.213562373095
REGIONS = [
    Region(0, 0, SIDE, SIDE, 999),
    Region(2000, 0, SIDE, SIDE, 499),
    Region(0, 2000, SIDE, SIDE / 2, 250),
]
MITOSES = (
    [Mitosis(10, 10, 0.9)] * 4 + [Mitosis(2100, 50, 0.8)] * 2 + [Mitosis(50, 2100, 0.9), Mitosis(9e4, 0, 1.0)]
)


def features(mitoses: list[Mitosis], regions: list[Region]) -> dict[str, float]:
    return dict(zip(NAMES, slide_features(mitoses, regions), strict=True))


def test_twenty_one_numbers_worked_by_hand() -> None:
    found = features(MITOSES, REGIONS)
    assert len(found) == 21
    # 4, 2 and, in half the area, 1: two in 2 mm2.
    assert found["mitoses_max"] == pytest.approx(4)
    assert found["mitoses_sum"] == pytest.approx(8)
    assert found["mitoses_median"] == pytest.approx(2)
    assert found["mitoses_top3"] == pytest.approx(8 / 3)
    assert found["mitoses_sd"] == pytest.approx(np.std([4, 2, 2]))
    assert found["cells_mean"] == pytest.approx((999 + 499 + 500) / 3)
    assert found["mitoses_per_1000_cells_min"] == pytest.approx(1000 * 1 / 250.5)


def test_the_order_of_regions_does_not_matter() -> None:
    assert np.allclose(slide_features(MITOSES, REGIONS), slide_features(MITOSES, REGIONS[::-1]))


def test_nothing_gives_zeros() -> None:
    assert not slide_features([], []).any()
    assert features([], REGIONS)["mitoses_max"] == 0
    assert np.isfinite(slide_features(MITOSES, [Region(0, 0, 10, 10, 0)])).all()
