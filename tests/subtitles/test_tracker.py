"""pytest tests/subtitles/test_tracker.py: from samples to finished lines."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from drawn import EM, RATE, Shown, clip, footage, panning

from tamis.subtitles.lines import Group
from tamis.subtitles.reel import Reel, Shot
from tamis.subtitles.track import Ended, Points, Track
from tamis.subtitles.tracker import MOST_TRACKS, Tracker, _covered, _replaces, changed_around

EVERY = 3


def followed(count: int, texts: Sequence[Shown], ground=panning) -> tuple[list[Ended], int]:
    """Lines that ended, in order, and the greatest number of tracks at a time. Every third frame is a sample."""
    reel = Reel()
    tracker = Tracker(reel)
    ended: list[Ended] = []
    most = 0
    for n, frame in enumerate(clip(count, texts, ground)):
        sampled = n % EVERY == 0
        reel.add(Shot(frame.time, frame.time + frame.duration, frame.luma, tracker.sample + sampled), sampled)
        if sampled:
            ended += tracker.observe(frame.luma)
            most = max(most, len(tracker.tracks))
    ended += tracker.finish(Fraction(count, RATE))
    return sorted(ended, key=lambda line: line.start), most


def spans(ended: Sequence[Ended]) -> list[tuple[int, int]]:
    return [(int(line.start * RATE), int(line.end * RATE)) for line in ended]


def test_a_line_ends_with_its_points() -> None:
    ended, _ = followed(80, [Shown("一行字幕", 11, 50)])
    assert spans(ended) == [(11, 50)]
    assert ended[0].share > 0.9 and ended[0].contrast > 50 and abs(ended[0].prior) < 0.4


def test_a_line_still_there_at_the_end_ends_with_the_video() -> None:
    assert spans(followed(60, [Shown("还没有消失", 20, 60)])[0]) == [(20, 60)]


def test_two_lines_that_come_together_are_two() -> None:
    both = [Shown("上面的文字", 11, 50, top=200), Shown("下面的文字也在", 11, 50)]
    assert spans(followed(80, both)[0]) == [(11, 50), (11, 50)]


def test_a_line_in_anothers_place_ends_it() -> None:
    texts = [Shown("前面的话", 11, 40), Shown("后面的话", 40, 70)]
    assert spans(followed(90, texts)[0]) == [(11, 40), (40, 70)]


def test_when_one_line_of_a_cue_changes_the_other_ends_and_begins_with_it() -> None:
    texts = [
        Shown("上面的一行不变", 11, 80, top=270),
        Shown("下面第一句", 11, 45, top=306),
        Shown("接着第二句", 45, 80, top=306),
    ]
    ended, _ = followed(100, texts)
    upper = [line for line in ended if line.points.box()[1] < 290]
    assert spans(upper) == [(11, 45), (45, 80)]
    assert set(spans(ended)) == {(11, 45), (45, 80)}


def test_a_scene_cut_is_no_end() -> None:
    def cut(number: int):
        return panning(number) if number < 40 else footage(3)[:, number : number + 640]

    assert spans(followed(90, [Shown("镜头变了话没完", 11, 70)], cut)[0]) == [(11, 70)]


def test_the_tracks_of_a_restless_scene_are_bounded() -> None:
    texts = [
        Shown("闪" * 4, 3 * n, 3 * n + 7, top=20 + 40 * (n % 7), left=40 + 60 * (n % 8)) for n in range(1, 40)
    ]
    _, most = followed(130, texts)
    assert most <= MOST_TRACKS


def test_a_line_that_came_with_a_scene_like_text_ends_before_the_scene() -> None:
    rng = np.random.default_rng(4)
    texture = np.kron(rng.integers(40, 160, (90, 160), dtype=np.uint8), np.ones((4, 4), np.uint8))

    def ground(number: int) -> np.ndarray:
        if not 11 <= number < 70:
            return panning(number)
        picture = np.full_like(texture, 60)
        picture[304:346, 60:560] = texture[304:346, 60:560]  # a still with texture where the text stands
        return picture

    ended, _ = followed(90, [Shown("忽然出现的一行", 11, 40)], ground)
    lines = [line for line in ended if line.end == Fraction(40, RATE)]
    assert [line.start for line in lines] == [Fraction(11, RATE)]
    left, top, right, bottom = lines[0].points.box()
    assert left > 210 and right < 430 and bottom - top < 40
    assert any(line.end == Fraction(70, RATE) for line in ended)  # the scene goes on


@pytest.mark.parametrize("end", range(40, 58, 3))
def test_white_text_on_white_paper_ends_though_the_drawing_on_it_stays(end: int) -> None:
    """Whenever that is: points are counted anew every few samples."""

    def ground(number: int) -> np.ndarray:
        if not 11 <= number < 80:
            return panning(number)
        picture = np.full((360, 640), 240, np.uint8)
        for x in range(60, 560, 9):
            picture[(300 + x % 7) : 330, x : x + 2] = 20  # hatching, through the text and on both sides of it
        picture[304:340, 225:420] = 240
        return picture

    ended, _ = followed(90, [Shown("白纸上的字", 11, end)], ground)
    [text] = [line for line in ended if line.end == Fraction(end, RATE)]
    assert text.start == Fraction(11, RATE)
    assert any(line.end == Fraction(80, RATE) for line in ended)


def test_the_ground_is_looked_at_beside_a_line_as_far_as_the_picture_goes() -> None:
    before, now = np.full((90, 160), 50, np.uint8), np.full((90, 160), 50, np.uint8)
    whole, low, inside = (0, 0, 160, 90), (0, 70, 160, 90), (40, 40, 80, 50)
    assert [changed_around(box, before, now) for box in (whole, low, inside)] == [0, 0, 0]
    now[40:50, 40:80] = 200  # the line itself
    assert changed_around(inside, before, now) == 0
    now[30:40] = 200  # the line above it
    assert changed_around(inside, before, now) == 0
    now[45, 80:90] = 200  # another part of the line on one side of it
    assert changed_around(inside, before, now) == 0
    now[44:46, 30:40] = 200
    assert changed_around(inside, before, now) == pytest.approx(0.1)
    now[50:60] = 200
    assert changed_around(inside, before, now) == 1


def test_neighbours_that_only_a_short_pause_parts_are_two() -> None:
    texts = [Shown("我们现在好吗", 11, 41), Shown("我们现在跑吗", 44, 70)]
    assert spans(followed(90, texts)[0]) == [(11, 41), (44, 70)]


def test_texts_in_boxes_that_only_a_short_pause_parts_are_two() -> None:
    """The edges of the boxes come again, and are most of what is left of the first text."""

    def ground(number: int) -> np.ndarray:
        picture = panning(number).copy()
        if 11 <= number < 41 or 44 <= number < 70:
            picture[302:346, 130:510] = 230
        return picture

    texts = [
        Shown("前面的话在框中", 11, 41, bright=20, around=None),
        Shown("后来又说别的事", 44, 70, bright=20, around=None),
    ]
    ended, _ = followed(90, texts, ground)
    assert {(11, 41), (44, 70)} <= set(spans(ended))


def test_texts_in_one_box_one_after_the_other_are_two() -> None:
    """The edges of the box keep their full step, as text does that has lost its ground."""

    def ground(number: int) -> np.ndarray:
        picture = panning(number).copy()
        if 11 <= number < 70:
            picture[300:348, 250:390] = 20
            picture[302:346, 252:388] = 128
        return picture

    texts = [Shown("你好", 11, 40, bright=20, around=None), Shown("再见", 40, 70, bright=20, around=None)]
    ended, _ = followed(90, texts, ground)
    assert (11, 40) in spans(ended)


def test_a_changed_text_that_loses_its_ground_soon_after_is_not_taken_back() -> None:
    def ground(number: int) -> np.ndarray:
        return np.full((360, 640), 235, np.uint8) if 57 <= number < 62 else panning(number)

    texts = [Shown("说好的啊呀", 11, 40, around=None), Shown("来坏的啊呀", 40, 75, around=None)]
    ended, _ = followed(90, texts, ground)
    assert (11, 40) in spans(ended)


def test_a_flash_is_no_pause() -> None:
    def ground(number: int) -> np.ndarray:
        return np.full((360, 640), 235, np.uint8) if number in (41, 42, 43) else panning(number)

    ended, _ = followed(90, [Shown("闪光也不打断这句话", 11, 70, around=None)], ground)
    assert spans(ended) == [(11, 70)]


def test_what_stays_of_a_changed_line_was_there_when_the_change_came() -> None:
    texts = [Shown("我们走吧", 11, 40), Shown("我们走吗", 40, 70)]
    ended, _ = followed(90, texts)
    assert [line.start for line in ended[1:]] == [ended[0].end]


def test_a_short_line_that_comes_with_a_scene_cut_is_found_on_the_rows_of_the_line_before() -> None:
    def cluttered(number: int) -> np.ndarray:
        picture = panning(number).copy()
        if number >= 40:  # a still full of heavier groups than one character
            picture[:] = 60
            for n in range(9):
                y, x = 20 + 70 * (n // 3), 30 + 200 * (n % 3)
                picture[y : y + 30, x : x + 90 : 6] = 250
        return picture

    texts = [Shown("前面有一句话在里", 11, 40), Shown("嗯", 40, 64)]
    assert (40, 64) in spans(followed(90, texts, cluttered)[0])


def test_when_one_part_of_a_line_changes_the_other_part_ends_and_begins_with_it() -> None:
    texts = [
        Shown("我们走吧", 11, 45, left=100),
        Shown("我们走吗", 45, 80, left=100),
        Shown("右边还是那样", 11, 80, left=100 + 6 * EM),
    ]
    ended, _ = followed(100, texts)
    right = [line for line in ended if line.points.box()[0] > 250]
    assert spans(right) == [(11, 45), (45, 80)]


def test_a_small_group_does_not_take_the_place_of_a_long_line_that_has_lost_its_ground() -> None:
    rng = np.random.default_rng(2)
    y, x = (rng.integers(0, side, 1000).astype(np.int32) for side in (28, 400))
    track = Track(Points(y, x, np.resize([1, -1], 1000).astype(np.int32), np.full(1000, 80, np.int32)), 1)
    track.alive = x > 220  # 45 % of the strokes stand
    for count, verdict in ((60, False), (400, True)):
        group = Group(0, 0, 40 if count == 60 else 400, 28, count, 1e4)
        inside = _covered(track, group)
        assert inside is not None
        assert _replaces(group, track, inside) is verdict
