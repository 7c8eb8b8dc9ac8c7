"""The files behind `tamis.slides`: pixels of one pyramid level at whole-pixel places, and nothing else.

    TiledTiff     pyramidal TIFF and Aperio SVS, each tile read and decoded alone (tifffile, imagecodecs), kept a while
    OpenSlide     whatever openslide knows: MRXS, NDPI, DICOM, Philips, Leica, Ventana, JPEG 2000
    PlainImage    PNG, JPEG or a TIFF without tiles, whole in memory

A header is a claim. Before anything is allocated it is held against the file: as many tiles as the size asks for, all of
them inside the file, none of them larger than a tile. What openslide (libtiff, libopenjp2) does with its files is its own.
"""

from __future__ import annotations

import math
import re
import struct
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import imagecodecs
import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from tamis.dicom_series import refuse_incomplete_series
from tamis.errors import InputError
from tamis.tiff_colours import as_shown

Pixels = NDArray[np.uint8]
JPEG, PLAIN_COMPRESSIONS = 7, {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate"}
RGB, YCBCR = 2, 6
MOST_TILE_PX = 4096 * 4096
MOST_PAGES = 64  # a pyramid has about 10; a mutated header may chain thousands
MOST_PX_PER_BYTE = 5000  # a blank JPEG tile holds about 150, an empty deflate tile 1000
MOST_PLAIN_PX = 1 << 29
CACHE_BYTES = 64 << 20
WHITE = 255
# What tifffile and imagecodecs raise at damaged headers and tiles. TiffFileError is a ValueError, the decoders' errors and
# NotImplementedError are RuntimeErrors; values of the wrong kind, places that are not there and sizes of zero come through
# from below. 4,000 mutated files raised nothing else; tests/test_slides.py goes on looking.
DAMAGE = (ValueError, RuntimeError, TypeError, LookupError, ArithmeticError, struct.error, OSError)


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the pyramid. `downsample` is its um/px over those of the full resolution."""

    width_px: int
    height_px: int
    downsample: float
    tile_width_px: int
    tile_height_px: int


class SlideFile(Protocol):
    """What a slide needs of its file."""

    reader: str
    levels: tuple[Level, ...]
    um_per_px: float | None

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """[height, width, 3] uint8 RGB; the rectangle lies inside the level."""

    def close(self) -> None: ...


class NotOurs(Exception):
    """A TIFF in order, but not one for the fast path."""


def open_file(path: Path) -> SlideFile:
    """The file with the reader that fits it. Raises InputError with a sentence when none does."""
    if path.is_dir():
        return _open_dicom_folder(path)
    try:
        with path.open("rb") as file:
            magic = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not magic:
        raise InputError(f"{path} is empty; copy or download it again.")
    if magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff(path)
    if path.suffix.lower() != ".mrxs" and magic[:3] in (b"\xff\xd8\xff", b"\x89PN"):
        return PlainImage(path, tiff=False)
    if path.suffix.lower() == ".dcm":
        refuse_incomplete_series(path)
    try:
        return OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        raise InputError(
            f"{path} is no slide or image that can be read here (it begins with {magic[:4]!r}): expected SVS, TIFF, NDPI, "
            "MRXS, DICOM, PNG or JPEG; if it should be one of these, it is damaged: copy or download it again."
        ) from None


class TiledTiff:
    """The tiles of a TIFF pyramid, decoded one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader = f"tifffile {tifffile.__version__} + imagecodecs {imagecodecs.__version__}"
        with ExitStack() as undo:
            self._tiff = undo.enter_context(tifffile.TiffFile(path))
            self._pages = _pyramid(self._tiff, path)
            self._file = path.open("rb")
            undo.pop_all()  # open from here on
        first = self._pages[0]
        self.levels = tuple(_level(page, first) for page in self._pages)
        self.um_per_px = _tiff_um_per_px(self._tiff, first)
        self._offsets = [np.asarray(page.dataoffsets, np.int64) for page in self._pages]
        self._counts = [np.asarray(page.databytecounts, np.int64) for page in self._pages]
        self._jpeg_tables = [page.jpegtables for page in self._pages]
        self._cache: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._cached_bytes = 0

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        size = self.levels[level]
        tile_w, tile_h = size.tile_width_px, size.tile_height_px
        across = math.ceil(size.width_px / tile_w)
        if x % tile_w == 0 and y % tile_h == 0 and (width, height) == (tile_w, tile_h):
            return self._tile(level, y // tile_h * across + x // tile_w, again=False)
        out = np.empty((height, width, 3), np.uint8)
        for row in range(y // tile_h, (y + height - 1) // tile_h + 1):
            for column in range(x // tile_w, (x + width - 1) // tile_w + 1):
                left, top = column * tile_w - x, row * tile_h - y
                to_y = slice(max(0, top), min(height, top + tile_h))
                to_x = slice(max(0, left), min(width, left + tile_w))
                part = (to_y.stop - to_y.start, to_x.stop - to_x.start) != (tile_h, tile_w)
                tile = self._tile(level, row * across + column, again=part)
                out[to_y, to_x] = tile[
                    to_y.start - top : to_y.stop - top, to_x.start - left : to_x.stop - left
                ]
        return out

    def close(self) -> None:
        self._cache.clear()
        self._file.close()
        self._tiff.close()

    def _tile(self, level: int, index: int, *, again: bool) -> Pixels:
        """A whole tile, also at the edge: [tile height, tile width, 3]. With `again` it is kept, for whoever reads the rest
        of it; without, it belongs to the caller."""
        key = (level, index)
        tile = self._cache.get(key)
        if tile is not None:
            self._cache.move_to_end(key)
            return tile if again else tile.copy()
        tile = self._decode(level, index)
        if not again:
            return tile
        self._cache[key] = tile
        self._cached_bytes += tile.nbytes
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, level: int, index: int) -> Pixels:
        page, size = self._pages[level], self.levels[level]
        shape = (size.tile_height_px, size.tile_width_px, 3)
        count = int(self._counts[level][index])
        if count == 0:  # an empty tile: nothing was scanned there
            return np.full(shape, WHITE, np.uint8)
        self._file.seek(int(self._offsets[level][index]))
        data = self._file.read(count)
        try:
            if page.compression != JPEG:
                return _decode_plain(page, data, index, shape)
            out = np.empty(shape, np.uint8)  # a JPEG of another size than its tile is refused, not allocated
            space = "RGB" if page.photometric == RGB else "YCBCR"
            return imagecodecs.jpeg8_decode(
                data, tables=self._jpeg_tables[level], colorspace=space, outcolorspace="RGB", out=out
            )
        except DAMAGE as error:
            across = math.ceil(size.width_px / size.tile_width_px)
            raise InputError(
                f"{self.path} is damaged: the tile in row {index // across}, column {index % across} of level {level} "
                f"cannot be decoded ({error}); copy or download the slide again."
            ) from error


class OpenSlide:
    """Anything that openslide opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reader = f"openslide {openslide.__library_version__} (openslide-python {openslide.__version__})"
        try:
            self._slide = openslide.OpenSlide(path)
            sizes, properties = self._slide.level_dimensions, dict(self._slide.properties)
            downsamples = self._slide.level_downsamples
        except openslide.OpenSlideUnsupportedFormatError:
            raise
        except (openslide.OpenSlideError, OSError) as error:
            raise InputError(
                f"{path} cannot be read as a slide: {error}; it is incomplete or damaged."
            ) from error
        bytes_ = path.stat().st_size
        alone = properties.get("openslide.vendor") not in ("mirax", "dicom", "hamamatsu", "zeiss")
        if (
            not sizes
            or min(sizes[0]) < 1
            or (alone and sizes[0][0] * sizes[0][1] > bytes_ * MOST_PX_PER_BYTE)
        ):
            self._slide.close()
            raise _implausible(path, *(sizes[0] if sizes else (0, 0)), bytes_)
        self.levels = tuple(
            Level(
                w,
                h,
                _whole_downsample(sizes[0], (w, h)) or downsamples[i],
                int(properties.get(f"openslide.level[{i}].tile-width", 256)),
                int(properties.get(f"openslide.level[{i}].tile-height", 256)),
            )
            for i, (w, h) in enumerate(sizes)
        )
        try:
            sides = [float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
            self.um_per_px: float | None = math.sqrt(sides[0] * sides[1])
        except (KeyError, ValueError):
            self.um_per_px = None
        bounds = [properties.get(f"openslide.bounds-{name}", "") for name in ("x", "y", "width", "height")]
        # Where the scanner noted them, QuPath shows that part alone and counts pixels from its corner.
        self.origin_px = (int(bounds[0]), int(bounds[1])) if all(map(str.isdecimal, bounds)) else (0, 0)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        downsample = self._slide.level_downsamples[level]
        place = (round(x * downsample), round(y * downsample))
        try:
            seen = np.asarray(self._slide.read_region(place, level, (width, height)))
        except openslide.OpenSlideError as error:
            raise InputError(f"{self.path} is damaged: {error}; copy or download the slide again.") from error
        rgb = np.ascontiguousarray(seen[..., :3])
        rgb[seen[..., 3] == 0] = WHITE  # transparent: nothing was scanned there
        return rgb

    def close(self) -> None:
        self._slide.close()


class PlainImage:
    """A picture without a pyramid, decoded whole."""

    um_per_px: float | None = None  # a dpi value in a picture speaks of paper, not of tissue

    def __init__(self, path: Path, *, tiff: bool) -> None:
        """`tiff` by what the file holds: pictures are given wrong endings."""
        self.reader = f"tifffile {tifffile.__version__}" if tiff else f"opencv {cv2.__version__}"
        self._pixels = _plain_tiff(path) if tiff else _plain_image(path)
        height, width = self._pixels.shape[:2]
        self.levels: tuple[Level, ...] = (Level(width, height, 1.0, width, height),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        return self._pixels[y : y + height, x : x + width].copy()

    def close(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)


def _open_tiff(path: Path) -> SlideFile:
    try:
        return TiledTiff(path)
    except NotOurs:
        pass
    except DAMAGE as error:
        raise InputError(
            f"{path} is a damaged TIFF: its header cannot be followed ({type(error).__name__}: {error}); "
            "copy or download it again."
        ) from error
    try:
        return OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        return PlainImage(path, tiff=True)


def _pyramid(tiff: Any, path: Path) -> list[Any]:
    """The pages that are levels, the largest first. Raises NotOurs for a TIFF that needs another reader."""
    if tiff.is_ndpi or tiff.is_philips or tiff.is_scn or tiff.is_bif:
        raise NotOurs
    first = tiff.pages[0]
    if not first.is_tiled:
        raise NotOurs
    _check_tiles(first, path)
    if not _decodable(first):
        raise NotOurs
    levels = [first]
    for page in _further_pages(tiff, first):
        ratio_w, ratio_h = first.imagewidth / page.imagewidth, first.imagelength / page.imagelength
        reduced = page.subfiletype & 1 or tiff.is_svs or page in (first.pages or ())
        smaller = page.imagewidth < levels[-1].imagewidth and abs(ratio_w / ratio_h - 1) < 0.1
        if page.is_tiled and reduced and smaller and _decodable(page):
            _check_tiles(page, path)
            levels.append(page)
    return levels


def _further_pages(tiff: Any, first: Any) -> list[Any]:
    below = list(first.pages)[:MOST_PAGES] if first.pages is not None else []  # SubIFDs, as in OME-TIFF
    after: list[Any] = []
    for i in range(1, MOST_PAGES):
        try:
            after.append(tiff.pages[i])
        except IndexError:
            break
    frames = [page for page in below + after if isinstance(page, tifffile.TiffPage)]
    return [page for page in frames if page.imagewidth > 0 and page.imagelength > 0]


def _decodable(page: Any) -> bool:
    samples, depth = page.samplesperpixel, page.bitspersample
    if page.planarconfig != 1 or depth != 8 or page.sampleformat not in (1, None):
        return False
    if page.compression == JPEG:
        return samples == 3 and page.photometric in (RGB, YCBCR)
    return page.compression in PLAIN_COMPRESSIONS and page.photometric == RGB and samples in (3, 4)


def _check_tiles(page: Any, path: Path) -> None:
    """Raise InputError unless the table of tiles fits the size of the image and of the file."""
    width, height, tile_w, tile_h = page.imagewidth, page.imagelength, page.tilewidth, page.tilelength
    if min(width, height, tile_w, tile_h) < 1 or tile_w * tile_h > MOST_TILE_PX:
        raise InputError(
            f"{path} is a damaged TIFF: it claims {width} x {height} px in tiles of {tile_w} x {tile_h}."
        )
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    expected = math.ceil(width / tile_w) * math.ceil(height / tile_h) * planes
    if len(page.dataoffsets) != expected or len(page.databytecounts) != expected:
        raise InputError(
            f"{path} is a damaged TIFF: its {width} x {height} px need {expected} tiles of {tile_w} x {tile_h}, "
            f"but its table lists {len(page.dataoffsets)}; copy or download it again."
        )
    bytes_ = path.stat().st_size
    offsets, counts = np.asarray(page.dataoffsets, np.float64), np.asarray(page.databytecounts, np.float64)
    outside = int(((offsets + counts > bytes_) & (counts > 0)).sum())
    if outside:
        raise InputError(
            f"{path} is truncated: {outside} of its {expected} tiles at {width} x {height} px lie beyond its end "
            f"({bytes_} bytes); copy or download it again."
        )
    if counts.max(initial=0) > 16 * tile_w * tile_h + 65536 or (offsets < 0).any() or (counts < 0).any():
        raise InputError(f"{path} is a damaged TIFF: a tile claims more bytes than its pixels can need.")


def _decode_plain(page: Any, data: bytes, index: int, shape: tuple[int, ...]) -> Pixels:
    decoded, _, _ = page.decode(data, index)
    out = np.full(shape, WHITE, np.uint8)
    if decoded is not None:
        tile = decoded[0]  # [height, width, samples], cut at the slide's edge
        out[: tile.shape[0], : tile.shape[1]] = tile[..., :3]
    return out


def _level(page: Any, first: Any) -> Level:
    full, size = (first.imagewidth, first.imagelength), (page.imagewidth, page.imagelength)
    downsample = _whole_downsample(full, size) or (full[0] / size[0] + full[1] / size[1]) / 2
    return Level(*size, downsample, page.tilewidth, page.tilelength)


def _whole_downsample(full: tuple[int, int], size: tuple[int, int]) -> float | None:
    """The whole number that both sides were divided by, rounded either way; else None. 2967 -> 1483 is 2, not 2.0007."""
    ratio = full[0] / size[0]
    for whole in (2 ** round(math.log2(max(ratio, 1))), round(ratio)):
        if all(abs(a - b * whole) <= whole for a, b in zip(full, size, strict=True)) and min(size) > 16:
            return float(whole)
    return None


def _tiff_um_per_px(tiff: Any, page: Any) -> float | None:
    text = (page.description or "")[:100_000]
    number = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)"
    if tiff.is_svs:
        found = re.search(rf"\bMPP\s*=\s*{number}", text)
        return float(found[1]) if found else None
    if tiff.is_ome:
        sides = [re.search(rf'PhysicalSize{axis}="{number}"', text) for axis in "XY"]
        unit = re.search(r'PhysicalSizeXUnit="([^"]*)"', text)
        if sides[0] and sides[1] and (unit is None or unit[1] in ("µm", "μm", "um", "&#181;m")):
            return math.sqrt(float(sides[0][1]) * float(sides[1][1]))
    unit_um = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit or 0))
    resolution = page.resolution
    if unit_um is None or not all(math.isfinite(r) and r > 0 for r in resolution):
        return None
    return unit_um / math.sqrt(resolution[0] * resolution[1])


def _plain_tiff(path: Path) -> Pixels:
    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
            bytes_ = path.stat().st_size
            if width * height > min(MOST_PLAIN_PX, bytes_ * MOST_PX_PER_BYTE) or width * height < 1:
                raise _implausible(path, width, height, bytes_)
            if page.dtype != np.uint8 or samples not in (1, 3, 4):
                raise InputError(
                    f"{path} holds {samples} channels of {page.dtype}: expected 8-bit RGB; convert it first."
                )
            pixels = page.asarray()
            if pixels.ndim == 3 and page.planarconfig == 2:
                pixels = np.moveaxis(pixels, 0, -1)
            pixels = as_shown(pixels, page.photometric, page.colormap, page.compression, path)
    except DAMAGE as error:
        raise InputError(f"{path} is a damaged TIFF: {error}; copy or download it again.") from error
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, 2)
    return np.ascontiguousarray(pixels[..., :3])


def _plain_image(path: Path) -> Pixels:
    data = np.fromfile(path, np.uint8)  # cv2.imread cannot open every path
    try:
        # As stored, not turned as a camera noted (EXIF): masks and positions of other programs lie in these pixels.
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise InputError(f"{path} is a picture that cannot be decoded ({error.err}).") from error
    if bgr is None:
        raise InputError(f"{path} is a damaged picture: it cannot be decoded; copy or download it again.")
    return np.ascontiguousarray(bgr[..., ::-1])


def _implausible(path: Path, width: int, height: int, bytes_: int) -> InputError:
    return InputError(
        f"{path} is damaged: it claims {width} x {height} px, which its {bytes_} bytes cannot hold; "
        "copy or download it again."
    )


def _open_dicom_folder(folder: Path) -> SlideFile:
    instances = sorted(folder.glob("*.dcm")) or sorted(p for p in folder.iterdir() if p.is_file())
    if not instances:
        raise InputError(f"{folder} is a folder without DICOM instances; name a slide, or its DICOM folder.")
    first = max(instances, key=lambda p: p.stat().st_size)
    refuse_incomplete_series(first, alone=True)
    try:
        return OpenSlide(first)
    except openslide.OpenSlideUnsupportedFormatError:
        raise InputError(
            f"{folder} holds no DICOM slide: {first.name} is not a whole-slide microscopy instance."
        ) from None
