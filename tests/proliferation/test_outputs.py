"""What is written for a slide: for QuPath, for viewers of OME-TIFF.

python -m pytest tests/proliferation/test_outputs.py
"""

from __future__ import annotations

import csv
import json
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.outputs import density, write_density_picture, write_geojson
from tamis.proliferation.score import score
from tamis.proliferation.scoring import Job, plan, work
from tamis.slides import open_slide

SAMPLES = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples"
PHANTOM, MARKS = SAMPLES / "phantom.tif", SAMPLES / "phantom.csv"
PLACES = [tuple(map(float, row[1:])) for row in list(csv.reader(MARKS.read_text().splitlines()))[1:]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    (item,) = plan([str(PHANTOM)], folder)
    work(item, job=Job(marks=MARKS))
    return folder


def test_geojson_is_a_feature_collection_in_pixels(results: Path) -> None:
    collection = json.loads((results / "phantom" / "mitoses.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    points = [f for f in collection["features"] if f["geometry"]["type"] == "Point"]
    found = sorted(tuple(f["geometry"]["coordinates"]) for f in points)
    assert np.allclose(found, sorted((x / 0.25, y / 0.25) for x, y in PLACES), atol=0.01)
    assert all(f["properties"]["measurements"] == {} for f in points), "the marks state no probability"
    assert all(f["properties"]["objectType"] == "detection" for f in points)
    (spot,) = [f for f in collection["features"] if f["geometry"]["type"] == "Polygon"]
    (ring,) = spot["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    shapely = pytest.importorskip("shapely.geometry")
    assert all(shapely.Polygon(ring).buffer(1).contains(shapely.Point(point)) for point in found)


def test_the_density_map_integrates_to_the_count() -> None:
    generator = np.random.default_rng(0)
    places = generator.uniform(2000, 6000, (40, 2))
    values, um_per_px = density([Mitosis(x, y, 1.0) for x, y in places], (8000.0, 8000.0))
    assert values.sum() * (um_per_px / 1000) ** 2 == pytest.approx(40, rel=0.001)


def test_the_density_map_is_an_ome_tiff_with_its_resolution(results: Path) -> None:
    with tifffile.TiffFile(results / "phantom" / "density.ome.tiff") as tiff:
        assert tiff.is_ome
        assert 'PhysicalSizeX="32.0"' in tiff.ome_metadata
        assert tiff.asarray().shape == (14, 18)
    assert max(cv2.imread(str(results / "phantom" / "density.png")).shape) == 512


def test_a_large_density_map_has_a_pyramid(tmp_path: Path) -> None:
    from tamis.proliferation.outputs import write_density

    values = np.random.default_rng(0).random((1200, 1500), np.float32)
    write_density(tmp_path / "d.ome.tiff", values, 32.0)
    with tifffile.TiffFile(tmp_path / "d.ome.tiff") as tiff:
        assert [level.shape for level in tiff.series[0].levels] == [(1200, 1500), (600, 750), (300, 375)]
        assert np.array_equal(tiff.asarray(), values)


def test_a_window_larger_than_the_slide_is_named_and_drawn_as_what_was_counted(results: Path) -> None:
    collection = json.loads((results / "phantom" / "mitoses.geojson").read_text())
    (spot,) = [f for f in collection["features"] if f["geometry"]["type"] == "Polygon"]
    (ring,) = spot["geometry"]["coordinates"]
    with open_slide(PHANTOM) as slide:
        assert np.min(ring) >= 0 and (np.max(ring, 0) <= slide.size_px).all()
    record = json.loads((results / "phantom" / "score.json").read_text())
    assert spot["properties"]["name"] == f"Hot spot, 9 mitoses in {record['area_mm2']:.2f} mm2"
    assert spot["properties"]["measurements"]["Mitoses per mm2"] == pytest.approx(
        9 / record["area_mm2"], rel=0.001
    )


def test_marks_lie_where_qupath_shows_them(tmp_path: Path) -> None:
    """Of an MRXS or SCN it shows what was scanned alone, and counts pixels from its corner."""
    with open_slide(PHANTOM) as slide:
        found = score(slide, mitoses=[Mitosis(100.0, 200.0, 1.0)])
        slide._file.origin_px = (30, 50)  # type: ignore[attr-defined]
        write_geojson(tmp_path / "m.geojson", found, slide)
        right, bottom = slide.size_px
    spot, point = json.loads((tmp_path / "m.geojson").read_text())["features"]
    assert point["geometry"]["coordinates"] == [100 / 0.25 - 30, 200 / 0.25 - 50]
    corners = np.array(spot["geometry"]["coordinates"][0])
    assert corners.min(0).tolist() == [-30, -50] and corners.max(0).tolist() == [right - 30, bottom - 50]


def test_a_picture_that_cannot_be_written_is_no_silence(tmp_path: Path) -> None:
    """A real failure in the middle of writing, by a limit on file sizes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).random((600, 600)).astype(np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_density_picture(tmp_path / "density.png", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
