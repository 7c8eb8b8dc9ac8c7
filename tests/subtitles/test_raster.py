"""Each operation: as OpenCV has it, and compiled as in NumPy, over odd sizes."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tamis import native
from tamis.subtitles import lines, raster, strokes, track
from tamis.subtitles.raster_native import Kernels

Plane = NDArray[np.uint8]
SIZES = [(1, 1), (1, 9), (7, 1), (2, 2), (13, 40), (40, 13), (61, 259), (120, 338)]  # height, width
ISAS = [native.NONE, *(name for name, runs in native.instruction_sets().items() if runs)]


@pytest.fixture(params=ISAS, autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every test runs in NumPy and in every instruction set that this processor has."""
    monkeypatch.setenv(native.VARIABLE, request.param)
    raster.kernels.cache_clear()
    assert (raster.kernels() is None) == (request.param == native.NONE)
    yield request.param
    raster.kernels.cache_clear()


def noise(height: int, width: int, seed: int = 0, blurred: float = 1.5) -> Plane:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), blurred) if blurred else pixels


def view(plane: Plane) -> Plane:
    """The same pixels with other rows between, as those of a decoder are."""
    wide = np.zeros((plane.shape[0] + 2, plane.shape[1] + 5), np.uint8)
    wide[1:-1, 2:-3] = plane
    wide.setflags(write=False)
    return wide[1:-1, 2:-3]


def assert_near(found: Plane, wanted: Plane, share: float = 0.01) -> None:
    """Equal but for halves that are rounded the other way, in few pixels."""
    assert found.dtype == np.uint8 and found.shape == wanted.shape
    apart = np.abs(found.astype(int) - wanted)
    assert apart.max(initial=0) <= 1 and np.count_nonzero(apart) <= 2 + share * apart.size


