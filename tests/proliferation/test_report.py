"""python -m pytest tests/proliferation/test_report.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.proliferation import outputs, report
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.score import Settings, score
from tamis.slides import open_slide

PHANTOM = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples" / "phantom.tif"


def test_what_the_detector_searched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mitoses = [Mitosis(100.0 + 20 * n, 100, 0.9 - n / 20) for n in range(9)]
    detector = {"name": "a detector", "sha256": "0"}
    monkeypatch.setattr("tamis.proliferation.score._detected", lambda *_: (mitoses, detector))
    with open_slide(PHANTOM) as slide:
        found = score(slide)
        record = outputs.record(slide, found, Settings(), "phantom.tif")
        page = report.page(slide, found, record, outputs.density(found.mitoses, slide.size_um)[0])
    assert record["whole_tissue_searched"] is True
    assert record["searched_mm2"] == record["tissue_mm2"] and record["not_searched_mm2"] == 0
    count = record["mitoses"]
    assert count > 0
    assert record["mitoses_per_searched_mm2"] == pytest.approx(count / record["searched_mm2"], rel=0.001)
    assert record["hot_spot_if_even"] == {"count": count, "low": count, "high": count}, "all in one window"
    assert "Not searched: 0.00 mm²" in page and "the detector misses or invents" in page
    assert "no more than chance gathers" in page and f"The {count} likeliest of {count} mitoses" in page
