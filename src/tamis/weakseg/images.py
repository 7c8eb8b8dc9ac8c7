"""Images of any kind as [H, W, 3] uint8: PNG, JPEG, TIFF of 8 or 16 bits, a DICOM image, a slice of a NIfTI volume.

Files are looked at before they are decoded: what claims more pixels than `LIMIT_PX` is refused, because a few kilobytes
can claim to be a picture of many gigabytes. What is larger and real is a slide, and slides are read in pieces.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.tiff_colours import as_shown

# Errors alone: what is wrong with a file is told once, in a sentence of ours.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
# Read when OpenCV first decodes: it must let through what our own limit lets through.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 40))

LIMIT_PX = 200_000_000
"""14,000 x 14,000: 600 MB once decoded. TAMIS_LIMIT_PX sets another."""
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MEDICAL = frozenset({".dcm", ".nii", ".gz"})
ENDINGS = PICTURES | MEDICAL

BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # every codec of imagecodecs, and pydicom's decoders
    MemoryError,  # a damaged size
    struct.error,
    zlib.error,
)
"""What following damaged bytes leads a parser to, besides its own format's exception: collected by damaging files at random."""

COLOUR_WHITES = (255, 1023, 4095, 16383, 65535)
"""Values of white in colours stored with 16 bits."""

NIFTI_UNITS_UM = {"meter": 1e6, "mm": 1e3, "micron": 1.0, "unknown": 1e3}
"""In nibabel's names. Who states no unit means millimetres, as scanners do."""

Rgb = NDArray[np.uint8]


def read_image(path: Path) -> Rgb:
    """[H, W, 3] uint8 RGB. Grey values are repeated; 16-bit and floating values are stretched (see `to_eight_bits`).

    Pixels lie as they are stored: a camera's note that a picture is to be turned (EXIF) is not followed.

    Raises InputError when the file is absent, broken, too large, or no image.
    """
    content = _content(path)
    ending = path.suffix.lower()
    if content[128:132] == b"DICM" or ending == ".dcm":
        return _dicom(path)
    if ending in {".nii", ".gz"}:
        return _nifti(path)
    pixels = _decode(content, path)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _on_white(pixels)
    return _rgb(to_eight_bits(pixels[..., ::-1] if pixels.ndim == 3 else pixels))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """[H, W] bool: what is above 0 in any channel (an opacity channel aside)."""
    pixels = _decode(_content(path), path)
    return np.asarray(pixels[..., :3].max(2) != 0 if pixels.ndim == 3 else np.asarray(pixels) != 0)


def image_size_px(path: Path) -> tuple[int, int]:
    """(width, height), having decoded the image: a broken one raises InputError."""
    height, width = read_image(path).shape[:2]
    return width, height


def spacing_um(path: Path) -> float | None:
    """um/px that a DICOM image or NIfTI volume tells of itself; None for others, and where pixels are not square."""
    ending = path.suffix.lower()
    # Where a header cannot be followed the scale is unknown; what is wrong with the file, `read_image` says.
    if ending == ".dcm":
        import pydicom

        try:
            data = pydicom.dcmread(path, stop_before_pixels=True)
            rows, columns = (1e3 * float(v) for v in data.get("PixelSpacing") or data.ImagerPixelSpacing)
        except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, *BROKEN):
            return None
    elif ending in {".nii", ".gz"}:
        import nibabel

        try:
            header: Any = nibabel.load(path).header
            unit_um = NIFTI_UNITS_UM[header.get_xyzt_units()[0]]
            rows, columns = (unit_um * float(v) for v in header.get_zooms()[:2])
        except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *BROKEN):
            return None
    else:
        return None
    return rows if rows > 0 and abs(rows - columns) <= 0.01 * rows else None


