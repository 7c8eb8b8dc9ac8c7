"""Throughput of whole-slide segmentation beside a plain ONNX Runtime run of the same network on tiles in memory.

    python benchmarks/weakseg_speed.py [--side 20000] [--rounds 5] [--threads 1]

Draws a pyramidal TIFF of side x side pixels at 0.25 um/px (the phantom, repeated), then alternates, in one process:
  tamis   the slide's tiles read, decoded, predicted, refined and blended (segmentation.predict_rows)
  files   all that  tamis weakseg segment  does: tissue, the same, and its four files written (segmentation.segment_file)
  plain   session.run on the same tiles, decoded beforehand; nothing refined, nothing blended
and reports the medians in megapixels of the network's plane a second of CPU time, all threads counted, overlaps not counted
twice, the ratios, and the largest resident memory of this process. CPU time and turns, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tifffile

from tamis.processors import processors
from tamis.slides import open_slide
from tamis.tiles import Grid
from tamis.weakseg.network import load
from tamis.weakseg.phantom import phantom
from tamis.weakseg.segmentation import TILE_PX, predict_rows, segment_file

UM_PER_PX = 0.25


def draw_slide(path: Path, side: int) -> None:
    """A pyramid of JPEG tiles, four levels a factor of 2 apart, one row of tiles in memory at a time."""
    patch, _ = phantom(2048, 2048, seed=1, um_per_px=UM_PER_PX)

    def tiles(size: int, step: int) -> object:
        small = np.ascontiguousarray(patch[::step, ::step])
        for y in range(0, size, 256):
            for x in range(0, size, 256):
                cut = small[y % len(small) : y % len(small) + 256, x % len(small) : x % len(small) + 256]
                yield np.ascontiguousarray(cut)

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(4):
            size = side >> level
            file.write(
                tiles(size, 1 << level),
                shape=(size, size, 3),
                dtype=np.uint8,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                subifds=3 if level == 0 else 0,
                subfiletype=0 if level == 0 else 1,
                resolution=(1e4 / (UM_PER_PX * (1 << level)),) * 2,
                resolutionunit="CENTIMETER",
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights")
    parser.add_argument("--slide", type=Path)
    options = parser.parse_args()
    slide_path = options.slide or Path("work/weakseg") / f"slide_{options.side}.tif"
    if not slide_path.exists():
        slide_path.parent.mkdir(parents=True, exist_ok=True)
        draw_slide(slide_path, options.side)
    cv2.setNumThreads(options.threads)
    network = load(options.weights, options.threads)
    um_per_px = network.geometry.um_per_px
    assert um_per_px is not None, "a network with a scale of its own is measured"
    with open_slide(slide_path) as slide:
        width, height = (round(length / um_per_px) for length in slide.size_um)
        stride, overlap = network.geometry.stride_px, network.geometry.overlap_px
        tile = -(-min(TILE_PX, max(height, width)) // stride) * stride
        grid = Grid(width, height, tile, min(overlap, tile // 2 // stride * stride))

        def ours() -> float:
            started = time.process_time()
            for _ in predict_rows(slide, (height, width), um_per_px, network):
                pass
            return time.process_time() - started

        def files() -> float:
            started = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                segment_file(slide_path, Path(folder), network)
            return time.process_time() - started

        peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        files()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        tiles = [
            slide.read_region(t.x * um_per_px, t.y * um_per_px, t.width, t.height, um_per_px) for t in grid
        ]

        def plain() -> float:
            started = time.process_time()
            for pixels in tiles:
                network.unrefined(pixels)  # the graph alone: no boundary refinement, no blending
            return time.process_time() - started

        plain(), ours()
        times = np.array([(ours(), plain(), files()) for _ in range(options.rounds)])
    megapixels = width * height / 1e6
    print(
        f"{platform.processor() or platform.machine()}, {processors()} cores, {options.threads} threads, "
        f"load {os.getloadavg()[0]:.0f}"
    )
    print(
        f"{slide_path.name}: {slide.size_px[0]} x {slide.size_px[1]} px at {UM_PER_PX} um/px, {slide.reader}"
    )
    print(
        f"plane {width} x {height} at {um_per_px} um/px, {len(grid)} tiles of {tile} with {grid.overlap} in common"
    )
    for index, name in enumerate(("tamis", "plain", "files")):
        seconds = statistics.median(times[:, index])
        ratio = statistics.median(times[:, 1] / times[:, index])
        print(
            f"{name}  {megapixels / seconds:7.2f} MP/s   {seconds:7.2f} CPU s   {ratio:6.3f} of plain, median of {options.rounds}"
        )
    print(f"peak memory {peak_mb:.0f} MB (before: {peak_before / 1024:.0f} MB)")


if __name__ == "__main__":
    main()
