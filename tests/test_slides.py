"""Slides read in micrometres: the pixels are openslide's, and places stay where they are at every resolution.

python -m pytest tests/test_slides.py
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from tamis.errors import InputError, UsageError
from tamis.slide_files import OpenSlide
from tamis.slides import UnknownResolution, open_slide

MPP = 0.25


def picture(height: int = 700, width: int = 900, seed: int = 0) -> np.ndarray:
    """Smooth colours, so that resampling can be compared."""
    small = np.random.default_rng(seed).integers(60, 240, (height // 50, width // 50, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def write_tiff(path: Path, levels: list[np.ndarray], mpp: float | None = MPP, **options: object) -> Path:
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"} | options
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            scale = levels[0].shape[1] // level.shape[1]
            unit = (
                {"resolution": (1e4 / (mpp * scale),) * 2, "resolutionunit": "CENTIMETER"}
                if mpp
                else {"resolutionunit": None}
            )
            tiff.write(level, subfiletype=1 if i else 0, **unit, **options)
    return path


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    full = picture()
    levels = [full, cv2.resize(full, (450, 350), interpolation=cv2.INTER_AREA)]
    return write_tiff(tmp_path_factory.mktemp("slides") / "pyramid.tif", levels)


@pytest.mark.parametrize(
    "name", ["CMU-1-Small-Region.svs", "derived_cmu_pyramid.tif", "dicom_cmu_fixed/level-0-frames-0-30.dcm"]
)
def test_real_slides_agree_with_openslide(shared_data: Path, name: str) -> None:
    path = shared_data / "pathology" / "wsi" / name
    theirs = openslide.OpenSlide(path)
    with open_slide(path) as slide:
        assert slide.um_per_px == pytest.approx(float(theirs.properties["openslide.mpp-x"]), rel=1e-4)
        assert [(s.width_px, s.height_px) for s in slide.levels] == list(theirs.level_dimensions)
        for level in range(min(4, theirs.level_count)):
            width, height = theirs.level_dimensions[level]
            expected = np.asarray(theirs.read_region((0, 0), level, (width, height)))[..., :3]
            assert np.array_equal(slide.read_level(level, 0, 0, width, height), expected)
        x, y = 311, 517  # cuts across tiles
        expected = np.asarray(theirs.read_region((x, y), 0, (700, 600)))[..., :3]
        mpp = slide.um_per_px
        assert np.array_equal(slide.read_region(x * mpp, y * mpp, 700, 600), expected)


def test_reader_and_version_are_told(slide_path: Path, shared_data: Path) -> None:
    with open_slide(slide_path) as slide:
        assert slide.reader.startswith("tifffile 2") and "imagecodecs" in slide.reader
    with open_slide(shared_data / "pathology" / "wsi" / "dicom_cmu_fixed") as slide:
        assert slide.reader.startswith("openslide 4")


def test_sizes_and_levels(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        assert slide.size_px == (900, 700)
        assert slide.size_um == (225.0, 175.0)
        assert [s.downsample for s in slide.levels] == [1, 2]


def test_white_outside_the_slide(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        inside = slide.read_region(0, 0, 100, 100)
        around = slide.read_region(-50 * MPP, -20 * MPP, 100, 100)
        assert np.array_equal(around[20:, 50:], inside[:80, :50])
        assert (around[:20] == 255).all() and (around[:, :50] == 255).all()
        assert (slide.read_region(1e4, 1e4, 8, 8) == 255).all()


@pytest.mark.parametrize("um_per_px", [0.2, 0.25, 0.3, 0.5, 0.6, 1.0, 2.3])
def test_a_place_stays_where_it_is_at_every_resolution(slide_path: Path, um_per_px: float) -> None:
    """Against the whole picture resampled at once, by area below and between the levels."""
    x_um, y_um, width, height = 31.0, 22.5, int(100 / um_per_px), int(80 / um_per_px)
    with open_slide(slide_path) as slide:
        seen = slide.read_region(x_um, y_um, width, height, um_per_px).astype(float)
        full = slide.read_level(0, 0, 0, 900, 700).astype(np.float32)
    columns = (x_um + (np.arange(width) + 0.5) * um_per_px) / MPP - 0.5
    rows = (y_um + (np.arange(height) + 0.5) * um_per_px) / MPP - 0.5
    blurred = cv2.GaussianBlur(full, (0, 0), max(0.01, um_per_px / MPP * 0.35))
    grid_x, grid_y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    expected = cv2.remap(blurred, grid_x, grid_y, cv2.INTER_LINEAR)
    assert np.abs(seen - expected).mean() < 2.5


def test_regions_side_by_side_join(slide_path: Path) -> None:
    """Read whole or in pieces: the same pixels, also between levels."""
    with open_slide(slide_path) as slide:
        whole = slide.read_region(0, 0, 300, 200, 0.7)
        left, right = slide.read_region(0, 0, 140, 200, 0.7), slide.read_region(98, 0, 160, 200, 0.7)
        assert np.abs(np.concatenate([left, right], 1).astype(int) - whole).max() <= 1


def test_a_large_read_is_split_without_a_trace(slide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(slide_path) as slide:
        whole = slide.thumbnail(3.0)
        monkeypatch.setattr("tamis.slides.MOST_SOURCE_PX", 10_000)
        assert np.abs(slide.thumbnail(3.0).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("size_px", [128, 256])
def test_tiles_cover_the_slide_once(slide_path: Path, size_px: int) -> None:
    with open_slide(slide_path) as slide:
        full = slide.read_level(0, 0, 0, 900, 700)
        seen = np.full((1024, 1024, 3), 255, np.uint8)
        count = 0
        for tile in slide.tiles(size_px):
            x, y = round(tile.x_um / MPP), round(tile.y_um / MPP)
            assert tile.pixels.shape == (size_px, size_px, 3)
            seen[y : y + size_px, x : x + size_px] = tile.pixels
            count += 1
        assert count == {128: 8 * 6, 256: 4 * 3}[size_px]
        assert np.array_equal(seen[:700, :900], full)


def test_tiles_within_a_mask(slide_path: Path) -> None:
    mask = np.zeros((22, 29), bool)
    mask[10, 3] = True  # x 24-32 um, y 80-88 um at 8 um/px
    with open_slide(slide_path) as slide:
        places = {(t.x_um, t.y_um) for t in slide.tiles(128, mask=(mask, 8.0))}
    assert places == {(0.0, 64.0)}


@pytest.mark.parametrize("size_px", [64, 128, 256])
def test_each_tile_of_the_file_is_decoded_once(slide_path: Path, size_px: int) -> None:
    with open_slide(slide_path) as slide:
        decoded: list[tuple[int, int]] = []
        decode = slide._file._decode  # type: ignore[attr-defined]
        slide._file._decode = lambda *key: decoded.append(key) or decode(*key)  # type: ignore[attr-defined]
        list(slide.tiles(size_px))
        assert len(decoded) == len(set(decoded)) == 4 * 3


def test_pixels_belong_to_whoever_read_them(slide_path: Path) -> None:
    with open_slide(slide_path) as slide:
        for place in ((0, 0), (256, 256), (10, 20)):
            before = slide.read_level(0, *place, 256, 256)
            kept = before.copy()
            before[:] = 7
            assert np.array_equal(slide.read_level(0, *place, 256, 256), kept)


def test_unknown_resolution_is_refused_unless_given(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "no_scale.tif", [picture()], mpp=None)
    with pytest.raises(UnknownResolution, match="--mpp"):
        open_slide(path)
    with open_slide(path, mpp=0.4) as slide:
        assert slide.um_per_px == 0.4


def test_a_screen_resolution_is_no_scale(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "72dpi.tif", [picture()], mpp=25400 / 72)
    with pytest.raises(UnknownResolution):
        open_slide(path)


def test_a_given_scale_goes_before_the_files(slide_path: Path) -> None:
    with open_slide(slide_path, mpp=0.5) as slide:
        assert slide.size_um == (450.0, 350.0)


@pytest.mark.parametrize("mpp", [0.0, -1.0, 1e9, float("nan")])
def test_an_impossible_scale_is_wrong_usage(slide_path: Path, mpp: float) -> None:
    with pytest.raises(UsageError):
        open_slide(slide_path, mpp=mpp)


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    pixels = picture(100, 150)
    path = tmp_path / "a png.tif"
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    with open_slide(path, mpp=0.25) as slide:
        assert (slide.read_region(0, 0, 150, 100) == pixels).all()
    path = tmp_path / "a tiff.png"
    tifffile.imwrite(path, pixels)
    with open_slide(path, mpp=0.25) as slide:
        assert (slide.read_region(0, 0, 150, 100) == pixels).all()
    tifffile.imwrite(path, pixels.astype(np.uint16) * 257)
    with pytest.raises(InputError, match="3 channels of uint16: expected 8-bit RGB"):  # not cut to 8 bits
        open_slide(path, mpp=0.25)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_plain_images(tmp_path: Path, ending: str) -> None:
    pixels = picture(100, 150)
    path = tmp_path / f"a picture ä{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        path.write_bytes(cv2.imencode(ending, pixels[..., ::-1])[1].tobytes())
    with pytest.raises(UnknownResolution):
        open_slide(path)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.size_px == (150, 100)
        assert np.abs(slide.read_region(0, 0, 150, 100).astype(int) - pixels).mean() < (
            8 if ending == ".jpg" else 0.01
        )


def test_a_camera_s_note_that_a_picture_is_turned_is_not_followed(tmp_path: Path) -> None:
    """Else a mask or a table of positions, which lie in the pixels as stored, would point elsewhere."""
    image, path = picture(), tmp_path / "turned.jpg"
    assert cv2.imwrite(str(path), image[..., ::-1])
    # EXIF with one entry: orientation (0x0112), a short, 6 = turned by 90 degrees.
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    stored = path.read_bytes()
    path.write_bytes(stored[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + stored[2:])
    assert cv2.imread(str(path)).shape[:2] == (image.shape[1], image.shape[0]), "no note of a turned picture"
    with open_slide(path, mpp=MPP) as slide:
        assert slide.size_px == (image.shape[1], image.shape[0])
        seen = slide.read_region(0, 0, *slide.size_px)
    assert np.abs(seen.astype(int) - image).mean() < 8


def test_lossless_and_empty_tiles(tmp_path: Path) -> None:
    pixels = picture(300, 300)
    for compression in ("deflate", "lzw", None):
        path = write_tiff(tmp_path / f"{compression}.tif", [pixels], compression=compression)
        with open_slide(path) as slide:
            assert np.array_equal(slide.read_region(0, 0, 300, 300), pixels)


def test_a_slide_travels_to_another_process_as_a_path(slide_path: Path) -> None:
    with open_slide(slide_path, mpp=0.3) as slide, pickle.loads(pickle.dumps(slide)) as other:  # noqa: S301
        assert other.um_per_px == 0.3
        assert np.array_equal(other.read_region(0, 0, 50, 50), slide.read_region(0, 0, 50, 50))


# Bad input: a sentence each.


def test_a_missing_an_empty_and_a_foreign_file(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "empty.svs").touch()
    (tmp_path / "text.svs").write_text("no slide at all, only words")
    with pytest.raises(InputError, match="does not exist"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(InputError, match="is empty"):
        open_slide(tmp_path / "empty.svs")
    with pytest.raises(InputError, match="no slide or image"):
        open_slide(tmp_path / "text.svs")
    with pytest.raises(InputError, match="no slide or image"):
        open_slide(shared_data / "pathology" / "wsi" / "broken.svs")
    with pytest.raises(InputError, match="without DICOM"):
        open_slide(_folder(tmp_path / "nothing"), 0.25)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_slide_is_refused(slide_path: Path, tmp_path: Path, share: float) -> None:
    content = slide_path.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError):
        open_slide(path)


def test_a_damaged_tile_is_named(slide_path: Path, tmp_path: Path) -> None:
    content = bytearray(slide_path.read_bytes())
    with tifffile.TiffFile(slide_path) as tiff:
        offset = tiff.pages[0].dataoffsets[5]
    content[offset : offset + 40] = b"\0" * 40
    path = tmp_path / "damaged.tif"
    path.write_bytes(content)
    with open_slide(path) as slide, pytest.raises(InputError, match="row 1, column 1 of level 0"):
        slide.read_level(0, 0, 0, 900, 700)


@pytest.mark.parametrize("kind", ["jpeg", "deflate", "lzw", "plain"])
def test_mutated_files_never_crash(kind: str, slide_path: Path, tmp_path: Path) -> None:
    """Bytes of headers, tables and tiles changed at random: a sentence, or an image no larger than the file can hold."""
    path = tmp_path / "sound.tif"
    if kind == "plain":
        tifffile.imwrite(path, picture(100, 150))
    elif kind == "jpeg":
        path = slide_path
    else:
        full = picture()
        path = write_tiff(path, [full, full[::2, ::2].copy()], compression=kind)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        header = [*range(16), *(p for page in tiff.pages for p in range(page.offset, page.offset + 280))]
        tiles = [o + n for page in tiff.pages for o in page.dataoffsets[:3] for n in range(60)]
    generator = np.random.default_rng(7)
    refused = 0
    path = tmp_path / "mutated.tif"
    for n in range(120):
        changed = bytearray(content)
        for place in generator.choice(tiles if n % 4 == 3 else header, 3 if n % 2 else 8):
            if place < len(changed):
                changed[place] = generator.integers(256)
        path.write_bytes(changed)
        try:
            with open_slide(path, mpp=0.25) as slide:
                width, height = slide.size_px
                assert width * height <= 10_000 * len(content)
                slide.read_region(0, 0, 64, 64)
        except InputError as error:
            refused += 1
            assert str(error).endswith(".")
    assert refused > 20


@pytest.mark.parametrize(
    ("noted", "origin"),
    [
        ({"x": "2048", "y": "512", "width": "400", "height": "300"}, (2048, 512)),
        ({"x": "2048", "y": "512"}, (0, 0)),
        ({}, (0, 0)),
    ],
)
def test_the_corner_of_what_was_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: dict[str, str], origin: tuple[int, int]
) -> None:
    """As MRXS and SCN note it; QuPath counts pixels from there."""
    path = write_tiff(tmp_path / "slide.tif", [picture()])
    with open_slide(path) as slide:
        assert slide.origin_px == (0, 0)
    real = openslide.OpenSlide.properties.fget
    assert real is not None
    bounds = {f"openslide.bounds-{name}": value for name, value in noted.items()}
    monkeypatch.setattr(openslide.OpenSlide, "properties", property(lambda self: dict(real(self)) | bounds))
    monkeypatch.setattr("tamis.slides.open_file", OpenSlide)
    with open_slide(path) as slide:
        assert slide.origin_px == origin
