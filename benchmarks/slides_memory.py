"""Peak memory of `tamis proliferation score` on a slide of 100,000 x 100,000 px. Run: python benchmarks/slides_memory.py

A slide of that size is written first (about 2 GB, in --work, kept for the next run): a pyramid of JPEG tiles with levels at
1, 4, 16 and 64, of which --tissue is tissue and the rest glass. The tissue is one composed square of 4096 px, real pixels in
a synthetic layout, encoded once and written again and again. So every step works on what it would work on in a real slide
of that size: the mask over all of it, nuclei counted in all its tissue, the network in the 30 regions (60 mm2) that hold
most of them, the outputs. --regions makes that last step shorter; the readers, the mask and the ranking stay whole.

The peak is the sum over the command's processes of each one's own peak (VmHWM), which no moment reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from tamis.proliferation.compose import Composer
from tamis.slides import open_slide
from tamis.writing import replacing

Pixels = NDArray[np.uint8]
CELL, TILE, UM_PER_PX = 4096, 256, 0.25
LEVELS = (1, 4, 16, 64)
GLASS = 243
LIMIT_GIB = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/score"))
    parser.add_argument("--side", type=int, default=100_000, metavar="PX")
    parser.add_argument("--tissue", type=float, default=0.6, help="share of the slide (default: %(default)s)")
    parser.add_argument(
        "--regions", type=int, default=30, help="searched by the network (default: %(default)s)"
    )
    parser.add_argument("--one-level", action="store_true", help="a file without a pyramid")
    options = parser.parse_args()
    levels = LEVELS[:1] if options.one_level else LEVELS
    path = options.work / f"repeated-{options.side}-{options.tissue:g}-{len(levels)}.tif"
    if not path.exists():
        write(path, options.data / "pathology", options.side, options.tissue, levels)
    target = options.work / f"{path.stem}-results"
    command = [sys.executable, "-m", "tamis", "proliferation", "score", str(path), "-o", str(target)]
    started = time.monotonic()
    peak_kib = watch(subprocess.Popen([*command, "--regions", str(options.regions)]))
    wall_s = time.monotonic() - started
    record = json.loads((target / path.stem / "score.json").read_text())
    with open_slide(path) as slide:
        shape = " x ".join(str(side) for side in slide.size_px)
    print(
        f"{shape} px in {len(levels)} levels, {path.stat().st_size / 1e9:.2f} GB, {record['tissue_mm2']:.0f} mm2 of tissue, "
        f"{record['searched_mm2']:.0f} mm2 searched by the network"
    )
    print(f"steps, s: {record['provenance']['seconds']}; wall {wall_s:.0f} s")
    gib = [kib / 2**20 for kib in peak_kib]
    told = "within" if sum(gib) < LIMIT_GIB else "BEYOND"
    print(
        f"peak of its processes {[round(g, 2) for g in gib]} GiB, together {sum(gib):.2f}: {told} {LIMIT_GIB:g} GiB"
    )


def write(path: Path, data: Path, side: int, share: float, levels: tuple[int, ...]) -> None:
    tissue = Composer(data, size_px=4 * CELL, seed=11, part="test").pixels(CELL, CELL, CELL, CELL)
    cells = -(-side // CELL)
    layout = np.zeros(cells * cells, bool)
    layout[: round(share * cells * cells)] = True
    layout = layout.reshape(cells, cells)  # from the top: one piece, as large as a slide can hold
    options = {"tile": (TILE, TILE), "photometric": "ycbcr", "compression": "jpeg", "dtype": np.uint8}
    with replacing(path) as beside, tifffile.TiffWriter(beside, bigtiff=True) as tiff:
        for scale in levels:
            length = -(-side // scale)
            tiff.write(
                encoded(tissue, layout, scale, length),
                shape=(length, length, 3),
                subsampling=(2, 2),
                subfiletype=0 if scale == 1 else 1,
                resolution=(1e4 / (UM_PER_PX * scale),) * 2,
                resolutionunit="CENTIMETER",
                **options,
            )


def encoded(tissue: Pixels, layout: NDArray[np.bool_], scale: int, length: int) -> Iterator[bytes]:
    """The tiles of a level, row by row, each kind encoded once."""
    small = cv2.resize(tissue, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    glass = np.full_like(small, GLASS)
    known: dict[bytes, bytes] = {}
    tiles, side = -(-length // TILE), CELL // scale  # of a cell at this level
    for row in range(tiles):
        for column in range(tiles):
            if side >= TILE:  # a part of one cell
                y, x = row * TILE, column * TILE
                source = small if layout[y // side, x // side] else glass
                pixels = source[y % side : y % side + TILE, x % side : x % side + TILE]
            else:  # several cells
                n = TILE // side
                part = np.zeros((n, n), bool)
                there = layout[row * n : row * n + n, column * n : column * n + n]
                part[: there.shape[0], : there.shape[1]] = there
                pixels = np.block([[[small if cell else glass] for cell in line] for line in part])
            key = pixels.tobytes()
            if key not in known:
                known[key] = imagecodecs.jpeg8_encode(
                    pixels, level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"
                )
            yield known[key]


def watch(command: subprocess.Popen[bytes]) -> list[int]:
    """The peak of each process of the command, in KiB. Raises SystemExit when it failed."""
    peaks: dict[int, int] = {}
    while command.poll() is None:
        for process in family(command.pid):
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    peaks[process] = max(peaks.get(process, 0), int(line.split()[1]))
        time.sleep(0.1)
    if command.returncode:
        raise SystemExit(f"tamis proliferation score ended with {command.returncode}")
    return sorted(peaks.values(), reverse=True)


def family(process: int) -> list[int]:
    """A process and what it started."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in children for one in family(int(child)))]


if __name__ == "__main__":
    main()
