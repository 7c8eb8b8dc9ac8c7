"""Pictures of every kind, and those that must be refused.  python -m pytest tests/weakseg/test_images.py"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from saved import save

from tamis.errors import InputError
from tamis.weakseg.images import read_image, read_mask, spacing_um, to_eight_bits

COLOUR = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
RAMP16 = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_colours_come_as_rgb(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, COLOUR, photometric="rgb")
    else:
        save(path, COLOUR)
    np.testing.assert_array_equal(read_image(path), COLOUR)


def test_jpeg(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(COLOUR, (0, 0), 4)
    assert np.abs(read_image(save(tmp_path / "a.jpg", smooth)).astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_stretched(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    tifffile.imwrite(path, RAMP16) if ending == "tif" else save(path, RAMP16)
    image = read_image(path)
    assert image.shape == (20, 30, 3)
    assert image.dtype == np.uint8
    assert (image[..., 0] == image[..., 2]).all()
    assert image.min() == 0 and image.max() == 255
    assert (np.diff(image[..., 0].ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize("white", [255, 1023, 4095, 65535])
def test_colours_of_sixteen_bits_keep_their_stain(tmp_path: Path, white: int) -> None:
    eight = COLOUR.copy()
    eight[0, 0] = 255
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.rint(eight * (white / 255)).astype(np.uint16), photometric="rgb")
    assert np.abs(read_image(path).astype(int) - eight).max() <= 1


@pytest.mark.parametrize("white", [0, 255])
def test_a_bilevel_tiff_is_black_and_white(tmp_path: Path, white: int) -> None:
    """As scanners and other programs write masks; half of them store white as 0."""
    marked = COLOUR[..., 0] > 99
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, marked == (white > 0), photometric="minisblack" if white else "miniswhite")
    np.testing.assert_array_equal(read_image(path)[..., 0], np.where(marked, 255, 0))
    np.testing.assert_array_equal(read_mask(path), marked)


def test_grey_whose_white_is_zero_is_turned_about_white(tmp_path: Path) -> None:
    grey = COLOUR[..., 0].clip(10, 240)
    tifffile.imwrite(tmp_path / "a.tif", 255 - grey, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 1], grey)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    table = np.random.default_rng(1).integers(0, 256, (3, 256), np.uint16)
    index = COLOUR[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=table * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), table[:, index].transpose(1, 2, 0))


def test_printing_inks_become_colours(tmp_path: Path) -> None:
    """Without black, cyan, magenta and yellow are what white lacks of red, green and blue."""
    inks = np.concatenate([255 - COLOUR, np.zeros((20, 30, 1), np.uint8)], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), COLOUR)
    inks[..., 3] = 255
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    assert not read_image(tmp_path / "a.tif").any()


@pytest.mark.parametrize("kind", ["cielab", "ycbcr"])
def test_colours_of_other_kinds_are_refused(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric=kind)
    with pytest.raises(InputError, match=f"colours of the kind {kind.upper()}.* save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_transparent_lies_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    assert (read_image(tmp_path / "a.png") == 255).all()


def test_constant_floats_do_not_divide_by_zero() -> None:
    assert (to_eight_bits(np.full((3, 3), 7.5)) == 0).all()


def test_a_nifti_volume_gives_its_middle_slice(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((12, 9, 5), np.int16)
    volume[2, 7, 2] = 100  # first axis to the right, second upwards
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.5, 3, 1])), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.shape == (9, 12, 3)
    assert np.unravel_index(image[..., 0].argmax(), (9, 12)) == (1, 2)
    assert spacing_um(tmp_path / "a.nii.gz") == pytest.approx(500)


@pytest.mark.parametrize(("unit", "um"), [("micron", 0.5), ("mm", 500), ("meter", 500_000), ("unknown", 500)])
def test_a_nifti_volume_states_its_unit(tmp_path: Path, unit: str, um: float) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = nibabel.Nifti1Image(np.zeros((4, 4, 1), np.int16), np.diag([0.5, 0.5, 3, 1]))
    volume.header.set_xyzt_units(unit)
    nibabel.save(volume, tmp_path / "a.nii")
    assert spacing_um(tmp_path / "a.nii") == pytest.approx(um)


def test_a_real_dicom_magnetic_resonance_image() -> None:
    """One that pydicom brings along: 64 x 64, 12 bits, 0.3125 mm."""
    examples = pytest.importorskip("pydicom.data")
    path = Path(examples.get_testdata_file("MR_small.dcm", download=False))
    image = read_image(path)
    assert image.shape == (64, 64, 3)
    assert image.std() > 30
    assert spacing_um(path) == pytest.approx(312.5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b""),
        ("a.png", b"\x89PNG\r\n\x1a\nrubbish"),
        ("a.jpg", b"\xff\xd8\xff\xe0 rubbish"),
        ("a.tif", b"II*\0rubbish"),
        ("a.dcm", b"\0" * 128 + b"DICMrubbish"),
        ("a.nii", b"rubbish"),
        ("a.nii.gz", b"\x1f\x8b\x08rubbish"),
        ("a.png", b"a text"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_image_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_image(tmp_path / name)


def test_absent_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)


def png_bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_with_the_limit(tmp_path: Path) -> None:
    bombs = {
        "a.png": png_bomb(100_000, 100_000),
        "a.bmp": b"BM" + b"\0" * 16 + struct.pack("<ii", 60_000, 60_000) + b"\0" * 30,
        "a.jpg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 17, 8, 65_000, 65_000) + b"\0" * 20,
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="200 million pixels"):
            read_image(tmp_path / name)


def test_bombs_in_disguise_are_refused_too(tmp_path: Path) -> None:
    """Sizes behind filling bytes, in the header of OS/2, in the number of samples; and kinds whose size is not looked up."""
    frame = b"\xff\xff\xff\xc0" + struct.pack(">HBHH", 17, 8, 65_000, 65_000)
    bombs = {
        "filled.jpg": b"\xff\xd8" + frame + b"\0" * 20,
        "os2.bmp": b"BM" + b"\0" * 12 + struct.pack("<IHH", 12, 60_000, 60_000) + b"\0" * 30,
    }
    tifffile.imwrite(tmp_path / "samples.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    content = (tmp_path / "samples.tif").read_bytes()
    sizes = {256: 30_000, 257: 30_000}  # ImageWidth, ImageLength
    with tifffile.TiffFile(tmp_path / "samples.tif") as file:
        places = {tag.code: tag.valueoffset for tag in file.pages.first.tags}
    for code, size in sizes.items():
        at = places[code]
        content = content[:at] + struct.pack("<I", size) + content[at + 4 :]
    bombs["samples.tif"] = content
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="200 million pixels"):
            read_image(tmp_path / name)
    (tmp_path / "pnm.png").write_bytes(b"P6 60000 60000 255\n" + b"\0" * 100)
    with pytest.raises(InputError, match="no image"):
        read_image(tmp_path / "pnm.png")


@pytest.mark.parametrize("compression", [None, "zlib", "jpeg", "lzw", "zstd"])
def test_damaged_files_end_in_a_sentence(tmp_path: Path, compression: str | None) -> None:
    """Bytes changed at random: an image or an InputError, and nothing else."""
    generator = np.random.default_rng(1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.tile(COLOUR, (2, 2, 1)), photometric="rgb", compression=compression, tile=(32, 32)
    )
    sound = path.read_bytes()
    for _ in range(40):
        content = bytearray(sound)
        for place in generator.integers(0, len(content), 5):
            content[place] = generator.integers(256)
        path.write_bytes(bytes(content))
        try:
            read_image(path)
        except InputError as error:
            assert "a.tif" in str(error)


def test_the_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", COLOUR)
    monkeypatch.setenv("TAMIS_LIMIT_PX", "100")
    with pytest.raises(InputError, match="30 x 20 px"):
        read_image(path)
    with pytest.raises(InputError, match="30 x 20 px"):
        read_mask(path)


def test_a_mask_is_what_is_above_zero(tmp_path: Path) -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[2, 3], mask[0, 0] = 1, 255
    assert read_mask(save(tmp_path / "m.png", mask)).sum() == 2
