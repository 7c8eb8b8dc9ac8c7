"""python -m pytest tests/proliferation/test_auxiliary.py"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tamis.errors import InputError
from tamis.proliferation.auxiliary import cut
from tamis.proliferation.fields import read_fields

SAMPLES = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples"


@pytest.fixture
def auxiliary(tmp_path: Path) -> Path:
    """Two cases in TUPAC16's folders: the phantom with its drawn mitoses, and its mirror image without a label."""
    pixels = tifffile.imread(SAMPLES / "phantom.tif", key=0)
    for part, case, picture in (("part_1", "01", pixels), ("part_2", "02", pixels[:, ::-1])):
        path = tmp_path / "images" / f"mitoses_image_data_{part}" / case / "01.tif"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), picture[..., ::-1])
    rows = [line.split(",")[1:] for line in (SAMPLES / "phantom.csv").read_text().splitlines()[1:]]
    labels = tmp_path / "labels" / "mitoses_ground_truth" / "01" / "01.csv"
    labels.parent.mkdir(parents=True)
    labels.write_text("".join(f"{float(y) / 0.25:.0f},{float(x) / 0.25:.0f}\n" for x, y in rows))
    (tmp_path / "labels" / "mitoses_ground_truth" / "02").mkdir()
    (tmp_path / "labels" / "mitoses_ground_truth" / "02" / "01.csv").write_text("")
    return tmp_path


def test_patches_are_what_the_detector_is_trained_on(auxiliary: Path) -> None:
    assert cut(auxiliary / "images", auxiliary / "labels", auxiliary / "data") == 9
    fields = read_fields(auxiliary / "data")
    assert len(fields) == 9
    assert {field.case for field in fields} == {"TUPAC16-AUX 01"}
    for field in fields:
        height, width = field.pixels.shape[:2]
        assert (height, width) == (128, 128)
        assert any(np.hypot(x - 64, y - 64) < 2 for x, y in field.mitoses)
        # The mitosis is the darkest thing in the middle, and no mined nucleus lies on it.
        assert field.pixels[52:76, 52:76].min() < 90
        assert all(np.hypot(x - 64, y - 64) > 28 for x, y, _ in field.mined)
        assert all(0 < rank <= 1 for *_, rank in field.mined)
    assert sum(len(field.mined) for field in fields) > 40


def test_the_table_that_says_all_is_there_is_written_last(
    auxiliary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tamis proliferation train` cuts no patches where it is; so not after a kill in between."""
    from tamis.proliferation import auxiliary as module

    written: list[str] = []
    monkeypatch.setattr(module, "_write", lambda path, *_: written.append(path.name))
    cut(auxiliary / "images", auxiliary / "labels", auxiliary / "data")
    assert written[-1] == "mitoses.csv" and len(written) == 3


def test_labels_without_an_image_are_refused(auxiliary: Path) -> None:
    extra = auxiliary / "labels" / "mitoses_ground_truth" / "03" / "01.csv"
    extra.parent.mkdir()
    extra.write_text("5,5\n")
    with pytest.raises(InputError, match="labels of 03/01, of which"):
        cut(auxiliary / "images", auxiliary / "labels", auxiliary / "data")


def test_fields_without_a_mitosis_are_refused(auxiliary: Path) -> None:
    (auxiliary / "labels" / "mitoses_ground_truth" / "01" / "01.csv").write_text("")
    with pytest.raises(InputError, match="has a mitosis"):
        cut(auxiliary / "images", auxiliary / "labels", auxiliary / "data")
