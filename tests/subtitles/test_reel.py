"""pytest tests/subtitles/test_reel.py: what is remembered, and that it does not grow."""

from collections import deque
from fractions import Fraction
from itertools import pairwise

import numpy as np

from tamis.subtitles.reel import DENSE, LONGEST_S, RECENT, SPARSE, Reel, Shot, Spare

PICTURE = np.zeros((2, 2), np.uint8)


def filled(seconds: int, rate: int = 30, every: int = 3) -> Reel:
    """A reel after so many seconds; every third frame is a sample."""
    reel = Reel()
    for n in range(seconds * rate):
        sample = n // every + 1
        reel.add(Shot(Fraction(n, rate), Fraction(n + 1, rate), PICTURE, sample), n % every == 0)
    return reel


def test_recent_frames_are_all_there() -> None:
    shots = filled(10).frames(90, 100)
    assert [s.sample for s in shots[:3]] == [90, 90, 90] and len(shots) == 33
    assert all(a.end == b.time for a, b in pairwise(shots))


def test_frames_beyond_the_recent_ones_are_forgotten() -> None:
    assert min(s.sample for s in filled(10).frames(0, 100)) == 100 - RECENT


def test_of_a_long_cue_samples_are_left_thinly() -> None:
    shots = filled(30).shown(Fraction(12), Fraction(30))
    dense = [s for s in shots if s.sample > 300 - DENSE]
    sparse = [s for s in shots if s not in dense]
    assert len(dense) >= DENSE - 1
    assert all(s.sample % SPARSE == 0 for s in sparse)
    assert shots[0].time < Fraction(13) and shots[-1].time > Fraction(29)


def test_a_cue_between_two_samples_has_its_frames() -> None:
    reel = filled(2)
    between = reel.shown(Fraction(55, 30), Fraction(56, 30))
    assert [s.time for s in between] == [Fraction(55, 30)]


def test_memory_is_constant() -> None:
    def held(reel: Reel) -> int:
        return len(reel.frames(0, 10**9)) + len(reel.shown(Fraction(0), Fraction(10**6)))

    assert held(filled(40)) == held(filled(80)) <= 3 * RECENT + 3 + DENSE + 10 * LONGEST_S / SPARSE + 2


def test_spare_memory_is_filled_again_only_when_nobody_holds_it() -> None:
    spare = Spare()
    first, second = spare.take((4, 6)), spare.take((4, 6))
    assert not np.shares_memory(first, second)
    address, part = first.__array_interface__["data"], first[1:, 2:]
    del first
    third = spare.take((4, 6))
    assert not np.shares_memory(third, part)
    del part
    assert spare.take((6, 4)).shape == (6, 4)
    again = spare.take((4, 6))
    assert again.__array_interface__["data"] == address


def test_spare_memory_does_not_grow() -> None:
    spare, held = Spare(), deque(maxlen=5)
    for _ in range(40):
        held.append(spare.take((4, 6)))
        assert len({plane.__array_interface__["data"] for plane in held}) == len(held)
    assert len(spare._planes) == 6
