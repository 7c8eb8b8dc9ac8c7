"""From an image or a slide to its map of cancer.

    source -> tissue -> tiles at the network's um/px -> probabilities, blended -> map, polygons, overlay, areas

Tiles are read by a second thread while the network is at work on the one before. The map is kept on disk, a byte a
pixel, until its files are written: memory grows with the width of the slide only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis import __version__
from tamis.errors import InputError
from tamis.remote import local, stem_of
from tamis.slides import Slide
from tamis.tiles import Blender, Grid, Tile
from tamis.tissue import tissue_in, tissue_mask
from tamis.weakseg.maps import Map
from tamis.weakseg.network import Network
from tamis.weakseg.outputs import OVERLAY_MAX_PX, STEPS, write_overlay, write_probability, write_summary
from tamis.weakseg.polygons import polygons, write_geojson
from tamis.weakseg.source import Picture, open_source
from tamis.writing import output_error, reserve, scratch

TILE_PX = 1024
AHEAD = 2  # tiles read and not yet looked at
TISSUE_UM_PER_PX = 8.0
LARGEST_LUMEN_MM2 = 0.1
LARGEST_CUT_LUMEN = 0.2  # of the picture, where its frame cuts the lumen; what is larger there is glass
SMALLEST_UM2 = 500.0  # a part or hole of less is ten cells: not drawn as a polygon, but counted in the area
SIMPLIFY_PX = 1.0
COARSEST = 4.0  # pixels, in the network's; a voxel of a millimetre would be cut into 650,000 of them


class Regions(Protocol):
    """What tiles are read from."""

    def read_region(
        self, x_um: float, y_um: float, width_px: int, height_px: int, um_per_px: float | None = None
    ) -> NDArray[np.uint8]: ...


def segment_file(
    path: str | Path,
    folder: Path,
    network: Network,
    *,
    mpp: float | None = None,
    threshold: float | None = None,
    whole: bool = False,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Write FOLDER/STEM.{probability.ome.tiff, mask.geojson, overlay.png, summary.json} and return the summary.

    path       of a file or a folder of DICOM files, or a URL that fsspec opens
    threshold  of the mask; by default the network's own
    whole      look at everything, and not only at stained tissue

    Raises InputError (UnknownResolution) with a sentence, before anything is written.
    """
    started, name = time.monotonic(), str(path)
    chosen = network.geometry.threshold if threshold is None else threshold
    with (
        local(name) as here,
        open_source(here, mpp, scaled=network.geometry.um_per_px is not None) as source,
        scratch(folder / stem_of(name)) as beside,
    ):
        _require_fine(source.um_per_px, network.geometry.um_per_px, name)
        kept, um_per_px, tissue = _map(source, network, beside / "map", whole, progress, name)
        mask = _mask(kept, chosen)
        stem = folder / stem_of(name)
        px_scale = um_per_px / source.um_per_px if um_per_px and source.um_per_px else 1.0
        parts = polygons(
            mask,
            smallest_px=0.0 if um_per_px is None else SMALLEST_UM2 / um_per_px**2,
            simplify_px=SIMPLIFY_PX,
        )
        write_probability(kept, _named(stem, ".probability.ome.tiff"), um_per_px)
        count = write_geojson(
            parts,
            _named(stem, ".mask.geojson"),
            px_scale=px_scale,
            um_per_px=source.um_per_px,
            name=here.name,
            origin_px=source.origin_px if isinstance(source, Slide) else (0, 0),
        )
        write_overlay(source.thumbnail(max_px=OVERLAY_MAX_PX), mask, _named(stem, ".overlay.png"))
        summary = {
            "image": name,
            "size_px": list(source.size_px),
            "um_per_px": source.um_per_px,
            "reader": source.reader,
            "map_size_px": [kept.shape[1], kept.shape[0]],
            "map_um_per_px": um_per_px,
            **_areas(mask, tissue, um_per_px),
            "highest_probability": round(float(kept.max()) / STEPS, 4),
            "threshold": chosen,
            "parts": count,
            "weights": network.record.name,
            "weights_sha256": network.record.sha256,
            "weights_licence": network.record.licence,
            "tamis": __version__,
            "seconds": round(time.monotonic() - started, 2),
        }
        write_summary(summary, _named(stem, ".summary.json"))
    return summary


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _map(
    source: Slide | Picture,
    network: Network,
    place: Path,
    whole: bool,
    progress: Callable[[float], None] | None,
    name: str,
) -> tuple[NDArray[np.uint8], float | None, NDArray[np.bool_] | None]:
    """(map in steps of 1/255, its um/px, tissue mask of any size or None for everything).

    A picture's map has the picture's own size; a slide's has the network's resolution.
    """
    look = network.geometry.stained and not whole
    if isinstance(source, Picture):
        stained = _tissue_of(source, name) if look else None
        image = source.at(network.geometry.um_per_px)
        probability = predict(ArrayRegions(image), image.shape[:2], None, network, progress=progress)
        full = (
            cv2.resize(probability, source.size_px)
            if probability.shape != source.size_px[::-1]
            else probability
        )
        whole_map = np.rint(full * STEPS).astype(np.uint8)
        if stained is not None:
            _blank(whole_map, stained)
        return whole_map, source.um_per_px, stained
    um_per_px = network.geometry.um_per_px or source.um_per_px
    tissue = None
    if look:
        found, mask_um = tissue_mask(source, TISSUE_UM_PER_PX)
        _require(found, name)
        tissue = _filled(found, mask_um), mask_um
    width, height = (max(1, round(side / um_per_px)) for side in source.size_um)
    kept = _plane(place, height, width)
    for y, rows in predict_rows(
        source, (height, width), um_per_px, network, tissue=tissue, progress=progress
    ):
        kept[y : y + len(rows)] = np.rint(rows * STEPS)
    if tissue is None:
        return kept, um_per_px, None
    _blank(kept, tissue[0])
    return kept, um_per_px, tissue[0]


