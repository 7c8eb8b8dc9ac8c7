"""Stamps as files have them, times as players show them.

pytest tests/subtitles/test_timestamps.py
"""

from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.subtitles.timestamps import RESTART_FRAMES, Timeline

TICK = Fraction(1, 10)


def times(stamps, durations=None, origin=Fraction(0), step=1):
    """[(time, duration)] in ticks of a tenth of a second, counted from the origin."""
    line = Timeline(TICK, origin, step)
    durations = durations or [1] * len(stamps)
    out = []
    for index, (stamp, duration) in enumerate(zip(stamps, durations, strict=True)):
        out += line.push(index, stamp, duration)
    out += line.flush()
    assert [frame for frame, _, _ in out] == list(range(len(stamps)))
    return [(time / TICK, duration / TICK) for _, time, duration in out], line


def starts(stamps, **options):
    return [time for time, _ in times(stamps, **options)[0]]


def test_good_stamps_are_kept_to_the_tick():
    out, line = times([0, 1, 5, 6, 40], durations=[1, 1, 1, 1, 7])
    assert out == [(0, 1), (1, 4), (5, 1), (6, 34), (40, 7)]
    assert not line.repaired and not line.restarts


def test_missing_stamps_are_spread_between_their_neighbours():
    assert starts([0, None, None, 6, 7]) == [0, 2, 4, 6, 7]
    assert starts([None, None, 3, 4]) == [0, Fraction(3, 2), 3, 4]
    assert starts([2, 3, None, None]) == [2, 3, 4, 5]


def test_no_stamps_at_all_follow_the_step():
    assert starts([None] * 40, durations=[0] * 40, step=4) == [4 * n for n in range(40)]


def test_a_duplicate_moves_no_other_frame():
    assert starts([0, 1, 1, 2, 3]) == [0, 1, Fraction(3, 2), 2, 3]


def test_a_stamp_that_falls_back_moves_no_other_frame():
    assert starts([10, 11, 5, 13, 14]) == [10, 11, 12, 13, 14]


def test_a_lone_stamp_far_ahead_moves_no_other_frame():
    assert starts([0, 1, 99_999_999, 3, 4]) == [0, 1, 2, 3, 4]


def test_a_long_still_is_believed():
    assert starts([0, 1, 5000, 5001, 9000]) == [0, 1, 5000, 5001, 9000]


def test_a_clock_that_restarts_goes_on():
    first, second = list(range(100, 130)), list(range(3, 40))
    out, line = times(first + second)
    assert [time for time, _ in out] == list(range(100, 100 + len(first + second)))
    assert line.restarts == [130 * TICK]
    assert line.repaired == 0


def test_a_restart_shorter_than_the_window_is_spread_by_the_step():
    assert starts([50, 51, 52, 1, 2, 3]) == [50, 51, 52, 53, 54, 55]


def test_the_origin_is_zero():
    assert starts([14, 15, 16], origin=Fraction(13, 10)) == [1, 2, 3]


def test_a_frame_before_the_promised_start_becomes_the_start():
    assert starts([10, 11, 12], origin=Fraction(12, 10)) == [0, 1, 2]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(-(10**15), 10**15), st.integers(0, 60)), max_size=60),
    st.lists(st.integers(-5, 50), min_size=60, max_size=60),
)
def test_times_always_increase_without_gaps(stamps, durations):
    out, _ = times(stamps, durations=durations[: len(stamps)])
    assert len(out) == len(stamps)
    for (time, duration), (following, _) in pairwise(out):
        assert duration > 0
        assert time + duration == following
    assert all(time >= 0 and duration > 0 for time, duration in out)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 99), min_size=2, max_size=60), st.data())
def test_one_bad_stamp_never_moves_another_frame(gaps, data):
    good = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    bad = data.draw(st.integers(1, len(good) - 1))
    stamps = list(good)
    stamps[bad] = data.draw(st.one_of(st.none(), st.integers(-(10**9), good[bad - 1])))
    found = starts(stamps)
    zero = min(0, good[0])
    assert [t for n, t in enumerate(found) if n != bad] == [t - zero for n, t in enumerate(good) if n != bad]


def test_memory_is_bounded():
    line = Timeline(TICK, Fraction(0), 1)
    held = 0
    for index in range(1000):
        held += 1 - len(list(line.push(index, 5, 0)))
        assert held <= RESTART_FRAMES + 1
