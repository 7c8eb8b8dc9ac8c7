"""The hot spot equals brute force, in squares and circles.

python -m pytest tests/proliferation/test_hotspot.py
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from tamis.proliferation.hotspot import hot_spot, spread_evenly
from tamis.proliferation.mitosis import Mitosis


def scattered(n: int, seed: int, spread: float = 4000, grid: float = 0) -> list[Mitosis]:
    places = np.random.default_rng(seed).uniform(0, spread, (n, 2))
    if grid:
        places = np.round(places / grid) * grid
    return [Mitosis(float(x), float(y), 0.9) for x, y in places]


def brute_square(mitoses: list[Mitosis], side: float) -> int:
    """Every left edge with every top edge."""
    points = np.array([(m.x_um, m.y_um) for m in mitoses])
    best = 0
    for left in points[:, 0]:
        for top in points[:, 1]:
            inside = (points >= (left, top)) & (points <= (left + side * (1 + 1e-9), top + side * (1 + 1e-9)))
            best = max(best, int(inside.all(1).sum()))
    return best


def brute_circle(mitoses: list[Mitosis], radius: float) -> int:
    """Every circle through two points, and one around every point."""
    points = np.array([(m.x_um, m.y_um) for m in mitoses])
    centres = [tuple(p) for p in points]
    for i, a in enumerate(points):
        for b in points[i + 1 :]:
            gap = b - a
            length = float(np.hypot(*gap))
            if 0 < length <= 2 * radius:
                rise = math.sqrt(radius**2 - length**2 / 4)
                normal = np.array([-gap[1], gap[0]]) / length
                centres += [tuple((a + b) / 2 + rise * normal), tuple((a + b) / 2 - rise * normal)]
    distance = np.hypot(*(np.array(centres)[:, None] - points[None]).transpose(2, 0, 1))
    return int((distance <= radius * (1 + 1e-7)).sum(1).max())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("grid", [0, 500])
def test_square_equals_brute_force(seed: int, grid: float) -> None:
    mitoses = scattered(3 + 8 * seed, seed, grid=grid)
    found = hot_spot(mitoses, 2.0, "square")
    assert found is not None
    assert found.count == brute_square(mitoses, math.sqrt(2) * 1000)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("grid", [0, 500])
def test_circle_equals_brute_force(seed: int, grid: float) -> None:
    mitoses = scattered(3 + 5 * seed, seed, grid=grid)
    found = hot_spot(mitoses, 2.0, "circle")
    assert found is not None
    assert found.count == brute_circle(mitoses, math.sqrt(2 / math.pi) * 1000)


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_the_window_holds_what_it_counts(shape: str) -> None:
    mitoses = scattered(60, 5)
    found = hot_spot(mitoses, 1.0, shape)  # type: ignore[arg-type]
    assert found is not None and found.area_mm2 == pytest.approx(1.0)
    half = found.size_um / 2 * (1 + 1e-6)
    away = [(abs(m.x_um - found.x_um), abs(m.y_um - found.y_um)) for m in mitoses]
    if shape == "square":
        inside = sum(max(a) <= half for a in away)
    else:
        inside = sum(math.hypot(*a) <= half for a in away)
    assert inside == found.count
    assert found.per_mm2 == pytest.approx(found.count)


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_few_points(shape: str) -> None:
    assert hot_spot([], 2.0, shape) is None  # type: ignore[arg-type]
    one = hot_spot([Mitosis(10, 20, 1)], 2.0, shape)  # type: ignore[arg-type]
    assert one is not None and one.count == 1
    twice = hot_spot([Mitosis(10, 20, 1)] * 3, 2.0, shape)  # type: ignore[arg-type]
    assert twice is not None and twice.count == 3


def test_a_far_mitosis_does_not_count() -> None:
    side = math.sqrt(2) * 1000
    pair = [Mitosis(0, 0, 1), Mitosis(side, 0, 1)]
    assert hot_spot(pair, 2.0).count == 2  # type: ignore[union-attr]
    assert hot_spot([pair[0], Mitosis(side + 1, 0, 1)], 2.0).count == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size_um", [(4000.0, 4000.0), (1000.0, 4000.0), (1200.0, 900.0)])
def test_on_a_slide_it_holds_what_it_held(seed: int, size_um: tuple[float, float]) -> None:
    places = np.random.default_rng(seed).uniform(0, 1, (40, 2)) * size_um
    found = hot_spot([Mitosis(float(x), float(y), 0.9) for x, y in places], 2.0)
    assert found is not None
    moved = found.on_slide(size_um)
    half = found.size_um / 2 * (1 + 1e-6)
    assert int((np.abs(places - (moved.x_um, moved.y_um)) <= half).all(1).sum()) == found.count == moved.count
    for place, side in zip((moved.x_um, moved.y_um), size_um, strict=True):
        beyond = max(half - place, place + half - side)
        assert beyond <= max(0.0, half - side / 2) + 0.01


@pytest.mark.parametrize("seed", range(6))
def test_a_circle_is_centred_on_what_it_holds(seed: int) -> None:
    """So its centre lies on the slide, as a point between points does."""
    mitoses = scattered(3 + 4 * seed, seed, spread=900)
    found = hot_spot(mitoses, 2.0, "circle")
    assert found is not None
    held = [
        m for m in mitoses if math.hypot(m.x_um - found.x_um, m.y_um - found.y_um) <= found.size_um / 2 + 1e-3
    ]
    assert len(held) == found.count
    assert min(m.x_um for m in held) <= found.x_um <= max(m.x_um for m in held)
    assert min(m.y_um for m in held) <= found.y_um <= max(m.y_um for m in held)


def test_mitoses_that_lie_evenly_have_a_hot_spot_too() -> None:
    """100 mm2 with 2 per mm2: 4 in a window of 2 mm2 on average, and some 12 in the fullest."""
    tissue = np.zeros((120, 120), bool)
    tissue[20:, :100] = True
    even = spread_evenly(200, tissue, 100.0, 2.0)
    assert even is not None
    mean, low, high = even
    places = np.random.default_rng(4).uniform(0, 10_000, (20, 200, 2))
    drawn = [hot_spot([Mitosis(x, y, 1.0) for x, y in some.tolist()]) for some in places]
    assert mean == pytest.approx(np.mean([spot.count for spot in drawn if spot]), abs=0.7)
    assert 8 <= low < mean < high <= 18
    assert spread_evenly(200, tissue, 100.0, 2.0) == even
    sparse = np.zeros_like(tissue)
    sparse[::50, ::50] = True  # places, not area: all of them within the 12 mm of the tissue
    (few, *_) = spread_evenly(200, sparse, 100.0, 2.0) or (0.0,)
    assert few > 20


def test_where_there_is_nothing_to_draw_nothing_is_expected() -> None:
    tissue = np.ones((4, 4), bool)
    assert spread_evenly(0, tissue, 100.0, 2.0) is None
    assert spread_evenly(1_501, tissue, 100.0, 2.0) is None
    assert spread_evenly(5, np.zeros((4, 4), bool), 100.0, 2.0) is None
    assert spread_evenly(5, tissue, 100.0, 2.0) == (5, 5, 5)
