"""A slide's tissue and all tiles of 256 px on it: Tamis, openslide and hs2p, in turns in one process.

    python benchmarks/slides_toolbox.py SLIDE [--rounds 5]

    tamis      tissue_mask, then slide.tiles(256, mask=...)
    openslide  what a script does: a thumbnail at a downsample of 64, Otsu's threshold on its saturation, one read_region a tile
    hs2p       tile_slide with its defaults (HSV, downsample of 64) at the slide's own resolution, then its own streaming of
               tiles (supertiles), once through openslide and, where pyvips is installed, once through libvips, which it prefers

SLIDE may be what `slides_memory.py --side 20000` wrote. hs2p brings another build of OpenCV and much else, so it goes into an
environment of its own, with Tamis in it (`make work/toolbox-venv/.made`).
Seconds are processor time of all threads, medians over the rounds; each tool reads the tiles of the tissue that it found.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray

from tamis.slides import open_slide, tissue_mask

TILE = 256
Arm = Callable[[Path], Iterator[Any]]
"""Yields once when the tissue is known, then every tile."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    arms: dict[str, Arm] = {"tamis": tamis, "openslide": script} | toolboxes()
    seconds: dict[str, list[tuple[float, float, int]]] = {name: [] for name in arms}
    for _ in range(options.rounds):
        for name, arm in arms.items():
            seconds[name].append(timed(arm, options.slide))
    with open_slide(options.slide) as slide:
        print(
            f"{options.slide.name}: {' x '.join(map(str, slide.size_px))} px; {platform.machine()}; {slide.reader}"
        )
    print(
        f"{'':16} {'tissue, s':>9} {'tiles':>7} {'tiles/s':>8} {'ratio':>6} {'whole, s per 1000 tiles':>24} {'ratio':>6}"
    )
    rows = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in seconds.items()
    }
    reading = {name: tiles / read for name, (_, read, tiles) in rows.items()}
    whole = {name: 1000 * (found + read) / tiles for name, (found, read, tiles) in rows.items()}
    for name, (found, _, tiles) in rows.items():
        print(
            f"{name:16} {found:9.2f} {tiles:7.0f} {reading[name]:8.0f} {reading[name] / reading['openslide']:6.1f} "
            f"{whole[name]:24.2f} {whole['openslide'] / whole[name]:6.1f}"
        )


def timed(arm: Arm, path: Path) -> tuple[float, float, int]:
    """Processor seconds until the tissue is known and from there on, and the number of tiles."""
    started = time.process_time()
    tiles = arm(path)
    next(tiles)
    found = time.process_time()
    count = sum(1 for _ in tiles)
    return found - started, time.process_time() - found, count


def tamis(path: Path) -> Iterator[Any]:
    with open_slide(path) as slide:
        mask = tissue_mask(slide)
        yield mask
        yield from (tile.pixels for tile in slide.tiles(TILE, mask=mask))


def script(path: Path) -> Iterator[Any]:
    slide = openslide.OpenSlide(path)
    width, height = slide.dimensions
    small = np.asarray(slide.get_thumbnail((width // 64, height // 64)).convert("RGB"))
    saturation = cv2.medianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1], 7)
    _, tissue = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    places = tiles_on(tissue > 0, width, height)
    yield places
    for x, y in places:
        yield np.asarray(slide.read_region((x, y), 0, (TILE, TILE)).convert("RGB"))


def tiles_on(tissue: NDArray[np.bool_], width: int, height: int) -> list[tuple[int, int]]:
    rows, columns = height // TILE, width // TILE
    share = cv2.resize(
        tissue[: rows * 4, : columns * 4].astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA
    )
    return [(int(x) * TILE, int(y) * TILE) for y, x in np.argwhere(share > 0.01)]


def toolboxes() -> dict[str, Arm]:
    try:
        import hs2p  # noqa: F401
    except ImportError:
        return {}
    arms = {"hs2p, openslide": with_hs2p("openslide")}
    try:
        import pyvips  # noqa: F401

        arms["hs2p, libvips"] = with_hs2p("vips")
    except (ImportError, OSError):
        pass
    return arms


def with_hs2p(backend: str) -> Arm:
    from hs2p import FilterConfig, SegmentationConfig, SlideSpec, TilingConfig, tile_slide
    from hs2p.wsi.streaming.stream import iter_tile_arrays_from_result

    def arm(path: Path) -> Iterator[Any]:
        with open_slide(path) as slide:
            spacing = slide.um_per_px
        result = tile_slide(
            SlideSpec(sample_id=path.stem, image_path=path),
            tiling=TilingConfig(
                requested_spacing_um=spacing,
                requested_tile_size_px=TILE,
                tolerance=0.05,
                overlap=0.0,
                backend=backend,
            ),
            segmentation=SegmentationConfig(method="hsv"),
            filtering=FilterConfig(),
        )
        yield result
        yield from iter_tile_arrays_from_result(result=result)

    return arm


if __name__ == "__main__":
    main()