def _plane(place: Path, height: int, width: int) -> NDArray[np.uint8]:
    """Zeros [height, width] that are kept on the disk. Raises OutputError where it has no room for them."""
    try:
        reserve(place, height * width)
        return np.memmap(place, np.uint8, "r+", shape=(height, width))
    except OSError as error:
        raise output_error(place, error) from error


def _require_fine(um_per_px: float | None, of_network: float | None, name: str) -> None:
    """Raises InputError for pixels so coarse that what the network looks for cannot be in them."""
    if um_per_px is not None and of_network is not None and um_per_px > COARSEST * of_network:
        raise InputError(
            f"{name}: a pixel is {um_per_px:.4g} um wide, and this network looks at {of_network:.4g} um (pixels of "
            f"{COARSEST * of_network:.3g} um at most): give the true size with --mpp, or train for this scale "
            "(--set um_per_px=...)."
        )


def _tissue_of(picture: Picture, name: str) -> NDArray[np.bool_] | None:
    """Where a picture holds tissue; None for one of unknown scale, which is taken at its word. Raises InputError for glass."""
    if picture.um_per_px is None:
        return None
    coarse = max(TISSUE_UM_PER_PX, picture.um_per_px)
    found = tissue_in(picture.at(coarse), coarse)
    _require(found, name)
    return _filled(found, coarse)


def _require(tissue: NDArray[np.bool_], name: str) -> None:
    if not tissue.any():
        raise InputError(
            f"{name}: no stained tissue was found, and this network knows haematoxylin and eosin only; "
            "if there is some, look at everything with --whole."
        )


