"""What is written for a DICOM archive, read back.

python -m pytest tests/proliferation/test_dicom.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

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
