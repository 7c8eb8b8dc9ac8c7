"""Aligned tiles per second: Tamis, openslide and, where they are installed, pyvips, fastslide and tiatoolbox, in turns in
one process.

    python benchmarks/slides_readers.py [SLIDE] [--seconds 2] [--rounds 5]

Without SLIDE a synthetic one is written first: 8192 x 8192 px of noise on pink, JPEG 85, tiles of 256 px. Random tiles of the
full resolution, the file in the page cache, a fresh place each time so that no reader lives on its cache.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import tifffile

from tamis.slides import open_slide

TILE = 256
Read = Callable[[int, int, int, int], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each reader in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.slide or synthetic(Path(folder) / "synthetic.tif")
        compare(path, options.seconds, options.rounds)


def synthetic(path: Path, side: int = 8192) -> Path:
    generator = np.random.default_rng(0)
    small = generator.normal(0, 1, (side // 8, side // 8, 3)).astype(np.float32)
    smooth = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC) * 30 + (200, 140, 180)
    pixels = np.clip(smooth + generator.normal(0, 4, (side, side, 1)), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path,
        pixels,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        resolution=(40000, 40000),
        resolutionunit="CENTIMETER",
    )
    return path


def compare(path: Path, seconds: float, rounds: int) -> None:
    slide, theirs = open_slide(path, mpp=0.25), openslide.OpenSlide(path)
    width, height = slide.size_px
    readers: dict[str, Read] = {
        "tamis": lambda x, y, w, h: slide.read_level(0, x, y, w, h),
        "openslide": lambda x, y, w, h: np.asarray(theirs.read_region((x, y), 0, (w, h)))[..., :3],
    }
    try:
        from tiatoolbox.wsicore.wsireader import WSIReader

        tia = WSIReader.open(path, mpp=(0.25, 0.25))
        readers["tiatoolbox"] = lambda x, y, w, h: tia.read_rect((x, y), (w, h), resolution=0, units="level")
    except ImportError:
        pass
    try:
        import pyvips

        region = pyvips.Region.new(pyvips.Image.new_from_file(str(path), access="random"))
        readers["pyvips"] = lambda x, y, w, h: np.frombuffer(region.fetch(x, y, w, h), np.uint8)
    except (ImportError, OSError):
        pass
    try:
        import fastslide

        fast = fastslide.FastSlide.from_file_path(str(path))
        readers["fastslide"] = lambda x, y, w, h: fast.read_region((x, y), 0, (w, h))
    except ImportError:
        pass
    print(
        f"{path.name}: {width} x {height} px; {platform.processor() or platform.machine()}; {slide.reader}; "
        f"openslide {openslide.__library_version__}"
    )
    print(
        f"{'reader':12} {'aligned/s':>10} {'ratio':>6}   {'unaligned/s':>11} {'ratio':>6}   "
        f"{'blocks of 2048: tiles/s':>24} {'ratio':>6}"
    )
    table = {}
    for kind in ("aligned", "unaligned", "blocks"):
        speeds: dict[str, list[float]] = {name: [] for name in readers}
        for turn in range(rounds):
            for name, read in readers.items():
                speeds[name].append(tiles_per_second(read, kind, width, height, seconds, turn))
        table[kind] = {name: statistics.median(values) for name, values in speeds.items()}
    for name in readers:
        cells = [(table[kind][name], table[kind][name] / table[kind]["openslide"]) for kind in table]
        print(
            f"{name:12} {cells[0][0]:10.0f} {cells[0][1]:6.1f}   {cells[1][0]:11.0f} {cells[1][1]:6.1f}   "
            f"{cells[2][0]:24.0f} {cells[2][1]:6.1f}"
        )


def tiles_per_second(read: Read, kind: str, width: int, height: int, seconds: float, turn: int) -> float:
    generator = np.random.default_rng((turn, 5))
    side = min(2048, width // TILE * TILE, height // TILE * TILE) if kind == "blocks" else TILE
    count, started = 0.0, time.process_time()
    while time.process_time() - started < seconds:
        for _ in range(20 if kind != "blocks" else 1):
            x = int(generator.integers((width - side) // TILE + 1)) * TILE
            y = int(generator.integers((height - side) // TILE + 1)) * TILE
            if kind == "unaligned":
                x, y = min(x + 77, width - side), min(y + 133, height - side)
            read(x, y, side, side)
            count += (side / TILE) ** 2
    return count / (time.process_time() - started)


if __name__ == "__main__":
    main()
