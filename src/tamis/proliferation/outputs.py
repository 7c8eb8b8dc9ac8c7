"""What is written for a slide: score.json, mitoses.geojson for QuPath, density.ome.tiff and density.png."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tamis import __version__
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.score import Settings, SlideScore
from tamis.weights import sha256_of

if TYPE_CHECKING:
    from tamis.slides import Slide

PURPOSE = "research use only; not a medical device"
DENSITY_UM_PER_PX = 32.0
DENSITY_SIGMA_UM = (
    250.0  # a Gaussian whose equivalent area, 4 pi sigma^2, is 0.79 mm2: a few high-power fields
)
MOST_DENSITY_PX = 4096  # on the longer side: beyond, the map is coarser
LEAST_PICTURE_PX = 512  # on the longer side of density.png
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "scipy", "tifffile", "openslide-python")


def record(slide: Slide, found: SlideScore, settings: Settings, source: str) -> dict[str, Any]:
    """score.json: the scores, where they come from, and what they were made with. JSON values only."""
    spot = found.hot_spot
    low, high = found.interval
    lowest, highest = found.mitotic_score_interval
    area = found.counted_mm2
    return {
        "slide": source,
        "purpose": PURPOSE,
        "mitotic_score": found.mitotic_score,
        "mitotic_score_low": lowest,
        "mitotic_score_high": highest,
        "count": found.count,
        "count_low": _round(low),
        "count_high": _round(high),
        "area_mm2": _round(area),
        "mitoses_per_mm2": _round(found.per_mm2),
        "mitoses_per_mm2_low": _round(low / area),
        "mitoses_per_mm2_high": _round(high / area),
        "mitoses_per_2mm2": _round(2 * found.per_mm2),
        "mitoses": len(found.mitoses),
        "mitoses_per_searched_mm2": None if found.whole is None else _round(found.per_searched_mm2),
        "hot_spot_if_even": None
        if found.even is None
        else dict(zip(("count", "low", "high"), map(_round, found.even), strict=True)),
        "hot_spot": None
        if spot is None
        else {
            "x_um": _round(spot.x_um),
            "y_um": _round(spot.y_um),
            "size_um": _round(spot.size_um),
            "shape": spot.shape,
            "count": spot.count,
        },
        "predicted": {
            task: {"value": _round(p.value), "low": _known(p.low), "high": _known(p.high), "model": p.model}
            for task, p in found.predicted.items()
        },
        "tissue_mm2": _round(found.tissue_mm2),
        "searched_mm2": None if found.whole is None else _round(found.searched_mm2),
        "not_searched_mm2": None if found.whole is None else _round(found.tissue_mm2 - found.searched_mm2),
        "whole_tissue_searched": found.whole,
        "regions": [
            {
                "x_um": _round(region.x_um),
                "y_um": _round(region.y_um),
                "width_um": _round(region.width_um),
                "height_um": _round(region.height_um),
                "cells": region.cells,
            }
            for region in found.regions
        ],
        "features": {name: _round(value) for name, value in found.features.items()},
        "provenance": {
            "tamis": __version__,
            "packages": {package: _version(package) for package in PACKAGES},
            "reader": slide.reader,
            "um_per_px": slide.um_per_px,
            "size_px": list(slide.size_px),
            "input_sha256": input_sha256(slide.path),
            "detector": found.detector,
            "models": [{"name": w.name, "sha256": w.sha256, "licence": w.licence} for w in found.models],
            "settings": {
                "preset": found.grading.name,
                "last_of_score_1": found.grading.last_of_one,
                "first_of_score_3": found.grading.first_of_three,
                "shape": settings.shape,
                "regions": settings.regions,
            },
            "seconds": found.seconds,
        },
    }


def input_sha256(path: Path) -> str:
    """Of a file; of a folder, over the names and hashes of its files in order."""
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.iterdir() if p.is_file()):
        digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def write_geojson(path: Path, found: SlideScore, slide: Slide) -> None:
    """A FeatureCollection for QuPath, in pixels of the full resolution as QuPath counts them, x to the right and y down.

    Mitoses are detections, points with their probability where they have one; the hot spot is an annotation. Written line
    by line, so that a hundred thousand points need no memory.
    """
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [\n')
        for n, feature in enumerate(_features(found, slide)):
            file.write((",\n" if n else "") + json.dumps(feature))
        file.write("\n]}\n")


def _features(found: SlideScore, slide: Slide) -> Iterator[dict[str, Any]]:
    left, top = slide.origin_px
    if found.hot_spot is not None:
        ring = outline(found, slide.um_per_px, slide.size_px) - (left, top)
        yield _feature(
            {"type": "Polygon", "coordinates": [ring.round(1).tolist()]},
            objectType="annotation",
            name=f"Hot spot, {found.count} mitoses in {found.counted_mm2:.2f} mm2",
            classification={"name": "Hot spot", "color": [255, 200, 0]},
            measurements={"Mitoses": found.count, "Mitoses per mm2": _round(found.per_mm2)},
        )
    for mitosis in found.mitoses:
        place = [
            _round(mitosis.x_um / slide.um_per_px - left, 2), _round(mitosis.y_um / slide.um_per_px - top, 2)
        ]  # fmt: skip
        yield _feature(
            {"type": "Point", "coordinates": place},
            objectType="detection",
            classification={"name": "Mitosis", "color": [200, 0, 0]},
            measurements={}
            if math.isnan(mitosis.probability)
            else {"Probability": _round(mitosis.probability)},
        )


def _feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def outline(found: SlideScore, um_per_px: float, size_px: tuple[int, int]) -> NDArray[np.float64]:
    """The closed ring [n, 2] of the hot spot in pixels, cut off at the slide's edge, which a large window crosses."""
    spot = found.hot_spot
    assert spot is not None
    half = spot.size_um / 2
    if spot.shape == "square":
        turns = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
    else:
        turns = [(math.cos(a), math.sin(a)) for a in np.linspace(0, 2 * math.pi, 64, endpoint=False)]
    ring = np.array([(spot.x_um + half * x, spot.y_um + half * y) for x, y in [*turns, turns[0]]])
    return np.clip(ring / um_per_px, 0, size_px)


