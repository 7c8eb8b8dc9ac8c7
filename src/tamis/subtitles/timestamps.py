"""Presentation times as a player keeps them, from the time stamps that files really contain.

Frames leave a decoder in the order in which they are shown. Their stamps are nearly always right; the exceptions are
few and known, and each has one rule here:

    no stamp, a stamp not after the frame before (duplicate or backwards), or a lone stamp far in the future:
        the frame is placed evenly between its neighbours that have good stamps
    `RESTART_FRAMES` such frames in a row (recordings glued together, whose clock restarts):
        the clock continues, one frame after the last good time, with the distances the file gives

Times therefore always increase, and one bad stamp never moves any other frame. Good stamps are passed on untouched,
so a variable frame rate stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Payload = TypeVar("Payload")
Ticks = int | Fraction

# Frames held back while waiting for a good stamp. Reordering errors of real files span a group of B-frames at most.
RESTART_FRAMES = 16
# A longer gap (slide shows, security cameras) is believed only when the next frame agrees with it.
BELIEVED_GAP_S = 10


@dataclass(slots=True)
class _Held(Generic[Payload]):
    payload: Payload
    stamp: int | None  # as the file has it, ticks
    duration: int  # as the file has it, ticks, 0 = unknown


class Timeline(Generic[Payload]):
    """Turns the stamps of successive frames into (payload, time, duration), one frame behind the decoder.

    time_base  seconds per tick
    origin     the file's clock, in seconds, at the moment a player calls zero
    step       ticks between frames where neither stamps nor durations say (> 0)
    """

    def __init__(self, time_base: Fraction, origin: Fraction, step: Ticks) -> None:
        self.repaired = 0  # frames placed between their neighbours
        self.restarts: list[Fraction] = []  # where the file's clock restarted, seconds
        self._time_base = time_base
        self._origin = origin
        self._step = step
        self._offset: Ticks = 0  # added to every stamp after a restart
        self._believed_gap = BELIEVED_GAP_S / time_base
        self._held: list[_Held[Payload]] = []  # the first has the good time `_time`, the others await theirs
        self._time: Ticks = 0

    def push(self, payload: Payload, stamp: int | None, duration: int) -> Iterator[tuple[Payload, Fraction, Fraction]]:
        """Takes the next frame in order of presentation; yields the frames whose time and duration are now known."""
        frame = _Held(payload, stamp, duration)
        if not self._held:
            self._begin(frame)
            return
        time = None if stamp is None else stamp + self._offset
        if len(self._held) == 1 and time is not None and 0 < time - self._time <= self._believed_gap:
            yield self._emit(self._held[0], self._time, time - self._time)  # the usual case, kept short
            self._held[0], self._time = frame, time
            return
        self._held.append(frame)
        yield from self._settle()

    def flush(self) -> Iterator[tuple[Payload, Fraction, Fraction]]:
        """Yields what is still held; the last frame lasts as long as the file says, else as long as the one before."""
        while len(self._held) > 1:
            good = self._good_stamp_after_first(final=True)
            yield from self._advance(*good) if good else self._continue()
        if self._held:
            last = self._held.pop()
            yield self._emit(last, self._time, last.duration or self._step)

    def _begin(self, frame: _Held[Payload]) -> None:
        self._held = [frame]
        zero = self._origin / self._time_base
        self._time = zero if frame.stamp is None else frame.stamp
        if self._time < zero:  # the header promised a later start than the first frame has
            self._origin = self._time * self._time_base

    def _emit(self, frame: _Held[Payload], time: Ticks, duration: Ticks) -> tuple[Payload, Fraction, Fraction]:
        self._step = duration
        base = self._time_base
        seconds = Fraction(time * base.numerator, base.denominator)
        if self._origin:
            seconds -= self._origin
        return frame.payload, seconds, Fraction(duration * base.numerator, base.denominator)

    def _settle(self) -> Iterator[tuple[Payload, Fraction, Fraction]]:
        """Releases held frames as soon as a good stamp follows them, or too many have waited for one."""
        while len(self._held) > 1:
            good = self._good_stamp_after_first(final=False)
            if good:
                yield from self._advance(*good)
            elif len(self._held) > RESTART_FRAMES:
                yield from self._continue()
            else:
                return

    def _good_stamp_after_first(self, final: bool) -> tuple[int, Ticks] | None:
        """Index and time of the next held frame with a believable stamp. A large gap needs a second witness."""
        times = [None if frame.stamp is None else frame.stamp + self._offset for frame in self._held]
        for index in range(1, len(times)):
            time = times[index]
            if time is None or time <= self._time:
                continue
            if time - self._time <= self._believed_gap:
                return index, time
            later = [t for t in times[index + 1 :] if t is not None and t > self._time]
            if later and later[0] > time or final and not later:
                return index, time
        return None

    def _advance(self, index: int, time: Ticks) -> Iterator[tuple[Payload, Fraction, Fraction]]:
        """Emits the first `index` held frames evenly up to `time`, which the next one has."""
        duration: Ticks = time - self._time if index == 1 else Fraction(time - self._time) / index
        self.repaired += index - 1
        for frame in self._held[:index]:
            yield self._emit(frame, self._time, duration)
            self._time += duration
        del self._held[:index]
        self._time = time

    def _continue(self) -> Iterator[tuple[Payload, Fraction, Fraction]]:
        """Lets the clock run on by one frame, and reads the stamps that follow relative to that."""
        duration = self._held[0].duration or self._step
        following = self._held[1].stamp
        if following is None:
            self.repaired += 1
        else:
            self._offset = self._time + duration - following
            self.restarts.append((self._time + duration) * self._time_base - self._origin)
        yield self._emit(self._held.pop(0), self._time, duration)
        self._time += duration
