"""From pictures and slides to files, with a network that marks what is dark.

python -m pytest tests/weakseg/test_segmentation.py
"""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from saved import save
from toy import toy_network

from tamis.errors import InputError, OutputError
from tamis.slides import UnknownResolution
from tamis.weakseg.maps import read_map
from tamis.weakseg.phantom import phantom
from tamis.weakseg.segmentation import ArrayRegions, predict, segment_file
from tamis.weakseg.source import expand_sources

ENDINGS = ("probability.ome.tiff", "mask.geojson", "overlay.png", "summary.json")


def write_slide(path: Path, pixels: np.ndarray, um_per_px: float | None) -> Path:
    """A pyramidal tiled TIFF."""
    resolution = (
        {} if um_per_px is None else {"resolution": (1e4 / um_per_px,) * 2, "resolutionunit": "CENTIMETER"}
    )
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, tile=(256, 256), compression="jpeg", photometric="rgb", subifds=1, **resolution)
        file.write(pixels[::2, ::2], tile=(256, 256), compression="jpeg", photometric="rgb", subfiletype=1)
    return path


@pytest.fixture
def slide_pixels() -> np.ndarray:
    pixels = np.full((1100, 1400, 3), 242, np.uint8)
    pixels[200:900, 300:1100] = (205, 150, 190)
    pixels[400:700, 500:900] = (90, 50, 120)  # dark: "cancer"
    pixels[500:600, 650:750] = (205, 150, 190)  # a hole in it
    return pixels


def test_pixels_far_coarser_than_the_networks_are_refused(tmp_path: Path) -> None:
    picture = save(tmp_path / "radiograph.png", phantom(60, 40, seed=1, um_per_px=1.0)[0])
    with pytest.raises(InputError, match=r"radiograph\.png: a pixel is 1000 um wide"):
        segment_file(picture, tmp_path / "out", toy_network(tmp_path / "toy"), mpp=1000.0)
    assert not list((tmp_path / "out").iterdir())


def test_a_picture_gives_four_files(tmp_path: Path) -> None:
    image, _ = phantom(300, 200, seed=1, um_per_px=1.0)
    picture = save(tmp_path / "field.v2.png", image)
    out = tmp_path / "out"
    summary = segment_file(picture, out, toy_network(tmp_path / "toy"), mpp=1.0)
    assert sorted(p.name for p in out.iterdir()) == sorted(f"field.v2.{ending}" for ending in ENDINGS)
    probability = read_map(out / "field.v2.probability.ome.tiff")
    assert probability.shape == (200, 300)  # a picture's map has its size
    assert summary["cancer_mm2"] == pytest.approx((probability > 0.5).sum() * 1e-6, rel=1e-3)
    assert json.loads((out / "field.v2.summary.json").read_text()) == summary
    overlay = cv2.imread(str(out / "field.v2.overlay.png"))
    assert overlay.shape == (200, 300, 3)


def test_a_slide_in_micrometres(tmp_path: Path, slide_pixels: np.ndarray) -> None:
    slide = write_slide(tmp_path / "a.tif", slide_pixels, 1.0)
    summary = segment_file(slide, tmp_path, toy_network(tmp_path / "toy", um_per_px=2.0))
    assert summary["um_per_px"] == pytest.approx(1.0)
    assert summary["map_size_px"] == [700, 550]
    assert summary["cancer_mm2"] == pytest.approx((400 * 300 - 100 * 100) * 1e-6, rel=0.03)
    assert summary["tissue_mm2"] == pytest.approx(800 * 700 * 1e-6, rel=0.1)
    (feature,) = json.loads((tmp_path / "a.mask.geojson").read_text())["features"]
    outline, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    np.testing.assert_allclose(outline.min(0), (500, 400), atol=4)  # full-resolution pixels, x first
    np.testing.assert_allclose(outline.max(0), (900, 700), atol=4)
    np.testing.assert_allclose(hole.max(0), (750, 600), atol=4)
    with tifffile.TiffFile(tmp_path / "a.probability.ome.tiff") as file:
        assert file.is_ome
        assert [level.shape for level in file.series[0].levels] == [(550, 700), (275, 350), (138, 175)]
        assert 'PhysicalSizeX="2.0"' in file.ome_metadata
        assert file.pages.first.is_tiled
        values = file.series[0].levels[0].asarray()
    assert values.dtype == np.float32
    assert values.min() >= 0 and values.max() <= 1
    assert not values[:80].any()  # glass


def test_glass_is_no_tissue_in_a_picture_either(tmp_path: Path, slide_pixels: np.ndarray) -> None:
    """The same pixels say the same, as a picture and as a slide; what is dark on the glass is dirt."""
    slide_pixels[1000:1050, 100:900] = (30, 30, 30)
    network = toy_network(tmp_path / "toy", um_per_px=2.0)
    slide = segment_file(write_slide(tmp_path / "a.tif", slide_pixels, 1.0), tmp_path, network)
    picture = segment_file(save(tmp_path / "b.png", slide_pixels), tmp_path, network, mpp=1.0)
    for field in ("tissue_mm2", "cancer_mm2", "cancer_percent_of_tissue", "cancer_percent_of_image"):
        assert picture[field] == pytest.approx(slide[field], rel=0.03), field
    assert picture["tissue_mm2"] < 0.5 * 1.1 * 1.4
    assert not read_map(tmp_path / "b.probability.ome.tiff")[1010:1040, 200:800].any()