def density(mitoses: list[Mitosis], size_um: tuple[float, float]) -> tuple[NDArray[np.float32], float]:
    """Mitoses per mm2 over the whole slide [h, w], smoothed by a Gaussian of 250 um, and its um per px.

    At the slide's edge what lies outside is left out of the mean, so that an edge does not look quiet.
    """
    um_per_px = max(DENSITY_UM_PER_PX, max(size_um) / MOST_DENSITY_PX)
    width, height = (max(1, math.ceil(side / um_per_px)) for side in size_um)
    counts = np.zeros((height, width), np.float32)
    for mitosis in mitoses:
        row, column = int(mitosis.y_um / um_per_px), int(mitosis.x_um / um_per_px)
        if 0 <= row < height and 0 <= column < width:
            counts[row, column] += 1
    sigma = DENSITY_SIGMA_UM / um_per_px
    blurred = cv2.GaussianBlur(counts, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    inside = cv2.GaussianBlur(np.ones_like(counts), (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return (blurred / inside / (um_per_px / 1000) ** 2).astype(np.float32), um_per_px


def write_density(path: Path, values: NDArray[np.float32], um_per_px: float) -> None:
    """An OME-TIFF with pyramid, whose pixel size QuPath reads: mitoses per mm2 as 32-bit floats."""
    import tifffile

    halved = [values]
    while max(halved[-1].shape) > 512:
        halved.append(cv2.resize(halved[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    options: dict[str, Any] = {"tile": (256, 256), "compression": "zlib", "photometric": "minisblack"}
    resolution: dict[str, Any] = {
        "resolution": (1e4 / um_per_px, 1e4 / um_per_px),
        "resolutionunit": "CENTIMETER",
    }
    with tifffile.TiffWriter(path, bigtiff=False, ome=True) as tiff:
        tiff.write(
            values,
            subifds=len(halved) - 1,
            metadata={
                "axes": "YX",
                "PhysicalSizeX": um_per_px,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": um_per_px,
                "PhysicalSizeYUnit": "µm",
                "Channel": {"Name": ["mitoses per mm2"]},
            },
            **options,
            **resolution,
        )
        for level in halved[1:]:
            tiff.write(level, subfiletype=1, **options)


def density_picture(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The map in colours [h, w, 3] RGB, white where there is nothing; the scale ends at the highest density."""
    top = float(values.max())
    shares = np.clip(values / top if top > 0 else values, 0, 1)
    colours = cv2.applyColorMap((255 * shares).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    strength = np.clip(shares * 3, 0, 1)[..., None]  # fades in over the lowest third
    return np.round(255 * (1 - strength) + colours * strength).astype(np.uint8)


def write_density_picture(path: Path, values: NDArray[np.float32]) -> None:
    """The map in colours as a PNG, enlarged where it has few pixels."""
    scale = max(1.0, LEAST_PICTURE_PX / max(values.shape))
    enlarged = cv2.resize(values, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    coloured = density_picture(np.asarray(enlarged, np.float32))[..., ::-1]
    path.write_bytes(
        cv2.imencode(".png", coloured)[1].tobytes()
    )  # not imwrite, which says nothing of a full disk


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _round(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


def _known(value: float) -> float | None:
    """JSON has no NaN: null where there is no interval."""
    return _round(value) if math.isfinite(value) else None
