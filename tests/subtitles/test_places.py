"""pytest tests/subtitles/test_places.py: lines of text and of scenery, told apart by where and what they are."""

from dataclasses import replace
from fractions import Fraction

import pytest

from tamis.subtitles.places import Places, Standing, Thresholds, body

LEAST = Thresholds(line=0.5, lonely=0.7, at_home=0.3)


def line(text: str, second: int, *, evidence: float = 0.9, middle: int = 640, row: int = 650) -> Standing:
    half = 20 * len(text)
    box = (middle - half, row - 20, middle + half, row + 20)
    return Standing(text, Fraction(second), Fraction(second + 1), box, 40.0, evidence, evidence, 0.9)


SURE = [line("今天天气很好", 0), line("我们出去散步吧", 2), line("路上没有行人", 4)]


def kept(candidate: Standing, sure: list[Standing] = SURE) -> bool:
    return Places([*sure, candidate], 1280).are_subtitles([candidate], LEAST) == [True]


@pytest.mark.parametrize(
    "evidence, centred, expected", [(0.55, 0.9, True), (0.45, 0.9, False), (0.55, 0.6, False)]
)
def test_a_line_at_a_new_place_needs_the_usual_evidence(
    evidence: float, centred: float, expected: bool
) -> None:
    far = replace(line("远方的朋友", 8, evidence=evidence, row=100), centred=centred)
    assert kept(far, []) is expected


def test_at_home_a_doubtful_line_is_believed() -> None:
    doubtful = line("喂？", 8, evidence=0.4)
    assert kept(doubtful)
    assert not kept(replace(doubtful, box=(600, 80, 680, 120)))  # other rows
    assert not kept(replace(doubtful, box=(300, 630, 380, 670)))  # neither the middle nor the left side
    assert not kept(replace(doubtful, scw=55.0))  # another size


def test_one_text_again_and_again_makes_no_home() -> None:
    assert not kept(line("喂？", 8, evidence=0.4), [line("今天天气很好", 0), line("今天天气很好", 2)])


@pytest.mark.parametrize("text", ["“", "一", "X", "NNNN", "？？", "1/一"])
def test_simple_shapes_are_scenery_where_no_subtitles_stand(text: str) -> None:
    assert not kept(line(text, 8, evidence=0.99, row=300))


@pytest.mark.parametrize("text", ["一", "？", "OK"])
def test_simple_shapes_are_text_where_subtitles_stand(text: str) -> None:
    assert kept(line(text, 8, evidence=0.8))
    assert not kept(line(text, 8, evidence=0.6))


def test_a_mark_that_begins_no_line_is_none() -> None:
    assert not kept(line("，", 8, evidence=0.99))
    assert kept(line("…", 8, evidence=0.99))


def test_a_single_rich_character_may_stand_anywhere() -> None:
    assert kept(line("嗯", 8, evidence=0.8, row=200))


def test_a_name_in_the_corner_is_a_logo() -> None:
    assert not kept(line("中文台", 8, middle=1200, row=50))


def test_few_characters_away_from_home_need_a_clear_ground() -> None:
    lone = line("以", 8, row=230)
    assert kept(lone) and not kept(replace(lone, decided=0.6))


def test_two_lines_of_other_words_in_a_corner_are_no_logo() -> None:
    first = replace(line("左边的字幕", 8, middle=150), box=(50, 630, 250, 670))
    second = replace(line("然后又换了一句", 12, middle=150), box=(50, 630, 330, 670))
    assert kept(first, [second]) and kept(second, [first])
    assert not kept(first, [])


def test_left_aligned_lines_are_at_home_in_the_corner() -> None:
    left = [replace(s, box=(100, 630, 100 + 40 * len(s.text), 670)) for s in SURE]
    wide = [replace(s, text=s.text + "一直走到海边去看日出", box=(100, 630, 800, 670)) for s in left]
    short = replace(line("好吧", 8), box=(100, 630, 180, 670))
    assert kept(short, wide)


def test_the_same_words_again_elsewhere_are_a_logo() -> None:
    first, again = line("本台独家播出", 0, row=60), line("本台独家播出", 20, row=60)
    places = Places([*SURE, first, again], 1280)
    assert places.are_subtitles([first], LEAST) == places.are_subtitles([again], LEAST) == [False]