@pytest.mark.parametrize("size", [(2, 2), (2, 38), (66, 4), (120, 338)])
def test_halving_is_opencvs(size: tuple[int, int]) -> None:
    plane = view(noise(*size, blurred=0))
    kept = np.empty(size, np.uint8)
    half = raster.halve(plane, kept)
    wanted = cv2.resize(plane, (size[1] // 2, size[0] // 2), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(half, wanted.reshape(half.shape))
    np.testing.assert_array_equal(kept, plane)
    np.testing.assert_array_equal(raster.halve(plane), half)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [(1.0, 1.0), (0.8, 1.0), (0.61, 0.37), (0.25, 0.5)])
def test_shrinking_is_opencvs(size: tuple[int, int], factor: tuple[float, float]) -> None:
    plane = view(noise(*size))
    smaller = max(1, round(size[1] * factor[0])), max(1, round(size[0] * factor[1]))
    wanted = cv2.resize(plane, smaller, interpolation=cv2.INTER_AREA)
    assert_near(raster.shrink(plane, smaller), wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [(2.0, 1.0), (0.67, 0.67), (1.3, 0.9)])
def test_stretching_is_opencvs_without_its_fixed_point(
    size: tuple[int, int], factor: tuple[float, float]
) -> None:
    plane = view(noise(*size))
    other = max(1, round(size[1] * factor[0])), max(1, round(size[0] * factor[1]))
    wanted = cv2.resize(plane.astype(np.float32), other, interpolation=cv2.INTER_LINEAR)
    assert_near(raster.stretch(plane, other), np.rint(wanted).astype(np.uint8).reshape(other[::-1]))


@pytest.mark.parametrize("size", SIZES)
def test_nearest_is_opencvs(size: tuple[int, int]) -> None:
    plane = noise(*size, blurred=0)
    for other in ((1, 1), (17, 5), (3 * size[1] + 1, 2 * size[0])):
        wanted = cv2.resize(plane, other, interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(raster.nearest(plane, other), wanted.reshape(other[::-1]))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [0.52, 0.8, 1.7, 3.0])
def test_blurring_is_opencvs(size: tuple[int, int], sigma: float) -> None:
    plane = view(noise(*size, blurred=0))
    wanted = cv2.GaussianBlur(plane, (0, 0), sigma).reshape(size)
    np.testing.assert_array_equal(raster.gaussian(plane, sigma), wanted)


@pytest.mark.parametrize("zoom", [0.4, 0.77, 1.0, 2.3])
def test_resampling_is_opencvs_warp(zoom: float) -> None:
    plane = view(noise(61, 259))
    x, y, width, height = -7.3, 11.8, 150, 40
    matrix = np.array([[1 / zoom, 0, 0.5 / zoom + x], [0, 1 / zoom, 0.5 / zoom + y]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    wanted = cv2.warpAffine(plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    columns = raster.between((np.arange(width) + 0.5) / zoom + x, 259)
    rows = raster.between((np.arange(height) + 0.5) / zoom + y, 61)
    assert_near(raster.resample(plane, columns, rows), wanted, 0.03)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("level", [90, 128, 150, 256])
def test_components_are_opencvs(size: tuple[int, int], connectivity: int, level: int) -> None:
    mask = (view(noise(*size, seed=level)) >= level).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)
    found, boxes = raster.components(mask, connectivity)
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_array_equal(boxes, stats[1:count])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [60, 128, 200])
def test_depth_is_opencvs_distance(size: tuple[int, int], level: int) -> None:
    mask = (noise(*size, seed=level) >= level).astype(np.uint8)
    mask[0, 0] = 0
    wanted = cv2.distanceTransform(mask, cv2.DIST_L1, 3)
    assert raster.depth(mask) == (int(wanted.sum(dtype=np.float64)), np.count_nonzero(wanted))


def test_depth_without_a_border_is_far() -> None:
    assert raster.depth(np.ones((2, 3), np.uint8)) == (6 * raster.FAR, 6)


@pytest.mark.parametrize("size", SIZES)
def test_widening_is_opencvs(size: tuple[int, int]) -> None:
    mask = noise(*size, blurred=0)
    wanted = cv2.dilate(mask, np.ones((2, 3), np.uint8), anchor=(2, 1)).reshape(size)
    np.testing.assert_array_equal(raster.widen(mask, 0, 0, 2, 1), wanted)
    around = cv2.dilate(mask, np.ones((3, 3), np.uint8)).reshape(size)
    np.testing.assert_array_equal(raster.widen(mask, 1, 1, 1, 1), around)


@pytest.mark.parametrize("number", [1, 2, 16, 40])
def test_merging_is_opencvs(number: int) -> None:
    planes = [view(noise(13, 41, seed=i)) for i in range(number)]
    averaged = [i % 3 != 1 for i in range(number)]
    total = np.zeros((13, 41), np.float32)
    for plane, wanted in zip(planes, averaged, strict=True):
        if wanted:
            cv2.accumulate(plane, total)
    mean, low, high = raster.merged(planes, averaged)
    np.testing.assert_array_equal(mean, cv2.convertScaleAbs(total, alpha=1 / sum(averaged)))
    np.testing.assert_array_equal(low, np.min(planes, axis=0))
    np.testing.assert_array_equal(high, np.max(planes, axis=0))


@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_signals_are_smoothed_as_opencv_does(length: int) -> None:
    signal = np.random.default_rng(length).random(length).astype(np.float32) * 255
    row = signal.reshape(1, -1)
    np.testing.assert_allclose(
        raster.smooth(signal, 1.4), cv2.GaussianBlur(row, (0, 0), 1.4).ravel(), atol=1e-3
    )
    np.testing.assert_allclose(raster.mean_of(signal, 7), cv2.blur(row, (7, 1)).ravel(), atol=1e-3)


@pytest.mark.parametrize("values", [[3], [4, 1], [9, 1, 5], [[2.5, 7], [1, 8]]])
def test_median_is_numpys(values: list[float]) -> None:
    assert raster.median(np.array(values)) == np.median(values)


# What is compiled for one place alone: as its NumPy form there.


def newborn(seed: int, height: int, width: int) -> Plane:
    """Texture in patches, which find_lines has to take apart."""
    strong = cv2.subtract(noise(height, width, seed, 1.0 + seed % 3), 120) * np.uint8(6)
    where = noise(height, width, seed + 1000, 9.0)
    return np.where(where > 122 + seed % 9, strong, 0).astype(np.uint8)


@pytest.mark.parametrize("size", [(9, 9), (37, 200), (143, 90), (200, 401)])
def test_lines_are_those_of_numpy(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    planes = [newborn(seed, *size) for seed in range(12)]
    found = [lines.find_lines(plane) for plane in planes]
    with monkeypatch.context() as patch:
        patch.setattr(raster, "kernels", lambda: None)
        assert found == [lines.find_lines(plane) for plane in planes]
    assert size[0] < 100 or any(found)


@pytest.mark.parametrize("size", [(2, 3), (5, 3), (33, 47), (90, 161)])
def test_strokes_are_those_of_numpy(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    standing, generator = noise(*size), np.random.default_rng(1)
    pictures = [cv2.add(standing, generator.integers(0, 12, size).astype(np.uint8)) for _ in range(6)]
    pictures += [noise(*size, seed=5), standing, standing]

    def observed() -> list[tuple[Plane | None, int]]:
        operator, seen = strokes.StrokeOperator(), []
        for picture in pictures:
            operator.observe(picture)
            seen.append((operator.newborn, operator.count))
            if operator.newborn is not None:
                y, x = np.nonzero(operator.newborn)
                operator.claim(y[::3].astype(np.int32), x[::3].astype(np.int32))
        return seen

    found = observed()
    with monkeypatch.context() as patch:
        patch.setattr(raster, "kernels", lambda: None)
        wanted = observed()
    assert found[0][0] is None and wanted[0][0] is None
    for (plane, count), (other, number) in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(plane, other)
        assert count == number == np.count_nonzero(other)


def test_a_track_sees_what_numpy_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [noise(40, 70), noise(40, 70), noise(40, 70, seed=3), noise(40, 70)]
    plane = np.zeros((39, 68), np.uint8)
    plane[4:30:3, 5:60:2] = 40
    points = track.points_in(plane, pictures[0], (0, 0, 70, 40))
    frames = [view(noise(80, 140, seed=i)) for i in range(3)]

    def followed() -> tuple[list[list[bool]], list[float], list[float]]:
        one, alive = track.Track(track.Points(points.y, points.x, points.sign, points.step.copy()), 0), []
        for picture in pictures:
            one.observe(picture)
            alive.append(one.alive.tolist())
            one.keep(one.fresh | True)
        return alive, one.share, list(track.Contrast(points, frames, (40, 70)))

    found = followed()
    with monkeypatch.context() as patch:
        patch.setattr(raster, "kernels", lambda: None)
        assert found == followed()


@pytest.mark.skipif(not native.instruction_sets(), reason="the kernels were not built")
def test_what_lies_outside_is_refused() -> None:
    library = native.load()
    assert library is not None
    kernels = Kernels(library, 0)
    places, weights = np.array([[5]], np.int32), np.array([[1]], np.float32)
    inside = np.array([[0]], np.int32), weights
    with pytest.raises(AssertionError):
        kernels.resample(noise(5, 5), (places, weights), inside)
    with pytest.raises(AssertionError):
        kernels.rows(noise(5, 5), (0, 0, 6, 5), 0, 0.5)
    with pytest.raises(AssertionError):
        kernels.halve(noise(5, 4), None)
