"""What is segmented, whatever it is: a slide read in pieces, or a picture in memory. Paths and URLs of them.

Both give `read_region(x_um, y_um, width_px, height_px, um_per_px)`; a picture of unknown scale has um_per_px None and is
read pixel by pixel, which only a network without a scale of its own accepts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis.batch import expand
from tamis.errors import InputError, UsageError
from tamis.remote import expand_url, is_url
from tamis.slides import Slide, UnknownResolution, open_slide
from tamis.weakseg.images import BROKEN, ENDINGS, read_image, spacing_um

SLIDE_ENDINGS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu"})
ALL_ENDINGS = ENDINGS | SLIDE_ENDINGS
OWN_ENDINGS = (".overlay.png", ".probability.ome.tiff")


class Picture:
    """An image in memory with the reading part of a slide."""

    reader = "tamis.weakseg.images"

    def __init__(self, path: Path, pixels: NDArray[np.uint8], um_per_px: float | None) -> None:
        self.path = path
        self.pixels = pixels
        self.um_per_px = um_per_px

    @property
    def size_px(self) -> tuple[int, int]:
        return self.pixels.shape[1], self.pixels.shape[0]

    def at(self, um_per_px: float | None) -> NDArray[np.uint8]:
        """All of it at another resolution. [H, W, 3]"""
        if um_per_px is None or self.um_per_px is None:
            return self.pixels
        scale = self.um_per_px / um_per_px
        size = tuple(max(1, round(length * scale)) for length in self.size_px)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(self.pixels, size, interpolation=method))

    def thumbnail(self, *, max_px: int) -> NDArray[np.uint8]:
        scale = min(1.0, max_px / max(self.size_px))
        size = tuple(max(1, round(length * scale)) for length in self.size_px)
        return np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA))

    def __enter__(self) -> Picture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def open_source(path: Path, mpp: float | None, *, scaled: bool) -> Slide | Picture:
    """A slide, or a picture.

    scaled   whether um/px must be known; then UnknownResolution is raised where neither the file nor `mpp` tells it

    Raises InputError for what is absent, broken, too large or no image.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the name.")
    if not _is_picture(path):
        return open_slide(path, mpp)
    pixels = read_image(path)
    um_per_px = mpp if mpp is not None else spacing_um(path)
    if scaled and um_per_px is None:
        raise UnknownResolution(
            f"{path}: the file does not say how large its pixels are; give it with --mpp (um per pixel; "
            "0.25 is usual for a 40x scan, 0.5 for 20x)."
        )
    return Picture(path, pixels, um_per_px)


def _is_picture(path: Path) -> bool:
    """Everything that is not made of tiles: those files are slides, of any size, and read in pieces."""
    ending = path.suffix.lower()
    if path.is_dir() or ending in SLIDE_ENDINGS:
        return False
    if ending in {".nii", ".gz", ".png", ".jpg", ".jpeg", ".bmp"}:
        return True
    if ending in {".tif", ".tiff"}:
        return _is_plain_tiff(path)
    return ending == ".dcm" and not _is_slide_dicom(path)


def _is_plain_tiff(path: Path) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            eight_bit_colour = page.dtype == np.uint8 and page.samplesperpixel >= 3
            return not (page.is_tiled and eight_bit_colour)
    except (tifffile.TiffFileError, *BROKEN):  # the slide reader tells what is wrong with it
        return False


def _is_slide_dicom(path: Path) -> bool:
    import pydicom

    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True).get("Modality", "")) == "SM"
    except (pydicom.errors.InvalidDicomError, *BROKEN):  # the image reader tells what is wrong with it
        return False


def expand_sources(arguments: Sequence[str]) -> list[str]:
    """Files, folders, patterns, and URLs of anything that fsspec opens (s3://, https://, memory:// ...), in order.

    What segment itself wrote into a folder, its overlays and maps, is none of the folder's pictures. Raises UsageError for a
    folder that holds none.
    """
    sources: list[str] = []
    for argument in arguments:
        if _is_dicom_slide_folder(Path(argument)):
            sources.append(argument)  # its files are the levels of one slide
        elif is_url(argument):
            sources += expand_url(argument, ALL_ENDINGS)
        else:
            found = [str(path) for path in expand([argument], ALL_ENDINGS)]
            pictures = (
                found if found == [argument] else [path for path in found if not path.endswith(OWN_ENDINGS)]
            )
            if not pictures:
                raise UsageError(
                    f"{argument} holds results of segment and no picture: name the folder of the pictures."
                )
            sources += pictures
    return list(dict.fromkeys(sources))


def _is_dicom_slide_folder(path: Path) -> bool:
    first = next(path.glob("*.dcm"), None) if path.is_dir() else None
    return first is not None and _is_slide_dicom(first)