def test_the_line_above_one_at_home_is_at_home() -> None:
    upper = line("哦", 8, evidence=0.4, row=600)
    lower = line("明天见", 8)
    assert Places([*SURE, upper, lower], 1280).are_subtitles([upper, lower], LEAST) == [True, True]
    assert Places([*SURE, upper], 1280).are_subtitles([upper], LEAST) == [False]


def test_a_line_that_says_nothing_is_none() -> None:
    assert not kept(line("", 8))


def trimmed(
    text: str, centred: list[float], evidence: list[float], positions: list[float] | None = None
) -> str:
    return text[body(text, positions or list(range(len(text))), centred, evidence)]


def test_scenery_at_the_ends_of_a_line_is_left_out() -> None:
    assert trimmed("..好天气：", [1, 0.6, 0.9, 0.9, 0.9, 0.7], [0.6, 0.1, 0.8, 0.9, 0.8, 0.1]) == "好天气"


def test_a_doubtful_letter_stays_and_so_does_likely_punctuation() -> None:
    assert trimmed("口味好？", [0.7, 0.9, 0.9, 0.9], [0.1, 0.9, 0.8, 0.5]) == "口味好？"


def test_a_doubtful_mark_behind_a_line_is_scenery() -> None:
    assert trimmed("口味好...", [0.9] * 6, [0.9, 0.9, 0.9, 0.4, 0.4, 0.3]) == "口味好"
    assert trimmed("口味好...", [0.9] * 6, [0.9, 0.9, 0.9, 0.3, 0.6, 0.5]) == "口味好..."  # dots go together
    assert trimmed("口，味好", [0.9] * 4, [0.9, 0.3, 0.9, 0.9]) == "口，味好"  # within it


def test_what_stands_far_away_is_left_out() -> None:
    assert trimmed("气好天", [0.9] * 3, [0.3, 0.9, 0.9], [0, 4, 5]) == "好天"


def test_a_line_without_a_sure_character_stays_as_it_is() -> None:
    assert trimmed("...", [0.3] * 3, [0.1] * 3) == "..."


def test_a_mark_that_ends_no_line_is_scenery() -> None:
    assert trimmed("旋律（", [0.9] * 3, [0.9] * 3) == "旋律"
    assert trimmed("，旋律", [0.9] * 3, [0.9] * 3) == "旋律"
    assert trimmed("（旋律）", [0.9] * 4, [0.9] * 4) == "（旋律）"


def test_neighbours_of_one_wording_are_no_logo() -> None:
    first, then = line("祝你一切顺利", 0, row=400), line("祝你一切胜利", 1, row=400)
    later = line("祝他一切胜利", 2, row=400)
    for one in (first, then, later):
        assert Places([first, then, later], 1280).are_subtitles([one], LEAST) == [True]
    pause = replace(then, start=Fraction(9), end=Fraction(10))
    assert Places([first, pause], 1280).are_subtitles([first], LEAST) == [True]
    doubted = replace(pause, evidence=0.75)  # after a pause, the difference may be a misreading
    assert Places([first, doubted], 1280).are_subtitles([first], LEAST) == [False]
    name, misread = line("电影频道", 0, row=400), line("电影频遭", 9, row=400, evidence=0.85)
    assert Places([name, misread], 1280).are_subtitles([name], LEAST) == [False]
    part = replace(pause, text="祝你一切顺")
    assert Places([first, part], 1280).are_subtitles([first], LEAST) == [False]
    doubtful = replace(then, evidence=0.55)
    assert Places([first, doubtful], 1280).are_subtitles([first], LEAST) == [False]
    assert Places([first, replace(then, text=first.text)], 1280).are_subtitles([first], LEAST) == [False]


def test_hatching_reads_as_few_characters_again_and_again() -> None:
    assert not kept(line("國國國國目国國國國國個國", 8, row=300), [])
    assert kept(line("國國國國目国國國國國個國", 8))  # where subtitles stand, somebody may laugh
    assert kept(line("哈哈哈", 8, row=300), [])


def test_words_that_stand_further_on_a_moment_later_are_those_of_a_moving_sign() -> None:
    sign = line("出口", 8, row=300)
    assert kept(sign)
    assert not kept(sign, [*SURE, line("出口", 10, row=310, middle=760)])
    assert kept(sign, [*SURE, line("出口", 14, row=310, middle=760)])  # seconds later
    assert kept(sign, [*SURE, line("出口", 9, row=340)])  # a line that gave way to one below it
    assert kept(sign, [*SURE, line("入场", 10, row=310, middle=760)])


