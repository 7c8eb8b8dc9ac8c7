"""pytest tests/subtitles/test_cwt.py: the width of a character and the rows of its line, from strokes alone."""

from fractions import Fraction

import numpy as np
import pytest
from drawn import ink_of

from tamis.subtitles.cwt import Measure, Scale, extent, measure_line


def page(text: str, em: int, top: int = 100, left: int = 200, below: str = "") -> np.ndarray:
    """[360, 960]: the ink of a line, and of another one below it."""
    ink = np.zeros((360, 960), np.uint8)
    for row, line in enumerate(filter(None, (text, below))):
        drawn = ink_of(line, em)
        y = top + round(1.35 * em * row)
        ink[y : y + em, left : left + drawn.shape[1]] = drawn
    return ink


def measured(text: str, em: int, **where: object) -> Measure:
    measure = measure_line(page(text, em, **where), (0, 0))  # type: ignore[arg-type]
    assert measure is not None
    return measure


def taught(em: int = 30, count: int = 4) -> Scale:
    """A scale that has seen some lines of one size at one place."""
    scale = Scale(960)
    for n in range(count):
        scale.add(measured("这些文字都是一样大的" + chr(0x4E00 + n), em), Fraction(n))
    return scale


@pytest.mark.parametrize("em", [16, 24, 40, 60])
def test_the_pitch_of_a_line_is_its_character_width(em: int) -> None:
    measure = measured("字符的宽度是一样的", em)
    assert abs(measure.pitch / em - 1) < 0.04 and measure.weight > 0
    assert abs(measure.height - 0.9 * em) <= 0.1 * em
    assert abs(measure.left - 200) <= 0.15 * em and abs(measure.right - 200 - 9 * em) <= 0.15 * em


def test_no_ink_no_measure() -> None:
    assert measure_line(np.zeros((20, 20), np.uint8), (0, 0)) is None


def test_a_line_of_one_character_tells_its_height_only() -> None:
    measure = measured("字", 30)
    assert measure.weight == 0 and abs(measure.height - 27) <= 3


def test_extent_leaves_out_what_is_faint() -> None:
    assert extent(np.array([0, 0.1, 9, 10, 10, 9, 0.2, 0], np.float32), 0.12, 0.85) == (2, 6)


@pytest.mark.parametrize("em", [20, 30, 44])
def test_a_fit_is_the_em_box_around_the_ink(em: int) -> None:
    [fit] = taught(em).fit(measured("大小由其他各行决定", em))
    assert abs(fit.scw / em - 1) < 0.06
    assert abs(fit.centre - (100 + 0.49 * em)) < 0.08 * em


def test_dots_get_the_width_and_the_rows_of_the_other_lines() -> None:
    ink = np.zeros((360, 960), np.uint8)
    for n in range(6):
        ink[122:126, 400 + 10 * n : 404 + 10 * n] = 255
    dots = measure_line(ink, (0, 0))
    assert dots is not None
    [fit] = taught().fit(dots)
    assert abs(fit.scw / 30 - 1) < 0.06 and abs(fit.centre - 114.5) < 3


def test_one_other_line_is_not_enough_to_move_a_line() -> None:
    scale = Scale(960)
    scale.add(measured("唯一的另外一行文字", 30, top=106))
    [fit] = scale.fit(measured("字", 34))
    assert abs(fit.centre - 116) < 3  # its own rows


def test_two_lines_measured_as_one_are_divided() -> None:
    both = measured("上面的一行", 30, below="下面的一行")
    fits = taught().fit(both)
    assert [round(fit.centre) for fit in fits] == pytest.approx([115, 155], abs=3)
    assert all(abs(fit.scw / 30 - 1) < 0.06 for fit in fits)


