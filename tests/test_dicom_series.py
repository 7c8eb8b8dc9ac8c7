"""python -m pytest tests/test_dicom_series.py

On the real series, with instances taken away, renumbered or cut in parts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.errors import InputError
from tamis.slides import open_slide

pydicom = pytest.importorskip("pydicom")
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.fixture
def series(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    for path in (shared_data / "pathology" / "wsi" / "dicom_cmu_fixed").glob("*.dcm"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def instance(series: Path, level: int) -> Path:
    (path,) = series.glob(f"level-{level}-*.dcm")
    return path


def test_a_whole_series_opens(series: Path) -> None:
    with open_slide(series) as slide:
        assert slide.size_px == (2220, 2967)


def test_without_the_full_resolution(series: Path) -> None:
    instance(series, 0).unlink()
    with pytest.raises(InputError, match="misses the instance with the full resolution"):
        open_slide(series)
    with pytest.raises(InputError, match="misses the instance with the full resolution"):
        open_slide(instance(series, 1))


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_without_a_level_in_between(series: Path, level: int) -> None:
    instance(series, level).unlink()
    with pytest.raises(InputError, match=f"misses a level between those .* number {level + 1};"):
        open_slide(series)


def test_two_slides_in_one_folder(series: Path) -> None:
    """The larger would be taken for both."""
    smallest = max(series.glob("level-*.dcm"), key=lambda path: int(path.name.split("-")[1]))
    data = pydicom.dcmread(smallest)
    data.SeriesInstanceUID = pydicom.uid.generate_uid()
    data.save_as(series / "other.dcm")
    with pytest.raises(InputError, match=r"more than one DICOM slide: other\.dcm belongs to another series"):
        open_slide(series)
    with open_slide(instance(series, 0)) as slide:  # named, it is clear which
        assert slide.size_px == (2220, 2967)


def test_a_label_that_was_taken_out_is_not_missed(series: Path) -> None:
    """Numbers are left out where names were hidden; the pyramid is whole."""
    for level in range(2, 12):
        data = pydicom.dcmread(instance(series, level))
        data.InstanceNumber = int(data.InstanceNumber) + 1
        data.save_as(instance(series, level))
    open_slide(series).close()


def test_without_a_level_but_with_all_numbers(series: Path) -> None:
    """Whoever left it out numbered the rest: nothing was lost on the way."""
    instance(series, 2).unlink()
    for level in range(3, 12):
        data = pydicom.dcmread(instance(series, level))
        data.InstanceNumber = int(data.InstanceNumber) - 1
        data.save_as(instance(series, level))
    open_slide(series).close()


def test_with_some_of_its_frames(series: Path) -> None:
    data = pydicom.dcmread(instance(series, 1))
    data.NumberOfFrames = 5
    data.save_as(instance(series, 1))
    with pytest.raises(InputError, match="1110 x 1483 px has 5 of 9 frames"):
        open_slide(series)


def test_without_a_part_of_a_concatenation(series: Path) -> None:
    """Sparse levels do not say how many frames they need: the parts do."""
    data = pydicom.dcmread(instance(series, 1))
    data.DimensionOrganizationType = "TILED_SPARSE"
    data.ConcatenationUID, data.InConcatenationNumber, data.InConcatenationTotalNumber = "1.2.3", 2, 3
    data.save_as(instance(series, 1))
    with pytest.raises(InputError, match="1 of the 3 parts"):
        open_slide(series)


def test_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "slide.dcm").write_bytes(b"no DICOM at all" * 100)
    with pytest.raises(InputError, match=r"slide\.dcm is no readable DICOM instance"):
        open_slide(tmp_path / "slide.dcm")
