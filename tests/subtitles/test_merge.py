"""pytest tests/subtitles/test_merge.py: frames into one picture, and the strip cut from it."""

from fractions import Fraction

import numpy as np
import pytest
from drawn import EM, ink_of

from tamis.subtitles.merge import MOST_AVERAGED, Merged, cut_strip, mean_picture, merge, spread
from tamis.subtitles.reel import Shot
from tamis.subtitles.strip import EM as STRIP_EM
from tamis.subtitles.strip import HEIGHT


def shots(*pictures: np.ndarray) -> list[Shot]:
    return [Shot(Fraction(n), Fraction(n + 1), p.astype(np.uint8), n) for n, p in enumerate(pictures)]


def test_mean_minimum_and_maximum_of_a_part() -> None:
    merged = merge(shots(*(np.full((4, 6), level) for level in (10, 20, 60))), (1, 0, 5, 3))
    assert merged.mean.shape == (3, 4) and merged.box == (1, 0, 5, 3)
    assert (merged.mean == 30).all() and (merged.low == 10).all() and (merged.high == 60).all()


def test_standing_text_stays_and_moving_ground_fades() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 200, (20, 20)) for _ in range(16)]
    for picture in pictures:
        picture[8:12] = 240
    mean = mean_picture(shots(*pictures), (0, 0, 20, 20)).astype(int)
    assert (mean[8:12] == 240).all() and mean[:8].std() < 30 < pictures[0][:8].std()


def test_long_cues_are_sampled_evenly() -> None:
    many = shots(*(np.full((1, 1), n) for n in range(100)))
    chosen = [s.sample for s in spread(many, MOST_AVERAGED)]
    assert len(chosen) == MOST_AVERAGED and chosen[0] == 0 and chosen[-1] == 99
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    assert spread(many[:3], MOST_AVERAGED) == many[:3]


@pytest.mark.parametrize("zoom", [1, 2, 3])
@pytest.mark.parametrize("polarity", [1, -1])
def test_a_strip_is_upright_bright_and_of_one_size(zoom: int, polarity: int) -> None:
    ink = np.kron(ink_of("字体大小"), np.ones((zoom, zoom), np.uint8))
    page = np.zeros((3 * EM * zoom, 6 * EM * zoom), np.uint8)
    page[EM * zoom : 2 * EM * zoom, EM * zoom : 5 * EM * zoom] = ink
    if polarity < 0:
        page = 255 - page
    merged = Merged(page, page, page, (100, 50, 100 + page.shape[1], 50 + page.shape[0]))
    strip = cut_strip(merged, 100 + EM * zoom, 100 + 5 * EM * zoom, 50 + 1.5 * EM * zoom, EM * zoom, polarity)
    assert strip.shape == (2, HEIGHT, 4 * STRIP_EM)
    wanted = ink_of("字体大小").astype(float)
    rows = strip[0, (HEIGHT - STRIP_EM) // 2 : (HEIGHT + STRIP_EM) // 2].astype(float)
    shrunk = rows[np.linspace(0, 31, EM).round().astype(int)][
        :, np.linspace(0, 127, 4 * EM).round().astype(int)
    ]
    assert np.corrcoef(shrunk.ravel(), wanted.ravel())[0, 1] > 0.6


def test_dark_text_takes_the_maximum_turned_round() -> None:
    low, high = np.full((60, 60), 10, np.uint8), np.full((60, 60), 200, np.uint8)
    merged = Merged(np.full((60, 60), 100, np.uint8), low, high, (0, 0, 60, 60))
    bright, dark = (cut_strip(merged, 0, 60, 30, 32, polarity) for polarity in (1, -1))
    assert (bright[0] == 100).all() and (bright[1] == 10).all()
    assert (dark[0] == 155).all() and (dark[1] == 55).all()


def test_a_strip_shows_the_same_whatever_the_size_of_the_picture_around_it() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.integers(0, 255, (200, 500), dtype=np.uint8) for _ in range(3)]
    whole = Merged(*parts, (0, 0, 500, 200))
    near = Merged(*(p[60:140, 80:420] for p in parts), (80, 60, 420, 140))
    for scw in (20.0, 45.0):
        one, other = (cut_strip(m, 120.5, 380.2, 101.3, scw, 1).astype(int) for m in (whole, near))
        assert np.abs(one - other).max() <= 1