def test_a_drawing_beside_the_line_does_not_move_it() -> None:
    ink = page("画旁边的文字在这里", 30)
    ink[60:150, 120:190:7] = 255  # hatching, higher than the line
    with_drawing = measure_line(ink, (0, 0))
    assert with_drawing is not None and with_drawing.height > 40
    fits = taught().fit(with_drawing)
    assert any(abs(fit.centre - 114.5) < 4 and abs(fit.scw / 30 - 1) < 0.06 for fit in fits)


def test_each_line_gets_the_style_of_those_around_it_in_time() -> None:
    scale = Scale(960)
    lines = [measured("前面的文字比较小的时候" + chr(0x4E00 + n), 30 if n < 12 else 39) for n in range(24)]
    short = measured("字", 34)  # between the two sizes
    for n, line in enumerate(lines):
        scale.add(line, Fraction(n))
    scale.add(short, Fraction(25))
    [fit] = scale.fit(short)
    assert abs(fit.scw / 39 - 1) < 0.06


def test_the_lines_of_one_moment_have_one_vote() -> None:
    scale = taught(30, count=3)
    for n in range(12):  # a drawing: many "lines" of a regular pattern that come at once
        scale.add(measured("画里的格子看起来也像字", 60, top=20 + 10 * n), Fraction(9))
    [fit] = scale.fit(measured("字", 31))
    assert abs(fit.scw / 30 - 1) < 0.08


def test_rows_are_in_doubt_only_where_more_than_a_line_was_measured() -> None:
    scale = taught()
    assert scale.rows(measured("一行普通的文字", 30), [30.0]) == []
    rows = [fit.centre for fit in scale.rows(measured("上面的一行", 30, below="下面的一行"))]
    assert min(abs(row - 114.5) for row in rows) < 6 and min(abs(row - 155) for row in rows) < 6


def test_what_no_style_fits_may_be_a_line_of_its_own_size() -> None:
    large = measured("大一些的文字", 44)
    assert any(abs(fit.scw / 44 - 1) < 0.08 and abs(fit.centre - 122) < 4 for fit in taught().rows(large))


def test_what_no_style_fits_may_be_two_lines_of_their_own_size() -> None:
    both = measured("上面的一行", 60, below="下面的一行")
    near = [fit for fit in taught(20).rows(both) if abs(fit.scw / 60 - 1) < 0.08]
    assert [round(fit.centre) for fit in near] == pytest.approx([130, 211], abs=5)


def test_two_lines_may_be_as_high_as_one_of_a_style_while_none_was_read() -> None:
    both = measured("上面的一行", 20, below="下面的一行")
    large = taught(48)
    near = [fit for fit in large.rows(both) if abs(fit.scw / 20 - 1) < 0.08]
    assert [round(fit.centre) for fit in near] == pytest.approx([110, 137], abs=3)
    assert not any(abs(fit.scw / 20 - 1) < 0.08 for fit in large.rows(both, [48.0]))


def test_a_part_of_a_character_may_be_one_on_the_usual_row() -> None:
    ink = np.zeros((360, 960), np.uint8)
    ink[118:128, 400:422] = page("字", 30)[105:115, 203:225]
    part = measure_line(ink, (0, 0))
    assert part is not None and part.height < 0.5 * 30
    [fit] = taught().rows(part)[-1:]
    assert abs(fit.scw / 30 - 1) < 0.06 and abs(fit.centre - 114.5) < 3
    ink = np.roll(ink, 60, axis=0)  # on no row of the clip
    away = measure_line(ink, (0, 0))
    assert away is not None and not any(abs(fit.scw / 30 - 1) < 0.06 for fit in taught().rows(away))


def test_a_line_may_have_the_size_of_the_line_beside_it_in_the_cue() -> None:
    small, large = taught(30), measured("大一些的文字", 44)
    assert any(abs(fit.scw / 41 - 1) < 0.03 for fit in small.rows(large, [41.0]))
    assert not any(abs(fit.scw / 41 - 1) < 0.03 for fit in small.rows(large))
