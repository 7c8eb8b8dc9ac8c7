"""pytest tests/subtitles/test_pieces.py: one subtitle is one cue."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tamis.subtitles.cue import Character, Cue, Line
from tamis.subtitles.pieces import joined, mended, shared, stacked, without_drawings, without_fragments


def _cue(start: int, end: int, text: str, top: int = 0, confidence: float = 0.5) -> Cue:
    characters = tuple(Character(c, confidence, (0, top, 10, top + 10)) for c in text)
    return Cue(
        Fraction(start, 24), Fraction(end, 24), (Line(characters, (0, top, 10, top + 10)),), confidence
    )


def test_pieces_of_one_subtitle_are_joined() -> None:
    result = joined([_cue(0, 24, "好", confidence=0.4), _cue(25, 48, "好", confidence=0.9)])
    assert [(c.start, c.end, c.confidence) for c in result] == [(0, 2, 0.9)]


@pytest.mark.parametrize(
    "second",
    [_cue(24, 48, "坏"), _cue(30, 48, "好"), _cue(24, 48, "好", top=50)],
    ids=["text", "gap", "place"],
)
def test_neighbours_that_differ_stay_apart(second: Cue) -> None:
    assert len(joined([_cue(0, 24, "好"), second])) == 2


def test_a_line_that_stays_while_the_other_changes_belongs_to_both_cues() -> None:
    stays = _cue(0, 96, "下面的一行", top=10)
    first, second = _cue(0, 48, "上面"), _cue(48, 96, "旁边")
    found = shared([first, stays, second])
    assert [(c.start, c.end, c.text) for c in found] == [
        (0, 2, "上面\n下面的一行"),
        (2, 4, "旁边\n下面的一行"),
    ]
    assert found[0].confidence == 0.25
    # One that goes on when the other has gone, or is there alone for a while, is a cue of its own.
    assert len(shared([first, stays])) == 2
    assert len(shared([first, stays, replace(second, start=Fraction(3))])) == 3


def test_a_line_above_that_comes_and_goes_with_the_cue_belongs_to_it() -> None:
    lower, upper = _cue(0, 48, "下面的一行", top=10), _cue(1, 48, "上面")
    [cue] = stacked([upper, lower])
    assert cue.text == "上面\n下面的一行" and cue.start == lower.start
    apart = [_cue(0, 48, "下面的一行"), _cue(0, 48, "远处", top=60), _cue(0, 90, "长的", top=10)]
    assert len(stacked(apart)) == 3


def test_a_fragment_beside_the_whole_is_dropped() -> None:
    whole, fragment = _cue(0, 48, "整整一句话"), _cue(20, 48, "句话")
    later, elsewhere = _cue(48, 60, "下"), _cue(0, 48, "上", top=60)
    kept = without_fragments([fragment, whole, later, elsewhere])
    assert {cue.text for cue in kept} == {"整整一句话", "下", "上"} and kept[-1] == later


def test_a_drawing_that_outlives_the_text_in_front_of_it_is_no_cue() -> None:
    text, drawing, following = (
        _cue(0, 48, "一句完整的话"),
        _cue(36, 120, "完整话"),
        _cue(100, 140, "接着一句话"),
    )
    assert without_fragments([text, drawing, following]) == [text, following]
    late = _cue(46, 90, "马上接着")  # two frames of one cue and the next are an error of measurement
    assert without_fragments([text, late]) == [text, late]


def _set(start: int, end: int, *lines: str, left: int = 100) -> Cue:
    """Lines of characters of 40 px; a dot is an empty place."""
    found = []
    for row, text in enumerate(lines):
        top = 600 + 50 * row
        places = [(c, left + 40 * i) for i, c in enumerate(text) if c != "."]
        characters = tuple(Character(c, 0.9, (x, top, x + 40, top + 50)) for c, x in places)
        found.append(Line(characters, (places[0][1], top, places[-1][1] + 40, top + 50)))
    return Cue(Fraction(start, 24), Fraction(end, 24), tuple(found), 0.9)


def test_a_drawing_with_a_text_in_it_that_outlives_the_text_is_no_cue() -> None:
    first, then, last = (
        _set(0, 30, "就算脾气不好"),
        _set(30, 60, "就算脾气很好"),
        _set(60, 90, "就算天气很好"),
    )
    drawing = _set(15, 80, "就算脾气很好")
    assert without_drawings([first, drawing, then, last]) == [first, then, last]
    late = _set(40, 60, "就算脾气很好")  # the text itself, found again
    assert without_drawings([first, then, late, last]) == [first, then, late, last]


def test_pieces_of_a_text_that_a_changing_ground_hides_last_as_long_as_it() -> None:
    pieces = [_set(0, 20, "就算脾气不好"), _set(26, 50, "..脾气不好"), _set(30, 60, "就算脾")]
    [cue] = mended(pieces)
    assert cue == replace(pieces[0], end=Fraction(60, 24))


def test_a_piece_that_is_set_by_itself_before_the_whole_is_a_cue() -> None:
    growing = [_set(0, 20, "就算"), _set(20, 50, "就算脾气不好")]
    assert sorted(mended(growing), key=lambda cue: cue.start) == growing
    [cue] = mended([_set(0, 20, "..脾气不好"), _set(20, 50, "就算脾气不好")])  # nobody sets a line so
    assert (cue.start, cue.text) == (0, "就算脾气不好")
    whole = _set(20, 50, "就算脾气不好")
    [line] = whole.lines
    box = (line.box[0] + 20, *line.box[1:])  # without its narrow first character
    part = replace(whole, start=Fraction(0), end=Fraction(20, 24), lines=(Line(line.characters[1:], box),))
    [cue] = mended([part, whole])
    assert (cue.start, cue.text) == (0, "就算脾气不好")


@pytest.mark.parametrize(
    "other",
    [
        _set(20, 40, "就是脾气很坏"),
        _set(20, 40, "就算脾气很好"),
        _set(20, 40, "就算脾气不好", left=160),
        _set(36, 60, "就算脾"),
        _set(20, 40, "就"),
        _set(10, 40, "..脾气不好"),
    ],
    ids=["text", "neighbour", "place", "gap", "one character", "a drawing that outlives it"],
)
def test_what_is_no_piece_stays_apart(other: Cue) -> None:
    assert len(mended([_set(0, 20, "就算脾气不好"), other])) == 2


def test_a_line_of_two_may_come_and_go_by_itself() -> None:
    both, upper = _set(20, 40, "上面的一行", "下面的一行"), _set(40, 60, "上面的一行")
    assert len(mended([both, upper])) == 2
    assert len(mended([both, _set(40, 60, "上面的")])) == 1


def test_a_piece_of_two_neighbours_makes_neither_last() -> None:
    cues = [_set(0, 40, "就算脾气不好"), _set(40, 90, "就算脾气很好"), _set(42, 60, "就算脾气")]
    found = without_fragments(mended(cues))
    assert found == cues[:2]


def test_of_one_text_seen_twice_the_longer_counts_only_where_it_is_as_sure() -> None:
    surer, longer = _cue(40, 60, "同样的话", confidence=1.0), _cue(20, 80, "同样的话", confidence=0.97)
    assert [(c.start * 24, c.end * 24) for c in without_fragments([longer, surer])] == [(20, 80)]
    drawing = _cue(20, 80, "同样的话", confidence=0.8)
    assert [(c.start * 24, c.end * 24) for c in without_fragments([drawing, surer])] == [(40, 60)]
