"""From a mask to polygons with their holes, and to the GeoJSON that QuPath opens.

Outlines follow the edges of pixels, so that a polygon has exactly the area of its pixels before it is simplified.
Coordinates are pixels of the full resolution, x to the right and y down, rings closed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely import Polygon, box, union_all
from shapely.affinity import affine_transform
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from tamis.writing import replacing

CLASSIFICATION = {"name": "Tumor", "color": [200, 0, 0]}
"""QuPath's own name for it."""


def polygons(
    mask: NDArray[np.bool_], *, smallest_px: float = 0.0, simplify_px: float = 0.0
) -> Iterator[Polygon]:
    """The connected (4-neighbour) parts of a mask [H, W], holes kept, largest first, in pixels of the mask.

    smallest_px   parts and holes of at most this area are left out
    simplify_px   largest distance by which an outline may move; 0 keeps every step of the pixels
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    order = np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable") + 1
    for index in order:
        x, y, width, height, area = (int(value) for value in stats[index])
        if area <= smallest_px:
            return
        part = labels[y : y + height, x : x + width] == index
        found = traced(part, x, y, smallest_px=smallest_px, simplify_px=simplify_px)
        if not found.is_valid:  # straightened rings may cross
            found = _without_small_holes(union_of_runs(part, x, y).simplify(simplify_px), smallest_px)
        if not found.is_empty:
            yield found


def traced(
    part: NDArray[np.bool_], x: int, y: int, *, smallest_px: float = 0.0, simplify_px: float = 0.0
) -> Polygon:
    """The outline of one 4-connected part and of its holes, along the edges of its pixels. (x, y) is its window's place.

    OpenCV follows the middles of pixels. In the mask drawn twice as large those of a pixel's two halves, 2i and 2i + 1, become
    its two edges, i and i + 1; and where the path cuts a corner both its ends become that corner. Rings are straightened one
    by one (Douglas & Peucker 1973), a tenth of the time that keeping them from touching takes; whoever calls looks whether
    they do.
    """
    doubled = cv2.resize(part.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outside, holes = None, []
    for contour, links in zip(contours, tree[0], strict=True):
        ring = (contour + 1) // 2
        inner = links[3] >= 0
        if inner and cv2.contourArea(ring) <= smallest_px:
            continue
        straight = cv2.approxPolyDP(ring, simplify_px, closed=True) if simplify_px else ring
        if not inner and len(straight) < 3:
            straight = ring  # of a part no wider than that, which would be gone
        placed = straight[:, 0] + (x, y)
        if not inner:
            outside = placed
        elif len(placed) > 2:
            holes.append(placed)
    return Polygon() if outside is None else Polygon(outside, holes)


def union_of_runs(part: NDArray[np.bool_], x: int, y: int) -> BaseGeometry:
    """The same by definition, and slowly: one box for every run of pixels in a row, united."""
    steps = np.diff(np.pad(part, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return union_all(box(starts + x, rows + y, ends + x, rows + y + 1))


def _without_small_holes(part: BaseGeometry, smallest_px: float) -> Polygon:
    if not isinstance(part, Polygon) or part.is_empty:
        return Polygon()
    return Polygon(part.exterior, [ring for ring in part.interiors if Polygon(ring).area > smallest_px])


def write_geojson(
    parts: Iterable[Polygon],
    path: Path,
    *,
    px_scale: float,
    um_per_px: float | None,
    name: str,
    origin_px: tuple[int, int] = (0, 0),
) -> int:
    """Stream a FeatureCollection; `px_scale` full-resolution pixels are one of the mask. Returns how many features.

    origin_px   the full-resolution pixel from which QuPath counts (`Slide.origin_px`)
    """
    count = 0
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for part in parts:
            file.write(
                ("," if count else "")
                + "\n"
                + json.dumps(_feature(part, px_scale, origin_px, um_per_px, f"{name}/{count}"))
            )
            count += 1
        file.write("\n]}\n")
    return count


def _feature(
    part: Polygon, px_scale: float, origin_px: tuple[int, int], um_per_px: float | None, identity: str
) -> dict[str, Any]:
    placed = affine_transform(part, [px_scale, 0, 0, px_scale, -origin_px[0], -origin_px[1]])
    geometry = mapping(placed)
    rings = [[[round(x, 2), round(y, 2)] for x, y in ring] for ring in geometry["coordinates"]]
    measurements = {} if um_per_px is None else {"Area um^2": round(placed.area * um_per_px**2, 2)}
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, ascii(f"tamis:{identity}"))),  # a name need not be UTF-8
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {
            "objectType": "annotation",
            "classification": CLASSIFICATION,
            "isLocked": False,
            "measurements": measurements,
        },
    }