def test_lines_that_begin_with_many_others_are_a_drawing() -> None:
    found = line("出发", 8, evidence=0.8, row=300)
    crowd = [line("中", 8, evidence=0.2, row=row) for row in (100, 150, 200)]
    assert kept(found, [*SURE, *crowd[:2]])
    assert not kept(found, [*SURE, *crowd])
    assert kept(line("出发", 8, evidence=0.95, row=300), [*SURE, *crowd])
    assert not kept(line("口发", 8, evidence=0.95, row=300), [*SURE, *crowd])  # one rich character
    assert kept(line("嗯？", 8, evidence=0.5), [*SURE, *crowd])  # at home


def test_at_home_simple_shapes_alone_are_no_text_whatever_their_centres() -> None:
    assert not kept(replace(line("IVvイ～", 8, evidence=0.36), centred=0.8, decided=0.8))
    assert kept(replace(line("嗯Vvイ～", 8, evidence=0.36), centred=0.8, decided=0.8))


def test_the_second_line_of_a_cue_that_was_read_beyond_doubt_is_believed() -> None:
    upper = line("半", 8, evidence=0.6, row=600)
    sure, doubtful = (line("今天天气很好", 8, evidence=p) for p in (0.95, 0.7))
    assert Places([upper, sure], 1280).are_subtitles([upper, sure], LEAST) == [True, True]
    assert Places([upper, doubtful], 1280).are_subtitles([upper, doubtful], LEAST) == [False, True]


def test_the_second_line_that_stays_the_same_while_the_first_one_changes_is_no_logo() -> None:
    first, then = (
        line("祝你一切顺利", 0, row=400, evidence=0.85),
        line("祝你一切胜利", 9, row=400, evidence=0.85),
    )
    under = [line("朋友", second, row=450, evidence=0.75) for second in (0, 9)]
    places = Places([first, then, *under], 1280)
    assert places.are_subtitles([first, under[0]], LEAST) == [True, True]
    assert places.are_subtitles([under[0]], LEAST) == [False]


def test_few_characters_for_a_moment_where_no_subtitles_stand_are_scenery() -> None:
    brief = line("出发", 8, row=300, evidence=0.85)
    assert kept(brief)
    assert not kept(replace(brief, end=brief.start + Fraction(1, 4)))
    assert kept(replace(brief, end=brief.start + Fraction(1, 4), evidence=0.95, centred=0.95))  # beyond doubt
    assert kept(replace(line("出发", 8), end=brief.start + Fraction(1, 4)))
    for evidence, expected in ((0.65, False), (0.75, True)):  # many that are in doubt
        long = replace(line("我们现在就要出发", 8, row=300, evidence=evidence), centred=0.9)
        assert kept(long)
        assert kept(replace(long, end=long.start + Fraction(1, 4))) is expected


def test_short_texts_beyond_doubt_tell_where_subtitles_stand() -> None:
    short = [line("出发", 0, evidence=0.95), line("好", 2, evidence=0.95)]
    doubtful = line("喂？", 8, evidence=0.4)
    assert kept(doubtful, short)
    assert not kept(doubtful, [replace(one, decided=0.8) for one in short])
    assert not kept(doubtful, short[:1])


def test_a_piece_of_a_line_that_is_there_with_it_makes_no_logo_of_its_neighbours() -> None:
    first, then = line("祝你一切顺利", 0), line("祝你一切胜利", 1)
    piece = replace(line("祝你一切胜", 1), box=(then.box[0], 630, then.box[2] - 40, 670))
    places = Places([first, then, piece], 1280)
    assert places.are_subtitles([first], LEAST) == [True]
    late = replace(then, start=Fraction(3, 2))  # the same line, found again
    assert Places([first, then, late], 1280).are_subtitles([first], LEAST) == [True]
    logo = line("祝你一切", 5)  # a part of the same words at another time
    assert Places([first, logo], 1280).are_subtitles([first], LEAST) == [False]


def test_a_part_of_a_line_seen_for_longer_is_no_sign_that_moves() -> None:
    whole = line("祝你一切顺利", 0, row=300)
    part = replace(line("一切顺利", 0, row=300), box=(whole.box[0] + 80, 280, whole.box[2], 320))
    assert Places([whole, part], 1280).are_subtitles([whole], LEAST) == [True]
    moved = replace(
        whole, start=Fraction(2), end=Fraction(3), box=(whole.box[0] + 80, 280, whole.box[2] + 80, 320)
    )
    assert Places([whole, moved], 1280).are_subtitles([whole], LEAST) == [False]
