"""pytest tests/subtitles/test_strokes.py: the operator on consecutive frames, step by step."""

import numpy as np
import pytest
from drawn import HEIGHT, WIDTH, Shown, clip, flat, panning, write

from tamis.subtitles.strokes import FAINTEST, NEWBORN, STEP_X, STEP_Y, StrokeOperator, reduce

TEXT = Shown("笔画不动", 0, 10**6)


def picture(ground: int | None, text: Shown | None = TEXT) -> np.ndarray:
    base = panning(ground).copy() if ground is not None else flat(120)(0)
    if text is not None:
        write(base, text, 0)
    return base


def plainly(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The definition, pixel by pixel: signed steps that two samples share, where they exceed FAINTEST."""
    out = np.zeros((before.shape[0] - STEP_Y, before.shape[1] - STEP_X), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            a = int(before[y + STEP_Y, x + STEP_X]) - int(before[y, x])
            b = int(now[y + STEP_Y, x + STEP_X]) - int(now[y, x])
            shared = min(a, b) if min(a, b) > 0 else max(a, b) if max(a, b) < 0 else 0
            out[y, x] = abs(shared) if abs(shared) > FAINTEST else 0
    return out


def test_the_operator_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (24, 40), dtype=np.uint8) for _ in range(2)]
    operator = StrokeOperator()
    operator.observe(pictures[0])
    assert operator.newborn is None
    operator.observe(pictures[1])
    assert np.array_equal(operator.newborn, plainly(*pictures))


def test_standing_strokes_stay_and_moving_ground_goes() -> None:
    operator = StrokeOperator()
    for n in (0, 3):
        operator.observe(picture(n))
    inside = operator.newborn[TEXT.top : TEXT.top + 28, 264:376] > 0
    assert inside.mean() > 0.2
    operator.newborn[TEXT.top - 4 : TEXT.top + 32, 256:384] = 0
    assert np.count_nonzero(operator.newborn) < 0.01 * operator.newborn.size


def test_strokes_are_newborn_for_two_samples_only() -> None:
    operator = StrokeOperator()
    operator.observe(picture(None, None))
    counts = []
    for _ in range(NEWBORN + 3):
        operator.observe(picture(None))
        counts.append(np.count_nonzero(operator.newborn))
    assert counts[0] == 0  # the text must stand in two samples
    assert counts[1] == counts[2] > 300 and counts[3:] == [0, 0]


def test_what_a_track_has_claimed_is_newborn_no_longer() -> None:
    operator = StrokeOperator()
    for text in (None, TEXT, TEXT):
        operator.observe(picture(None, text))
    y, x = np.nonzero(operator.newborn)
    operator.claim(y.astype(np.int32), x.astype(np.int32))
    operator.observe(picture(None))
    assert not operator.newborn.any()


def test_a_pixel_that_turns_from_rise_to_fall_stands_not() -> None:
    rising = np.tile(np.where(np.arange(32) % 8 < 4, 40, 200).astype(np.uint8), (16, 1))
    operator = StrokeOperator()
    operator.observe(rising)
    operator.observe(255 - rising)
    assert not operator.newborn.any()


@pytest.mark.parametrize(
    "size, reduced",
    [((1280, 720), (640, 360)), ((1920, 1080), (640, 360)), ((640, 360), (640, 360)), ((700, 90), (700, 90))],
)
def test_working_pictures_are_about_640_wide(size: tuple[int, int], reduced: tuple[int, int]) -> None:
    width, height = size
    shape = reduce(np.zeros((height, width), np.uint8)).shape
    assert abs(shape[1] - reduced[0]) <= 320 and abs(shape[0] / shape[1] - reduced[1] / reduced[0]) < 0.01


def test_reducing_keeps_strokes() -> None:
    [frame] = clip(1, [TEXT], flat(60))
    large = np.kron(frame.luma, np.ones((2, 2), np.uint8))
    assert large.shape == (2 * HEIGHT, 2 * WIDTH)
    assert np.abs(reduce(large).astype(int) - frame.luma).max() <= 1


@pytest.mark.parametrize("size", [(90, 1120), (91, 1121), (50, 640), (66, 900), (40, 2600)])
def test_the_frame_is_copied_while_it_is_reduced(size: tuple[int, int]) -> None:
    luma = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    copy = np.zeros(size, np.uint8)
    picture = reduce(luma, copy=copy)
    assert np.array_equal(copy, luma) and np.array_equal(picture, reduce(luma))
    assert not np.shares_memory(picture, copy)
