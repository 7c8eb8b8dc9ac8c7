"""python -m pytest tests/proliferation/test_score.py"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tamis.errors import InputError
from tamis.proliferation import score as module
from tamis.proliferation.features import NAMES
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.regions import Region
from tamis.proliferation.score import Settings, SlideScore, score
from tamis.slides import open_slide

PHANTOM = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples" / "phantom.tif"
RANKED = [Region(10.0 * n, 0, 10, 200, 100 - n) for n in range(40)]
FOUND = [Mitosis(5, 9, 0.9), Mitosis(295, 9, 0.9), Mitosis(355, 9, 0.9)]


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phantom, as if it held more than its regions."""
    monkeypatch.setattr(module, "AREA_MM2", 0.0001)
    monkeypatch.setattr(module, "rank_regions", lambda *_, limit: RANKED[:limit])
    monkeypatch.setattr(module, "_detected", lambda *_: (FOUND, {"name": "a detector"}))


def scored(regions: int, mitoses: list[Mitosis] | None = None) -> SlideScore:
    with open_slide(PHANTOM) as slide:
        return score(slide, Settings(regions=regions), mitoses)


def test_the_features_are_of_thirty_regions_however_many_are_searched() -> None:
    """A model knows them so."""
    usual = scored(30, FOUND)
    for regions in (0, 5, 35):
        found = scored(regions, FOUND)
        assert len(found.regions) == (regions or 40)
        assert found.features == usual.features
    assert usual.features["cells_min"] == pytest.approx((100 - 29) * 1000)


def test_a_model_of_regions_that_are_not_searched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored(5).whole is False, "the published model asks for none of them"
    asks = SimpleNamespace(preprocessing={"features": [NAMES[0]]})
    monkeypatch.setattr(module, "load", lambda path: asks)
    with pytest.raises(InputError, match="first 30 regions, and 5 are to be searched: give --regions 30"):
        scored(5)
