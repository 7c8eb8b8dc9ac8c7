"""pytest tests/subtitles/test_track.py: the stroke pixels of one line, followed."""

import cv2
import numpy as np
import pytest
from drawn import EM, HEIGHT, WIDTH, Shown, flat, panning, write

from tamis.subtitles.strokes import StrokeOperator
from tamis.subtitles.track import PRUNED, Contrast, Points, Track, points_in

TEXT = Shown("跟着这行字", 0, 10**6)


def picture(number: int | None = None, text: Shown | None = TEXT) -> np.ndarray:
    base = (flat(110)(0) if number is None else panning(number)).copy()
    if text is not None:
        write(base, text, 0)
    return base


def born(ground: list[int | None], text: Shown = TEXT) -> Points:
    """The points of a text that stands in two samples with these grounds."""
    operator = StrokeOperator()
    for number in ground:
        operator.observe(picture(number, text))
    assert operator.newborn is not None
    return points_in(operator.newborn, picture(ground[-1], text), (0, 0, WIDTH, HEIGHT))


def test_points_hold_signed_steps() -> None:
    points = born([None, None])
    assert np.array_equal(points.steps(picture()), points.step)
    assert np.array_equal(points.steps(255 - picture()), -points.step)
    assert 0.4 < np.count_nonzero(points.sign > 0) / len(points) < 0.6  # strokes have two sides
    left, top, right, bottom = points.box()
    assert TEXT.top - 4 <= top < bottom <= TEXT.top + EM + 3 and right - left < 5 * EM + 8


def test_parts_and_unions_of_points() -> None:
    points = born([None, None])
    upper, lower = points[points.y < TEXT.top + 10], points[points.y >= TEXT.top + 10]
    assert len(upper.joined(lower)) == len(points) and upper.joined(lower).box() == points.box()


def test_contrast_tells_full_half_and_no_text_in_frames_of_any_size() -> None:
    points = born([None, None])
    half = ((picture().astype(int) + picture(None, None)) // 2).astype(np.uint8)
    for zoom in (1, 2):
        frames = [np.kron(p, np.ones((zoom, zoom), np.uint8)) for p in (picture(), half, picture(None, None))]
        full, middle, none = Contrast(points, frames, (HEIGHT, WIDTH))
        assert full > 60 and middle / full == pytest.approx(0.5, abs=0.05) and none == 0


def test_a_standing_line_is_alive_on_any_ground_and_a_vanished_one_is_not() -> None:
    track = Track(born([0, 3]), born=1)
    for number in (6, 9, 12):
        track.observe(picture(number))
        assert track.share[-1] > 0.9 and track.weak == 0
    for count, number in enumerate((15, 18), 1):
        track.observe(picture(number, None))
        assert track.share[-1] < 0.4 and track.weak == count
    assert track.steadiness > 0.9
    for number in (21, 24, 27):
        track.observe(picture(number, None))
    track.weak = 0  # as where half of a text goes and the other half stays
    assert track.steadiness < 0.5 < 0.9 < track.steadiness_before(5)


def test_another_text_at_the_same_place_is_not_taken_for_it() -> None:
    track = Track(born([None, None]), born=1)
    track.observe(picture(None, Shown("换了一句话", 0, 10**6)))
    assert track.share[-1] < 0.5


def test_ground_that_stood_by_chance_is_forgotten() -> None:
    points = born([0, 3])
    ground = Points(
        *(np.array(v, np.int32) for v in (range(100, 300), range(200, 400), [1] * 200, [40] * 200))
    )
    track = Track(points.joined(ground), born=1)
    for n in range(PRUNED):
        track.observe(picture(6 + 3 * n))
        track.prune()
    assert 0.9 * len(points) <= len(track.points) <= len(points) + 40


def test_a_changed_character_is_found_and_an_unchanged_line_has_none() -> None:
    track = Track(born([None, None]), born=1)
    for _ in range(4):
        track.observe(picture())
        assert track.changed_character() is None
    for _ in range(2):
        track.observe(picture(None, Shown("跟着这行吗", 0, 10**6)))
    columns = track.changed_character()
    last = (WIDTH + 3 * EM) // 2
    assert columns is not None and abs(columns[0] - last) <= EM // 2


def test_a_fade_in_raises_the_reference() -> None:
    faint = Shown("跟着这行字", 0, 10**6, bright=150, around=90)
    track = Track(born([None, None], faint), born=1)
    before = track.points.step.mean()
    track.observe(picture())
    assert track.rising and track.points.step.mean() > 1.5 * before


def test_text_on_another_ground_is_unchanged_and_text_that_went_is_not() -> None:
    dark, bright = np.full((60, 200), 30, np.uint8), np.full((60, 200), 150, np.uint8)
    text = np.zeros((60, 200), np.uint8)
    text[20:40, 40:160:8] = text[20:40, 41:160:8] = text[20:40, 42:160:8] = 1
    on_dark, on_bright = (
        np.where(text, 240, dark).astype(np.uint8),
        np.where(text, 240, bright).astype(np.uint8),
    )
    steps = cv2.absdiff(on_dark[1:, 2:], on_dark[:-1, :-2])
    points = points_in(steps, on_dark, (30, 15, 170, 45))
    assert points.unchanged(on_dark, on_bright) == 1.0
    assert points.unchanged(on_dark, bright) < 0.5
