"""pytest tests/subtitles/test_detect.py: the whole detector on drawn clips of a few seconds, cue by cue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from drawn import EM, HEIGHT, RATE, WIDTH, Frame, Plane, Shown, clip, flat, footage, panning

from tamis.subtitles.detect import CueImage, Detector, detect
from tamis.subtitles.track import Ended, Points


def found(frames: Sequence[Frame], top: int = 280) -> list[tuple[float, float, int]]:
    """(first frame, frame after the last, number of lines) of the candidates below row `top`, in order of time."""
    images = [i for i in detect(frames) if i.lines[0].box[1] > top]
    return sorted((float(i.start * RATE), float(i.end * RATE), len(i.lines)) for i in images)


def only(frames: Sequence[Frame]) -> CueImage:
    images = list(detect(frames))
    assert len(images) == 1
    return images[0]


def test_a_cue_has_its_exact_first_and_last_frame() -> None:
    assert found(clip(75, [Shown("今天天气很好", 13, 52)])) == [(13, 52, 1)]


@pytest.mark.parametrize("first", [10, 11, 12])
def test_a_cue_of_a_third_of_a_second_is_kept_wherever_the_samples_fall(first: int) -> None:
    assert found(clip(45, [Shown("走吧走吧", first, first + 8)])) == [(first, first + 8, 1)]


def test_a_cue_of_one_character_is_kept() -> None:
    assert found(clip(50, [Shown("嗯", 10, 35)])) == [(10, 35, 1)]


def test_two_lines_are_one_cue() -> None:
    both = [Shown("上面的一行文字", 10, 45, top=270), Shown("下面一行", 10, 45, top=312)]
    image = only(clip(60, both))
    assert (image.start * RATE, image.end * RATE) == (10, 45)
    upper, lower = image.lines
    assert upper.box[1] < 270 < upper.box[3] < lower.box[3] and lower.box[1] < 312 < lower.box[3]
    assert image.picture.shape[0] >= lower.box[3] - upper.box[1] - EM  # the picture shows both


def test_back_to_back_cues_are_split() -> None:
    texts = [Shown("前面的一句话", 8, 30), Shown("后来又说了别的", 30, 55)]
    assert found(clip(70, texts)) == [(8, 30, 1), (30, 55, 1)]


def test_neighbours_that_differ_in_one_character_stay_apart() -> None:
    assert found(clip(80, [Shown("我们走吧", 8, 40), Shown("我们走吗", 40, 70)])) == [(8, 40, 1), (40, 70, 1)]


def test_a_scene_cut_inside_a_cue_does_not_split_it() -> None:
    def cut(number: int) -> Plane:
        return panning(number) if number < 35 else footage(7)[:, number : number + WIDTH]

    assert found(clip(75, [Shown("镜头变了话还没说完", 12, 60)], cut)) == [(12, 60, 1)]


def test_a_cut_to_white_does_not_split_outlined_text() -> None:
    def cut(number: int) -> Plane:
        return panning(number) if number < 35 else flat(225)(number)

    assert found(clip(75, [Shown("镜头变了话还没说完", 12, 60)], cut)) == [(12, 60, 1)]


def test_fades_begin_and_end_at_their_middle() -> None:
    [(start, end, _)] = found(clip(90, [Shown("慢慢地出现又消失", 15, 70, fade=6)]))
    assert abs(start - 18) <= 1 and abs(end - 67) <= 1


def test_a_clip_without_text_has_no_cues() -> None:
    assert found(clip(75), top=-HEIGHT) == []


def test_a_moving_sign_is_no_cue() -> None:
    assert found(clip(75, [Shown("路边的招牌", 5, 70, top=150, left=30, drift=4)]), top=-HEIGHT) == []


def test_a_logo_that_stands_from_first_to_last_frame_is_no_cue() -> None:
    assert found(clip(100, [Shown("中文台", 0, 100, top=20, left=540)]), top=-HEIGHT) == []


@pytest.mark.parametrize("seconds, cues", [(18, 1), (22, 0)])
def test_what_stands_longer_than_twenty_seconds_is_no_cue(seconds: int, cues: int) -> None:
    times = [Fraction(n, 10) for n in range(10 * seconds + 31)]  # 10 frames a second, to be quick
    frames = clip(10 * seconds + 30, [Shown("长时间的标题", 10, 10 + 10 * seconds)], times=times)
    assert len(list(detect(frames))) == cues


def test_variable_frame_rate_takes_the_frames_own_times() -> None:
    steps = [Fraction(1, 30) if n % 3 else Fraction(1, 15) for n in range(75)]
    times = [sum(steps[:n], Fraction(0)) for n in range(76)]
    image = only(clip(75, [Shown("时间不均匀", 12, 60)], times=times))
    assert (image.start, image.end) == (times[12], times[60])


@pytest.mark.parametrize(
    "ground, bright, around, polarity", [(flat(210), 20, None, -1), (panning, 235, 20, 1)]
)
def test_strips_are_bright_on_dark_whatever_the_text(ground, bright, around, polarity) -> None:
    image = only(clip(60, [Shown("深色或浅色文字", 10, 50, bright=bright, around=around)], ground))
    line = image.lines[0]
    assert line.polarity == polarity
    assert line.pixels.shape[:2] == (2, 40) and line.pixels.dtype == np.uint8
    assert abs(line.scw / EM - 1) < 0.08
    middle = line.pixels[0, :, 48:-48]  # without the margin
    assert np.median(middle) < 128 < middle.max()


def test_the_minimum_over_frames_wears_down_the_ground() -> None:
    line = only(clip(80, [Shown("背景在移动", 10, 70)])).lines[0]
    margin = line.pixels[:, :, :24].astype(int)
    assert margin[1].mean() < margin[0].mean()


def test_one_frame_instead_of_merged_ones() -> None:
    frames = clip(80, [Shown("背景在移动", 10, 70)])
    [merged], [single] = detect(frames), detect(frames, merged=False)
    assert (merged.start, merged.end) == (single.start, single.end)
    assert np.array_equal(single.lines[0].pixels[0], single.lines[0].pixels[1])
    assert not np.array_equal(merged.lines[0].pixels[0], merged.lines[0].pixels[1])


def test_a_region_is_all_that_is_looked_at_and_boxes_stay_those_of_the_frame() -> None:
    texts = [Shown("上面的文字", 10, 50, top=40), Shown("下面的文字", 10, 50)]
    whole = [i for i in detect(clip(60, texts)) if i.lines[0].box[1] > 200]
    part = list(detect(clip(60, texts), region=(0, 240, WIDTH, HEIGHT)))
    assert len(whole) == len(part) == 1
    assert np.allclose(whole[0].lines[0].box, part[0].lines[0].box, atol=2)
    assert part[0].width == WIDTH


def test_frames_of_four_thousand_lines_are_halved_and_boxes_are_not() -> None:
    small = clip(40, [Shown("清晰度很高", 8, 32)])
    large = [replace(f, luma=cv2.resize(f.luma, None, fx=4, fy=4)) for f in small]
    [one], [four] = detect(small), detect(large)
    assert (one.start, one.end) == (four.start, four.end)
    assert np.allclose(4 * np.array(one.lines[0].box), four.lines[0].box, atol=12)
    assert abs(four.lines[0].scw / (4 * EM) - 1) < 0.08


def test_what_stood_there_before_is_a_logo_but_where_a_text_ended_it_goes_on() -> None:
    y, x = (part.ravel().astype(np.int32) for part in np.mgrid[300:320, 200:300])
    points = Points(y, x, np.where(x % 2, 1, -1).astype(np.int32), np.full(len(x), 90, np.int32))
    before = Ended(points, Fraction(2), Fraction(4), 90.0, 1.0, 0.0, 20, 40)
    after = replace(before, start=Fraction(4), end=Fraction(7), prior=0.5)
    elsewhere = replace(after, points=Points(y - 100, x, points.sign, points.step))

    def kept(*lines: Ended) -> list[Ended]:
        detector = Detector()
        detector._working = (HEIGHT, WIDTH)
        for line in lines:
            detector._ended.append(line)
            detector._collect(0)
        return detector._ended

    assert kept(after) == []
    assert kept(before, after) == [before, after]
    assert kept(before, elsewhere) == [before]
    assert kept(before, replace(after, start=Fraction(5))) == [before]
