"""Presentation times as a player keeps them, from the time stamps that files really contain.

Frames leave a decoder in the order in which they are shown. Their stamps are nearly always right; the exceptions
are few and known, and each has one rule here:

    no stamp, a stamp not after the frame before (duplicate or backwards), or a lone stamp far in the future:
        the frame is placed evenly between its neighbours that have good stamps
    `RESTART_FRAMES` such frames in a row (recordings glued together, whose clock restarts):
        the clock continues, one frame after the last good time, with the distances the file gives

Times therefore always increase, and one bad stamp never moves any other frame. Good stamps are passed on
untouched, so a variable frame rate stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

Payload = TypeVar("Payload")
Ticks = int | Fraction
Timed = tuple[Payload, Fraction, Fraction]  # with time and duration in seconds

# Frames held back while waiting for a good stamp. Reordering errors of real files span a group of B-frames.
RESTART_FRAMES = 16
# A longer gap (slide shows, security cameras) is believed only when the next frame agrees with it.
BELIEVED_GAP_S = 10


@dataclass(slots=True)
class _Held(Generic[Payload]):
    payload: Payload
    stamp: int | None  # as the file has it, ticks
    duration: int  # as the file has it, ticks, 0 = unknown


class Timeline(Generic[Payload]):
    """Turns the stamps of successive frames into times and durations, one frame behind the decoder.

    time_base  seconds per tick
    origin     the file's clock, in seconds, at the moment a player calls zero
    step       ticks between frames where neither stamps nor durations say (> 0)
    """

    def __init__(self, time_base: Fraction, origin: Fraction, step: Ticks) -> None:
        self.frames = 0  # taken so far
        self.unstamped = 0  # of these without a stamp
        self.repaired = 0  # frames placed between their neighbours
        self.restarts: list[Fraction] = []  # where the file's clock restarted, seconds
        self._time_base = time_base
        self._origin = origin
        self._step = step
        self._offset: Ticks = 0  # added to every stamp after a restart
        self._believed_gap = int(BELIEVED_GAP_S / time_base)
        # The first held frame has the good time `_time`, in ticks; the others await theirs.
        self._held: list[_Held[Payload]] = []
        self._time: Ticks = 0

    def push(self, payload: Payload, stamp: int | None, duration: int) -> Iterator[Timed[Payload]]:
        """Takes the next frame in order of presentation; yields the frames whose duration is now known."""
        self.frames += 1
        self.unstamped += stamp is None
        frame = _Held(payload, stamp, max(duration, 0))
        if not self._held:
            self._begin(frame)
            return
        if len(self._held) == 1 and stamp is not None:
            gap = stamp + self._offset - self._time
            if 0 < gap <= self._believed_gap:  # the usual case, kept short
                yield self._emit(self._held[0].payload, gap)
                self._held[0] = frame
                return
        self._held.append(frame)
        yield from self._settle()

    def flush(self) -> Iterator[Timed[Payload]]:
        """Yields what is still held. The last frame lasts as the file says, else as long as the one before."""
        while len(self._held) > 1:
            good = self._next_good_stamp(final=True)
            yield from self._advance(*good) if good else self._continue()
        if self._held:
            last = self._held.pop()
            yield self._emit(last.payload, last.duration or self._step)

    def _begin(self, frame: _Held[Payload]) -> None:
        self._held = [frame]
        zero = self._origin / self._time_base
        self._time = zero if frame.stamp is None else frame.stamp
        if self._time < zero:  # the header promised a later start than the first frame has
            self._origin = self._time * self._time_base

    def _emit(self, payload: Payload, duration: Ticks) -> Timed[Payload]:
        """The frame due at `_time`; moves the clock on by its duration."""
        base = self._time_base
        seconds = Fraction(self._time * base.numerator, base.denominator)
        if self._origin:
            seconds -= self._origin
        self._time += duration
        self._step = duration
        return payload, seconds, Fraction(duration * base.numerator, base.denominator)

    def _settle(self) -> Iterator[Timed[Payload]]:
        """Releases held frames as soon as a good stamp follows them, or too many have waited for one."""
        while len(self._held) > 1:
            good = self._next_good_stamp(final=False)
            if good:
                yield from self._advance(*good)
            elif len(self._held) > RESTART_FRAMES:
                yield from self._continue()
            else:
                return

    def _next_good_stamp(self, final: bool) -> tuple[int, Ticks] | None:
        """Index and time of the next held frame whose stamp is believed. A large gap needs a second witness."""
        times = [None if frame.stamp is None else frame.stamp + self._offset for frame in self._held]
        for index in range(1, len(times)):
            time = times[index]
            if time is None or time <= self._time:
                continue
            if time - self._time <= self._believed_gap:
                return index, time
            later = [t for t in times[index + 1 :] if t is not None and t > self._time]
            if later[0] > time if later else final:
                return index, time
        return None

    def _advance(self, index: int, time: Ticks) -> Iterator[Timed[Payload]]:
        """Emits the first `index` held frames evenly up to `time`, which the next one has."""
        gap = time - self._time
        duration = gap if index == 1 else Fraction(gap) / index
        self.repaired += index - 1
        for frame in self._held[:index]:
            yield self._emit(frame.payload, duration)
        del self._held[:index]
        self._time = time

    def _continue(self) -> Iterator[Timed[Payload]]:
        """Lets the clock run on by one frame, and reads the stamps that follow relative to that."""
        first, following = self._held[0], self._held[1]
        yield self._emit(first.payload, first.duration or self._step)
        del self._held[0]
        if following.stamp is None:
            self.repaired += 1
        else:
            self._offset = self._time - following.stamp
            self.restarts.append(self._time * self._time_base - self._origin)