def _filled(tissue: NDArray[np.bool_], um_per_px: float) -> NDArray[np.bool_]:
    """With the lumina: what is pale but surrounded by tissue, or by tissue and the frame, is part of a gland, and of its cancer.

    A whole field may be hardly larger than a lumen can be. Of the 85 fields of GlaS four have more than a fifth of glass at
    their frame (20 to 61 %), which is left out; lumina and pale stroma at the frame of the others have 15 % at most.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~tissue).astype(np.uint8), connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA]
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    cut = (left == 0) | (top == 0) | (right == tissue.shape[1]) | (bottom == tissue.shape[0])
    small = area * um_per_px**2 / 1e6 < LARGEST_LUMEN_MM2
    small &= ~cut | (area <= LARGEST_CUT_LUMEN * tissue.size)
    small[0] = False
    return np.asarray(tissue | small[labels]) if count > 1 else tissue


def _blank(kept: NDArray[np.uint8], tissue: NDArray[np.bool_]) -> None:
    """Zero outside the tissue, a band of rows at a time."""
    height, width = kept.shape
    columns = np.minimum(np.arange(width) * tissue.shape[1] // width, tissue.shape[1] - 1)
    for top in range(0, height, 1024):
        band = kept[top : top + 1024]
        rows = np.minimum((top + np.arange(len(band))) * tissue.shape[0] // height, tissue.shape[0] - 1)
        band[~tissue[np.ix_(rows, columns)]] = 0


def _mask(kept: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    return np.asarray(kept > threshold * STEPS)


def _areas(
    mask: NDArray[np.bool_], tissue: NDArray[np.bool_] | None, um_per_px: float | None
) -> dict[str, Any]:
    share = float(mask.mean())
    tissue_share = 1.0 if tissue is None else float(tissue.mean())
    px_mm2 = None if um_per_px is None else um_per_px**2 / 1e6
    return {
        "cancer_mm2": None if px_mm2 is None else round(float(mask.sum()) * px_mm2, 6),
        "tissue_mm2": None if px_mm2 is None else round(tissue_share * mask.size * px_mm2, 6),
        "cancer_percent_of_image": round(100 * share, 3),
        "cancer_percent_of_tissue": round(100 * min(1.0, share / tissue_share), 3) if tissue_share else 0.0,
    }


# tiles


@dataclass(frozen=True, slots=True)
class ArrayRegions:
    """An array [H, W, 3] as something to read tiles from, at a scale of 1."""

    pixels: NDArray[np.uint8]

    def read_region(
        self, x_um: float, y_um: float, width_px: int, height_px: int, um_per_px: float | None = None
    ) -> NDArray[np.uint8]:
        x, y = round(x_um), round(y_um)
        return self.pixels[y : y + height_px, x : x + width_px]


def predict(
    regions: Regions,
    size: Sequence[int],
    um_per_px: float | None,
    network: Network,
    *,
    tile_px: int = TILE_PX,
    progress: Callable[[float], None] | None = None,
) -> Map:
    """The whole map [height, width] = size in memory."""
    out = np.empty((size[0], size[1]), np.float32)
    for y, rows in predict_rows(regions, size, um_per_px, network, tile_px=tile_px, progress=progress):
        out[y : y + len(rows)] = rows
    return out


def predict_rows(
    regions: Regions,
    size: Sequence[int],
    um_per_px: float | None,
    network: Network,
    *,
    tile_px: int = TILE_PX,
    tissue: tuple[NDArray[np.bool_], float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[int, Map]]:
    """Finished rows (y, [n, width]) of the map of a plane `size` = (height, width), top to bottom.

    um_per_px  of the plane; None where `regions` counts pixels
    tissue     (mask, um/px): tiles without any are not read and come out as 0
    """
    height, width = size
    stride, overlap = network.geometry.stride_px, network.geometry.overlap_px
    tile = -(-min(tile_px, max(height, width)) // stride) * stride
    grid = Grid(width, height, tile, min(overlap, tile // 2 // stride * stride))
    blender = Blender(grid)
    for done, (place, pixels) in enumerate(_read_ahead(regions, grid, um_per_px, tissue), start=1):
        yield from blender.add(place, None if pixels is None else network(pixels))
        if progress is not None:
            progress(done / len(grid))


def _read_ahead(
    regions: Regions,
    grid: Grid,
    um_per_px: float | None,
    tissue: tuple[NDArray[np.bool_], float] | None,
) -> Iterator[tuple[Tile, NDArray[np.uint8] | None]]:
    """Tiles with their pixels, None where there is no tissue; read by another thread."""
    scale = um_per_px or 1.0

    def pixels_of(tile: Tile) -> NDArray[np.uint8] | None:
        if tissue is not None and not _touches(tissue, tile, scale):
            return None
        return regions.read_region(tile.x * scale, tile.y * scale, tile.width, tile.height, um_per_px)

    ahead: deque[tuple[Tile, Future[NDArray[np.uint8] | None]]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for tile in grid:
                ahead.append((tile, reader.submit(pixels_of, tile)))
                if len(ahead) > AHEAD:
                    first, pixels = ahead.popleft()
                    yield first, pixels.result()
            for first, pixels in ahead:
                yield first, pixels.result()
        finally:
            reader.shutdown(cancel_futures=True)


def _touches(tissue: tuple[NDArray[np.bool_], float], tile: Tile, scale: float) -> bool:
    mask, um_per_px = tissue
    left, top = (int(origin * scale / um_per_px) for origin in (tile.x, tile.y))
    right, bottom = (
        int((origin + size) * scale / um_per_px) + 1
        for origin, size in ((tile.x, tile.width), (tile.y, tile.height))
    )
    return bool(mask[top:bottom, left:right].any())
