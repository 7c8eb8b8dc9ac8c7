"""What is written for a DICOM archive, read back.

python -m pytest tests/proliferation/test_dicom.py
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from tamis.proliferation.dicom import source_image
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.scoring import Job, plan, work

SAMPLES = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples"
PHANTOM, MARKS = SAMPLES / "phantom.tif", SAMPLES / "phantom.csv"
PLACES = [tuple(map(float, row[1:])) for row in list(csv.reader(MARKS.read_text().splitlines()))[1:]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("highdicom")
    folder = tmp_path_factory.mktemp("out")
    (item,) = plan([str(PHANTOM)], folder)
    work(item, job=Job(marks=MARKS, dicom=True))
    return folder


def test_dicom_files_are_read_back(results: Path) -> None:
    pydicom, hd = pytest.importorskip("pydicom"), pytest.importorskip("highdicom")
    report = hd.sr.srread(results / "phantom" / "score.sr.dcm")
    (group,) = report.content.get_planar_roi_measurement_groups()
    measured = {m.name.meaning: m.value for m in group.get_measurements()}
    assert measured["Mitoses in the area of the score"] == 9
    assert measured["Mitotic score (tupac)"] == 2
    annotations = hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(
        pydicom.dcmread(results / "phantom" / "mitoses.ann.dcm")
    )
    (points,) = annotations.get_annotation_groups()
    found = np.concatenate(points.get_graphic_data(coordinate_type="2D"))
    assert np.allclose(sorted(map(tuple, found)), sorted((x / 0.25, y / 0.25) for x, y in PLACES), atol=0.01)
    assert annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID


def test_marks_are_manual_and_what_is_found_is_of_an_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    (group,) = written(tmp_path / "a")[1].AnnotationGroupSequence
    assert group.AnnotationGroupGenerationType == "MANUAL"
    assert "AnnotationGroupAlgorithmIdentificationSequence" not in group
    assert "MeasurementsSequence" not in group, "the marks state no probability"
    marks = tmp_path / "marks.csv"
    marks.write_text("image,x_um,y_um,confidence\nphantom,100,100,0.5\nphantom,200,200,\n")
    report, annotations = written(tmp_path / "b", marks)
    (group,) = annotations.AnnotationGroupSequence
    assert group.AnnotationGroupGenerationType == "MANUAL"
    (measured,) = group.MeasurementsSequence
    values = np.frombuffer(measured.MeasurementValuesSequence[0].FloatingPointValues, np.float32)
    assert values.tolist() == [0.5]
    assert "Algorithm Name" not in str(report)

    found = [Mitosis(100, 100, 0.75)]
    monkeypatch.setattr("tamis.proliferation.score._detected", lambda *_: (found, {"name": "a detector"}))
    report, annotations = written(tmp_path / "c", None)
    (group,) = annotations.AnnotationGroupSequence
    assert group.AnnotationGroupGenerationType == "AUTOMATIC"
    assert group.AnnotationGroupAlgorithmIdentificationSequence[0].AlgorithmName == "a detector"
    assert "Algorithm Name" in str(report) and "a detector" in str(report)


def test_a_dicom_slide_is_referenced_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    series = shared_data / "pathology" / "wsi" / "dicom_cmu_fixed"
    marks = tmp_path / "marks.csv"
    marks.write_text("image,x_um,y_um\ndicom_cmu_fixed,100,100\n")
    (item,) = plan([str(series)], tmp_path / "out")
    work(item, job=Job(marks=marks, dicom=True))
    report = pydicom.dcmread(item.output.parent / "score.sr.dcm")
    originals = [pydicom.dcmread(path, stop_before_pixels=True) for path in series.glob("*.dcm")]
    assert report.StudyInstanceUID in {original.StudyInstanceUID for original in originals}
    annotations = pydicom.dcmread(item.output.parent / "mitoses.ann.dcm")
    referenced = annotations.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    widths = {
        o.SOPInstanceUID: int(o.TotalPixelMatrixColumns) for o in originals if "TotalPixelMatrixColumns" in o
    }
    assert widths[referenced] == max(widths.values())


def test_a_file_of_a_reduced_level_stands_for_its_series(shared_data: Path) -> None:
    """openslide opens the whole series: positions are pixels of its full resolution."""
    pydicom = pytest.importorskip("pydicom")
    series = shared_data / "pathology" / "wsi" / "dicom_cmu_fixed"
    (full,) = series.glob("level-0-*.dcm")
    (reduced,) = series.glob("level-3-*.dcm")
    for path in (series, full, reduced):
        image = source_image(SimpleNamespace(path=path), {})
        assert image.SOPInstanceUID == pydicom.dcmread(full, stop_before_pixels=True).SOPInstanceUID


def written(folder: Path, marks: Path | None = MARKS, **settings: str) -> tuple[Any, Any]:
    """The report and the annotations of the phantom's marks, or of what the detector finds."""
    pydicom = pytest.importorskip("pydicom")
    (item,) = plan([str(PHANTOM)], folder)
    work(item, job=Job(dict(settings), marks=marks, dicom=True))
    return tuple(pydicom.dcmread(folder / "phantom" / n) for n in ("score.sr.dcm", "mitoses.ann.dcm"))


def test_another_result_is_another_object_of_the_same_study(tmp_path: Path) -> None:
    """An archive drops or overwrites what comes under a UID that it holds."""
    pytest.importorskip("highdicom")
    first, again = written(tmp_path / "a"), written(tmp_path / "b")
    other = written(tmp_path / "c", preset="nottingham:0.5")
    for one, same, new in zip(first, again, other, strict=True):
        assert one.SOPInstanceUID == same.SOPInstanceUID != new.SOPInstanceUID
        assert (one.StudyInstanceUID, one.SeriesInstanceUID) == (new.StudyInstanceUID, new.SeriesInstanceUID)


def test_a_round_hot_spot_is_written_round(tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    slide = tmp_path / "large.tif"
    pixels = np.full((8000, 8000, 3), (200, 150, 190), np.uint8)
    tifffile.imwrite(
        slide, pixels, photometric="rgb", tile=(256, 256), compression="zlib",
        resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    marks = tmp_path / "marks.csv"
    marks.write_text("image,x_um,y_um\nlarge,3900,4000\nlarge,4100,4000\n")
    (item,) = plan([str(slide)], tmp_path / "out")
    work(item, job=Job({"shape": "circle"}, marks=marks, dicom=True))
    report = hd.sr.srread(item.output.parent / "score.sr.dcm")
    (group,) = report.content.get_planar_roi_measurement_groups()
    x, y = group.roi.value.T
    area_mm2 = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2 / 1e6
    assert area_mm2 == pytest.approx(2.0, rel=0.005), "and not 4/pi times that, which its square has"
    assert np.hypot(x - 4000, y - 4000) == pytest.approx(1000 * math.sqrt(2 / math.pi), rel=0.001)
