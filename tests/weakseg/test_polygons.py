"""Masks to polygons and to GeoJSON.  python -m pytest tests/weakseg/test_polygons.py"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from shapely.geometry import shape

from tamis.weakseg.polygons import polygons, traced, union_of_runs, write_geojson

RING = np.zeros((30, 40), bool)
RING[5:25, 5:35] = True
RING[10:20, 10:30] = False


def test_a_ring_keeps_its_hole_and_its_area() -> None:
    (part,) = polygons(RING)
    assert len(part.interiors) == 1
    assert part.area == RING.sum()
    assert part.bounds == (5, 5, 35, 25)


@pytest.mark.parametrize("seed", range(5))
def test_areas_of_any_mask_are_those_of_its_pixels(seed: int) -> None:
    mask = np.random.default_rng(seed).random((40, 50)) < 0.5
    parts = list(polygons(mask))
    assert sum(part.area for part in parts) == mask.sum()
    assert all(part.is_valid for part in parts)
    assert [p.area for p in parts] == sorted((p.area for p in parts), reverse=True)


@pytest.mark.parametrize("seed", range(20))
def test_traced_outlines_are_those_of_the_united_pixels(seed: int) -> None:
    mask = np.random.default_rng(seed).random((30, 34)) < 0.62
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    part = labels == np.bincount(labels[labels > 0]).argmax()
    one, other = traced(part, 7, 3), union_of_runs(part, 7, 3)
    assert one.is_valid
    assert one.equals(other)
    assert len(one.interiors) >= 5


def test_specks_and_small_holes_are_left_out() -> None:
    mask = np.ones((30, 30), bool)
    mask[5, 5] = False
    mask[:, 20:] = False
    mask[2, 25] = True
    (part,) = polygons(mask, smallest_px=4)
    assert part.area == 600


@pytest.mark.parametrize("shape_px", [(1, 1), (1, 2), (1, 9), (9, 1)])
def test_a_part_as_thin_as_a_pixel_stays(shape_px: tuple[int, int]) -> None:
    mask = np.zeros((20, 20), bool)
    mask[3 : 3 + shape_px[0], 4 : 4 + shape_px[1]] = True
    (part,) = polygons(mask, simplify_px=1.0)
    assert part.is_valid and part.area == mask.sum()


def test_nothing_gives_nothing() -> None:
    assert list(polygons(np.zeros((4, 4), bool))) == []


def test_simplified_outlines_stay_near() -> None:
    y, x = np.mgrid[:200, :200]
    disc = (x - 100) ** 2 + (y - 100) ** 2 < 80**2
    (part,) = polygons(disc, simplify_px=1.0)
    assert len(part.exterior.coords) < 150
    assert part.area == pytest.approx(disc.sum(), rel=0.01)


def test_geojson_is_what_qupath_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    assert write_geojson(polygons(RING), path, px_scale=4.0, um_per_px=0.25, name="a") == 1
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    (feature,) = collection["features"]
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tumor"
    assert feature["properties"]["measurements"]["Area um^2"] == pytest.approx(RING.sum() * 1.0)
    polygon = shape(feature["geometry"])
    assert polygon.bounds == (20, 20, 140, 100)  # full-resolution pixels
    for ring in feature["geometry"]["coordinates"]:
        assert ring[0] == ring[-1]
    assert len(feature["geometry"]["coordinates"]) == 2


def test_places_are_counted_from_where_qupath_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_geojson(polygons(RING), path, px_scale=4.0, um_per_px=0.25, name="a", origin_px=(15, 8))
    (feature,) = json.loads(path.read_text())["features"]
    assert shape(feature["geometry"]).bounds == (5, 12, 125, 92)
    assert feature["properties"]["measurements"]["Area um^2"] == pytest.approx(RING.sum() * 1.0)


def test_an_empty_collection_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    assert write_geojson([], path, px_scale=1.0, um_per_px=None, name="a") == 0
    assert json.loads(path.read_text())["features"] == []