@pytest.mark.parametrize(("glass", "expected"), [(0.5, 0.5), (0.1, 1.0)])
def test_glass_beside_the_tissue_of_a_field_is_not_filled_as_a_lumen(
    tmp_path: Path, glass: float, expected: float
) -> None:
    """A field may be smaller than the largest lumen; lumina that its frame cuts stay tissue."""
    pixels, _ = phantom(640, 480, seed=3, um_per_px=0.62)
    pixels[:, round(640 * (1 - glass)) :] = 245
    network = toy_network(tmp_path / "toy", um_per_px=2.0)
    summary = segment_file(save(tmp_path / "field.png", pixels), tmp_path, network, mpp=0.62)
    assert summary["tissue_mm2"] == pytest.approx(expected * 640 * 480 * 0.62**2 / 1e6, rel=0.1)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, slide_pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map of a slide is mapped into memory, where a full disk would end the process."""
    slide, network = write_slide(tmp_path / "a.tif", slide_pixels, 1.0), toy_network(tmp_path / "toy")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="was not written: the disk is full"):
        segment_file(slide, tmp_path / "out", network)
    assert not list((tmp_path / "out").iterdir())


def test_tiled_and_undivided_predictions_agree(tmp_path: Path) -> None:
    network = toy_network(tmp_path / "toy")
    image, _ = phantom(500, 333, seed=2)
    whole = network(image)
    tiled = predict(ArrayRegions(image), image.shape[:2], None, network, tile_px=96)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_unknown_resolution_is_refused_unless_given(tmp_path: Path, slide_pixels: np.ndarray) -> None:
    network = toy_network(tmp_path / "toy")
    for path in (save(tmp_path / "a.png", slide_pixels), write_slide(tmp_path / "b.tif", slide_pixels, None)):
        with pytest.raises(UnknownResolution, match="--mpp"):
            segment_file(path, tmp_path / "out", network)
        assert segment_file(path, tmp_path / "out", network, mpp=1.0)["um_per_px"] == 1.0


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_glass_without_tissue_is_named(tmp_path: Path, kind: str) -> None:
    blank = np.full((600, 600, 3), 243, np.uint8)
    path = save(tmp_path / "a.png", blank) if kind == "png" else write_slide(tmp_path / "a.tif", blank, 1.0)
    with pytest.raises(InputError, match=r"a\.\w+: no stained tissue"):
        segment_file(path, tmp_path / "out", toy_network(tmp_path / "toy"), mpp=1.0)
    assert list((tmp_path / "out").iterdir()) == []  # nothing half-written
    summary = segment_file(path, tmp_path / "out", toy_network(tmp_path / "toy"), mpp=1.0, whole=True)
    assert summary["parts"] == 0


def test_a_grey_picture_without_a_scale(tmp_path: Path) -> None:
    """A network that learned from images as they are takes 16-bit grey, and areas in mm2 are not made up."""
    grey = np.full((90, 120), 60_000, np.uint16)
    grey[30:60, 40:80] = 3_000
    picture = save(tmp_path / "a.png", grey)
    network = toy_network(tmp_path / "toy", um_per_px=None, stained=False)
    summary = segment_file(picture, tmp_path, network)
    assert summary["cancer_mm2"] is None
    assert summary["cancer_percent_of_image"] == pytest.approx(100 * 30 * 40 / (90 * 120), rel=0.01)


def test_a_real_dicom_image_is_segmented_with_its_own_scale(tmp_path: Path) -> None:
    examples = pytest.importorskip("pydicom.data")
    path = Path(examples.get_testdata_file("MR_small.dcm", download=False))
    network = toy_network(tmp_path / "toy", um_per_px=None, stained=False)
    summary = segment_file(path, tmp_path, network)
    assert summary["size_px"] == [64, 64]
    assert summary["um_per_px"] == pytest.approx(312.5)
    assert 0 < summary["cancer_percent_of_image"] < 100


def test_real_slides(tmp_path: Path, shared_data: Path) -> None:
    """An Aperio slide and the pyramid derived from it say the same; the broken one is named."""
    network = toy_network(tmp_path / "toy")
    folder = shared_data / "pathology" / "wsi"
    areas = [
        segment_file(folder / name, tmp_path, network)["cancer_percent_of_image"]
        for name in ("CMU-1-Small-Region.svs", "derived_cmu_pyramid.tif")
    ]
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    with pytest.raises(InputError, match=r"broken\.svs"):
        segment_file(folder / "broken.svs", tmp_path, network)


def test_a_dicom_series_is_one_slide(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "pathology" / "wsi" / "dicom_cmu_fixed"
    assert expand_sources([str(folder)]) == [str(folder)]
    summary = segment_file(folder, tmp_path, toy_network(tmp_path / "toy"))
    assert summary["size_px"] == [2220, 2967]
    assert (tmp_path / "dicom_cmu_fixed.mask.geojson").exists()


def test_a_read_error_in_the_other_thread_is_raised(tmp_path: Path) -> None:
    class Vanished:
        def read_region(self, *_: object) -> np.ndarray:
            raise InputError("gone")

    with pytest.raises(InputError, match="gone"):
        predict(Vanished(), (100, 100), 2.0, toy_network(tmp_path / "toy"))  # type: ignore[arg-type]
