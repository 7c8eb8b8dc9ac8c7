"""Composed slides: the same from the same seed, the same pixels however they are read, the truth they claim.

python -m pytest tests/proliferation/test_compose.py
"""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from tamis.cli import main
from tamis.errors import OutputError
from tamis.proliferation.compose import COUNTS, Composer, write_slide
from tamis.proliferation.fields import read_fields, split_cases
from tamis.proliferation.regions import cell_centres, rank_regions
from tamis.slides import open_slide, tissue_mask
from tamis.writing import reserve


@pytest.fixture(scope="module")
def composer(shared_data: Path) -> Composer:
    return Composer(shared_data / "pathology", size_px=2048, seed=3)


def test_a_rectangle_is_the_same_wherever_its_borders_lie(composer: Composer) -> None:
    whole = composer.pixels(300, 500, 900, 700)
    assert np.array_equal(composer.pixels(700, 600, 300, 300), whole[100:400, 400:700])


def test_the_truth_follows_its_row(composer: Composer, shared_data: Path) -> None:
    truth = composer.truth()
    low, high = COUNTS[truth["mitotic_score"]]
    assert low <= truth["hot_spot_count"] <= high
    parts = split_cases(read_fields(shared_data / "pathology"))
    assert {parts[o["case"]] for o in truth["objects"]} <= {"test"}
    assert {o["kind"] for o in truth["objects"]} <= {"mitosis", "expert", "mined"}


def test_the_verb_writes_a_pyramid_and_its_truth(tmp_path: Path, shared_data: Path) -> None:
    out = tmp_path / "a.tif"
    arguments = ["proliferation", "compose", "-o", str(out), "--size", "1500", "--seed", "5", "--data"]
    assert main([*arguments, str(shared_data)]) == 0
    truth = json.loads((tmp_path / "a.truth.json").read_text())
    assert truth["seed"] == 5 and "synthetic layout" in truth["kind"]
    with open_slide(out) as slide:
        assert slide.size_px == (1500, 1500) and slide.um_per_px == pytest.approx(0.25)
        assert [level.downsample for level in slide.levels] == [1, 4, 16]
        small = slide.read_region(0, 0, 375, 375, 1.0).astype(int)
        full = slide.read_level(0, 0, 0, 1500, 1500).reshape(375, 4, 375, 4, 3).mean((1, 3))
        error = np.abs(small - full).mean()  # two JPEG codings apart, but in place
        assert error < 6 and error < 0.8 * np.abs(small[:, 1:] - full[:, :-1]).mean()
        mask = tissue_mask(slide)
        assert 0.2 < mask[0].mean() < 0.95
        regions = rank_regions(slide, mask, area_mm2=0.02)
        assert [r.cells for r in regions] == sorted((r.cells for r in regions), reverse=True)
        assert regions[0].cells > 20 and len(cell_centres(slide, mask)) >= regions[0].cells


class Plain:
    """A slide of one colour, composed of nothing."""

    size_px = 1000

    def pixels(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), (200, 150, 190), np.uint8)

    def truth(self) -> dict[str, int]:
        return {"seed": 0}


def test_the_room_for_the_pyramid_is_taken_before_it_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a mapped file without it, a full disk ends the process (SIGBUS)."""
    write_slide(Plain(), tmp_path / "a.tif")  # type: ignore[arg-type]
    with open_slide(tmp_path / "a.tif") as slide:
        assert [level.width_px for level in slide.levels] == [1000, 250, 63]
        assert np.abs(slide.read_level(2, 0, 0, 48, 48).astype(int) - (200, 150, 190)).max() < 4
    free = iter([None, OSError(errno.ENOSPC, "No space left on device")])

    def full(path: Path, size_bytes: int) -> None:
        assert size_bytes in (250 * 250 * 3, 63 * 63 * 3)
        if error := next(free):
            raise error
        reserve(path, size_bytes)

    monkeypatch.setattr("tamis.proliferation.compose.reserve", full)
    with pytest.raises(OutputError, match=r"b\.tif was not written: the disk is full"):
        write_slide(Plain(), tmp_path / "b.tif")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "a.truth.json"]


def test_wrong_sizes_are_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proliferation", "compose", "-o", str(tmp_path / "a.tif"), "--size", "3"]) == 2
    assert "--size" in capsys.readouterr().err
    assert main(["proliferation", "compose", "-o", str(tmp_path / "a.tif"), "--count", "3"]) == 2


def test_without_the_data_its_page_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAMIS_DATA", str(tmp_path / "nowhere"))
    assert main(["proliferation", "compose", "-o", str(tmp_path / "out" / "a.tif")]) == 1
    told = capsys.readouterr().err
    assert f"There is no folder {tmp_path / 'nowhere' / 'pathology'}" in told and "docs/data.md" in told
    assert not (tmp_path / "out").exists()