def to_eight_bits(pixels: NDArray[np.generic]) -> Rgb:
    """uint8 stays, and so do the colours of 16 bits, whose white is the end of the smallest range that holds them (10, 12,
    14 or 16 bits). Other values: the 0.5th percentile becomes 0 and the 99.5th 255.
    """
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels, dtype=np.uint8)
    if pixels.dtype == np.uint16 and pixels.ndim == 3 and pixels.shape[2] >= 3:
        highest = int(pixels.max())
        white = next(end for end in COLOUR_WHITES if highest <= end)
        return np.rint(pixels.astype(np.float32) * (255 / white)).astype(np.uint8)
    values = np.nan_to_num(pixels.astype(np.float32), posinf=0, neginf=0)
    low, high = np.percentile(values[:: max(1, len(values) // 512)], [0.5, 99.5])
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def limit_px() -> int:
    text = os.environ.get("TAMIS_LIMIT_PX", "")
    return int(text) if text.isdecimal() else LIMIT_PX


def check_size(path: Path, size_px: tuple[int, int], limit: int) -> None:
    """Raises InputError for more than `limit` pixels of (width, height)."""
    if size_px[0] * size_px[1] > limit:
        raise InputError(
            f"{path} claims to be {size_px[0]:,} x {size_px[1]:,} px; pictures are read up to {limit / 1e6:,.0f} million pixels. "
            "If it is genuine, save it as a tiled TIFF (read in pieces), or set TAMIS_LIMIT_PX higher."
        )


def size_in_header(content: bytes, path: Path) -> tuple[int, int] | None:
    """(width, height) as the file's header claims, nothing decoded; None where that is not to be found."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return width, height
    if content[:2] == b"\xff\xd8":
        return _jpeg_size(content)
    if content[:2] == b"BM" and len(content) >= 26:
        old = content[14:18] == struct.pack("<I", 12)  # of OS/2: sizes of 16 bits
        width, height = struct.unpack("<HH", content[18:22]) if old else struct.unpack("<ii", content[18:26])
        return abs(width), abs(height)
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        import tifffile

        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages.first
                planes = max(1, int(page.samplesperpixel) // 4) * int(page.imagedepth)
                return int(page.imagewidth) * planes, int(page.imagelength)
        except BROKEN as fault:  # TiffFileError is a ValueError
            raise _no_tiff(path, fault) from None
    return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xFF:  # filling
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", content[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not an image.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not content:
        raise InputError(f"{path} is empty.")
    return content


def _decode(content: bytes, path: Path) -> NDArray[np.generic]:
    """BGR(A) or grey, once the size that its header claims is allowed. Nothing else is decoded than kinds with a known header."""
    size_px = size_in_header(content, path)
    pixels = None
    if size_px is not None:
        check_size(path, size_px, limit_px())
        if content[:2] in (b"II", b"MM"):
            return _tiff(path)
        try:
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            pixels = None
    if pixels is None:
        raise InputError(
            f"{path} is broken or no image: PNG, JPEG, TIFF, BMP, DICOM and NIfTI are read; copy or download it again."
        )
    return np.asarray(pixels)


def _tiff(path: Path) -> NDArray[np.generic]:
    """BGR or grey, as OpenCV would give it; through tifffile, which knows more of the compressions in use."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages.first
            pixels = np.asarray(page.asarray())
            kind, table, packed = page.photometric, page.colormap, page.compression
    except BROKEN as fault:
        raise _no_tiff(path, fault) from None
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4) and pixels.shape[2] not in (3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3):
        raise InputError(f"{path} has {pixels.ndim} dimensions {pixels.shape}; a single picture is expected.")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    pixels = as_shown(pixels, kind, table, packed, path)
    if pixels.ndim == 3:
        if pixels.shape[2] < 3:
            return pixels[..., 0]
        return np.concatenate([pixels[..., 2::-1], pixels[..., 3:4]], axis=2)
    return pixels


def _no_tiff(path: Path, fault: Exception) -> InputError:
    return InputError(
        f"{path} is broken or no readable TIFF ({type(fault).__name__}: {fault}); copy or download it again."
    )


def _dicom(path: Path) -> Rgb:
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, convert_color_space

    try:
        data = pydicom.dcmread(path)
        frames = int(data.get("NumberOfFrames", 1) or 1)
        check_size(path, (int(data.Columns), int(data.Rows) * frames), limit_px())
        pixels = data.pixel_array
        kind = str(data.PhotometricInterpretation)
        if kind.startswith("YBR"):
            pixels = convert_color_space(pixels, kind, "RGB")
        elif kind.startswith("MONOCHROME"):
            pixels = apply_voi_lut(apply_modality_lut(pixels, data), data)
            if kind == "MONOCHROME1":  # white is the smallest value
                pixels = pixels.max() - pixels
    except InputError:
        raise
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, *BROKEN) as fault:
        raise InputError(f"{path} is no readable DICOM image ({fault}).") from None
    if pixels.ndim == 3 + (kind not in ("MONOCHROME1", "MONOCHROME2")):
        pixels = pixels[len(pixels) // 2]  # of a volume, the slice in the middle
    return _rgb(to_eight_bits(np.asarray(pixels)))


def _nifti(path: Path) -> Rgb:
    import nibabel

    try:
        volume: Any = nibabel.load(path)
        shape = volume.shape
        check_size(path, (int(shape[0]), int(np.prod(shape[1:]))), limit_px())
        values = np.asanyarray(volume.dataobj)
    except InputError:
        raise
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, *BROKEN) as fault:
        raise InputError(f"{path} is no readable NIfTI volume ({fault}).") from None
    while values.ndim > 2:
        values = values[..., values.shape[-1] // 2]  # the slice in the middle
    if values.ndim != 2:
        raise InputError(f"{path} has {values.ndim} dimensions; a slice or a volume is expected.")
    return _rgb(
        to_eight_bits(np.ascontiguousarray(values.T[::-1]))
    )  # first axis to the right, second upwards


def _on_white(pixels: NDArray[Any]) -> NDArray[np.generic]:
    top = float(np.iinfo(pixels.dtype).max) if np.issubdtype(pixels.dtype, np.integer) else 1.0
    opacity = pixels[..., 3:].astype(np.float32) / top
    return (pixels[..., :3] * opacity + top * (1 - opacity)).astype(pixels.dtype)


def _rgb(pixels: Rgb) -> Rgb:
    return (
        np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3])
    )
