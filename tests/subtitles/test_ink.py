"""pytest tests/subtitles/test_ink.py: which pixels are the strokes, and whether text is bright or dark."""

import cv2
import numpy as np
import pytest
from drawn import EM, ink_of

from tamis.subtitles.ink import Inked, find_ink, inside_frame, same_text, steps

TEXT = "浅色还是深色的字"
TOP, LEFT = 40, 60
BOX = (LEFT, TOP, LEFT + EM * len(TEXT), TOP + EM)


def drawn(text: str, ground: int, bright: int, around: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A picture [110, 400] of a line, and the mask around its edges."""
    picture = np.full((110, 400), ground, np.uint8)
    ink = np.zeros_like(picture)
    ink[TOP : TOP + EM, LEFT : LEFT + EM * len(text)] = ink_of(text)
    if around is not None:
        picture[cv2.dilate(ink, np.ones((5, 5), np.uint8)) > 0] = around
    picture[ink > 0] = bright
    picture = cv2.GaussianBlur(picture, (0, 0), 0.6)
    return picture, cv2.dilate(ink, np.ones((5, 5), np.uint8))


CASES = {
    "bright on dark": (60, 235, None, 1),
    "bright, outlined, on grey": (120, 235, 20, 1),
    "bright, outlined, on white": (235, 235, 20, 1),
    "dark on bright": (220, 20, None, -1),
}


@pytest.mark.parametrize("ground, bright, around, polarity", CASES.values(), ids=CASES)
def test_ink_is_the_strokes_whatever_is_around(
    ground: int, bright: int, around: int | None, polarity: int
) -> None:
    picture, mask = drawn(TEXT, ground, bright, around)
    ink, vote = find_ink(picture, mask, BOX, 3)
    assert np.sign(vote) == polarity
    wanted = np.zeros_like(picture)
    wanted[TOP : TOP + EM, LEFT : LEFT + EM * len(TEXT)] = ink_of(TEXT)
    both = np.count_nonzero((ink > 0) & (wanted > 0))
    assert both > 0.7 * np.count_nonzero(wanted)
    assert both > 0.6 * np.count_nonzero(ink)


def test_a_plain_picture_has_no_ink_and_no_vote() -> None:
    plain = np.full((110, 400), 90, np.uint8)
    ink, vote = find_ink(plain, np.full_like(plain, 255), BOX, 3)
    assert not ink.any() and vote == 0


def test_steps_are_taken_where_the_mask_is() -> None:
    picture, mask = drawn(TEXT, 60, 235, None)
    found = steps(picture, mask)
    assert found.max() > 100 and not found[mask == 0].any()
    assert not steps(picture, np.zeros_like(mask)).any()


def test_the_edges_of_a_caption_box_are_left_out() -> None:
    picture = np.full((110, 400), 150, np.uint8)
    cv2.rectangle(picture, (LEFT - 12, TOP - 8), (BOX[2] + 12, BOX[3] + 8), 10, -1)
    ink = ink_of(TEXT)
    picture[TOP : TOP + EM, LEFT : LEFT + ink.shape[1]][ink > 0] = 235
    outer = (LEFT - 14, TOP - 10, BOX[2] + 14, BOX[3] + 10)
    inner, margin = inside_frame(picture, np.full_like(picture, 255), outer)
    assert margin == 0
    assert np.allclose(inner, BOX, atol=13) and inner[1] > TOP - 8 and inner[3] <= BOX[3] + 8


def test_a_line_without_a_box_keeps_its_extent() -> None:
    picture, mask = drawn(TEXT, 60, 235, None)
    assert inside_frame(picture, mask, BOX) == (BOX, EM // 8)


def inked(text: str, ground: int) -> Inked:
    picture, mask = drawn(text, ground, 235, 20)
    return Inked(picture, find_ink(picture, mask, BOX, 3)[0], (0, 0))


def test_one_text_on_two_grounds_is_the_same() -> None:
    assert same_text(inked(TEXT, 60), inked(TEXT, 200), EM)


def test_one_other_character_is_another_text() -> None:
    assert not same_text(inked(TEXT, 60), inked(TEXT[:-1] + "呢", 60), EM)


def test_a_text_elsewhere_is_another() -> None:
    moved = inked(TEXT, 60)
    assert not same_text(inked(TEXT, 60), Inked(moved.picture, moved.ink, (300, 0)), EM)
