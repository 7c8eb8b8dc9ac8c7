"""pytest tests/subtitles/test_timing.py: first and last visible frame from contrasts."""

import pytest

from tamis.subtitles.timing import first_visible, last_visible


@pytest.mark.parametrize(
    "contrast, inside, first",
    [
        ([0, 0, 100, 100], 3, 2),  # a hard cut, exactly where it is
        ([0, 20, 49, 51, 80, 100], 5, 3),  # a fade, at its half
        ([100, 100, 100], 1, 0),  # there from the beginning
        ([0, 100, 0, 100, 100], 4, 3),  # of two runs, the one asked for
        ([0, 0, 0, 100], 1, 3),  # asked for too early
    ],
)
def test_the_first_visible_frame(contrast: list[float], inside: int, first: int) -> None:
    assert first_visible(contrast, inside, 100) == first


@pytest.mark.parametrize(
    "contrast, inside, last",
    [
        ([100, 100, 0, 0], 0, 1),
        ([100, 80, 51, 49, 20, 0], 0, 2),
        ([100, 100, 100], 1, 2),
        ([100, 100, 0, 100], 0, 1),
        ([100, 0, 0, 0], 2, 0),
    ],
)
def test_the_last_visible_frame(contrast: list[float], inside: int, last: int) -> None:
    assert last_visible(contrast, inside, 100) == last


def test_a_fade_out_mirrors_a_fade_in() -> None:
    fade = [0, 10, 30, 50, 70, 90, 100, 100]
    first = first_visible(fade, 7, 100)
    assert last_visible(fade[::-1], 0, 100) == len(fade) - 1 - first
