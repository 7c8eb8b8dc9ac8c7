"""python -m pytest tests/test_progress.py"""

from __future__ import annotations

import io
import sys

import pytest

from tamis import progress
from tamis.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def watch(clock: Clock, seconds: int) -> str:
    with Progress("film.mp4") as bar:
        for second in range(seconds):
            clock.now += 1
            bar((second + 1) / seconds)
    assert isinstance(sys.stderr, io.StringIO)
    return sys.stderr.getvalue()


def test_long_work_shows_a_bar_and_wipes_it(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    drawn = watch(clock, 100)
    assert "film.mp4 [###############               ]  50%, 00:50 left" in drawn
    assert drawn.endswith("\r\x1b[K")


def test_short_work_shows_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert watch(clock, 1) == ""


def test_without_a_terminal_nothing_is_shown(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert watch(clock, 100) == ""
