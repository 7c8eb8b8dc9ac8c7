"""From samples to finished lines: newborn groups become tracks, tracks become lines with exact first and last frames.

What ends a track:
    its points vanish (two samples in a row with less than half of them);
    a newborn group takes its place (back-to-back cues), or one character of it is replaced (near-identical neighbours).
What does not: a scene cut or motion behind it, a moment of bright ground on which bright text cannot be seen, and the
loss of points that were background and stood only by chance.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from statistics import median

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster
from tamis.subtitles.lines import Group, find_lines
from tamis.subtitles.reel import Reel, Shot
from tamis.subtitles.strokes import NEWBORN, StrokeOperator
from tamis.subtitles.timing import first_visible, last_visible
from tamis.subtitles.track import (
    CHANGED,
    PRUNED,
    SAME_BRIGHTNESS,
    SETTLED,
    STANDS,
    Box,
    Contrast,
    Ended,
    Flags,
    Points,
    Track,
    points_in,
)

Plane = NDArray[np.uint8]

MOST_NEW = 5  # tracks begun per sample: a true line is nearly always the heaviest or second heaviest group
# And so many more on rows where lines stood before: a scene cut drowns a short cue that comes with it.
MOST_AT_HOME = 3
ROWS_REMEMBERED = 12
MOST_TRACKS = 32
DELAY = SETTLED + 2  # samples for which an ended line is held back, in case its end was none
TOLD = 2  # samples after which it is told that another text took the place: that strokes stand takes two
STEADY = 0.7  # median share of a text's points that stand; drifting texture reaches 0.75, text rarely falls below 0.95
BRIEF = 6  # samples: a line that goes sooner is suspect where others come and go
RESTLESS = 3  # so many others
# Share of points whose brighter, or whose darker, side is as bright as before: text that stands on another ground.
STILL_THERE = 0.7
# Text that lost its ground keeps its inner edges: the least share of its points with their full step, and of those that stand at
# all. Measured: 0.27 and 0.57 of outlined text on another ground, 0.18 and 0.45 where another text took the place.
FULL, FULL_STOOD = 0.23, 0.52
GROUND = 0.03  # share of the pixels around a text that change where the ground does
SMALL = 0.1  # share of a line's points, fewer than which do not take its place
TAKEN = 0.8  # share of a line's width and height that the one in its place covers
PARTS_APART = 3  # line heights between two parts of one line, at most
UNCHANGED = 0.9  # share of a text's points that stand after a flash
FEW = 8  # points, fewer than which say nothing
FLOOD = 0.03  # share of newborn pixels in the picture, beyond which the scene itself has changed


class Tracker:
    """Follows all lines of a video, sample by sample."""

    def __init__(self, reel: Reel) -> None:
        self.tracks: list[Track] = []
        self.sample = 0
        self.flood = 0.0
        self._reel = reel
        self._operator = StrokeOperator()
        self._ended: list[Ended] = []
        self._brief: deque[tuple[int, float, Box]] = deque()
        self._rows: deque[tuple[int, int]] = deque(maxlen=ROWS_REMEMBERED)  # of the lines that ended last
        self._pictures: deque[Plane] = deque(maxlen=2)  # of the samples before

    def observe(self, picture: Plane) -> list[Ended]:
        """Takes the next sample's working picture; returns the lines that have ended."""
        self.sample += 1
        self._picture = picture
        self._operator.observe(picture)
        for track in self.tracks:
            track.observe(picture)
        newborn = self._operator.newborn
        if newborn is not None:
            self.flood = self._operator.count / newborn.size
            for track in self.tracks:
                if track.rising:
                    self._grow(track, newborn)
            # Before lines are looked for: a part of the character that changed may have the shape of one.
            for track in list(self.tracks):
                self._change(track, newborn)
            groups = find_lines(newborn)
            at_home = [group for group in groups[MOST_NEW:] if self._at_home(group)]
            for group in groups[:MOST_NEW] + at_home[:MOST_AT_HOME]:
                self._appear(group, newborn)
        for track in list(self.tracks):
            self._lose_part(track)
            self._age(track)
        self._pictures.append(picture)
        return self._take(self.sample - DELAY)

    def finish(self, end: Fraction) -> list[Ended]:
        """The lines that are still visible when the video ends."""
        for track in self.tracks:
            self._settle(track)
            self._hand_on(track, end)
        self.tracks = []
        return self._take(self.sample)

    def _take(self, sample: int) -> list[Ended]:
        ended = [line for line in self._ended if line.sample <= sample and not self._restless(line)]
        self._ended = [line for line in self._ended if line.sample > sample]
        while self._brief and self._brief[0][0] < sample - 2 * BRIEF:
            self._brief.popleft()
        return ended

    def _restless(self, line: Ended) -> bool:
        """Whether a short line is one of many that came and went around it at that time: a drawing or texture that drifts.
        A short cue stands out from those by its weight."""
        if line.sample - line.born > BRIEF:
            return False
        left, top, right, bottom = line.points.box()
        high = bottom - top
        count = 0
        for sample, weight, box in self._brief:
            near = left - high < box[2] and right + high > box[0]
            near &= top - high < box[3] and bottom + high > box[1]
            then = sample != line.sample and abs(sample - line.sample) <= BRIEF
            count += near and then and weight > 0.25 * line.points.weight()
        return count >= RESTLESS

    # -- how tracks begin ------------------------------------------------------------------------------------------

    def _at_home(self, group: Group) -> bool:
        """Whether a group stands on the rows of a line before it."""
        middle = (group.top + group.bottom) / 2
        for top, bottom in self._rows:
            high = bottom - top
            if abs((top + bottom) / 2 - middle) < 0.25 * high and 0.5 * high < group.height < 1.3 * high:
                return True
        return False

    def _grow(self, track: Track, newborn: Plane) -> None:
        """A line that is fading in takes in the pixels that become visible in and beside it."""
        left, top, right, bottom = track.box
        high = track.height
        self._claim(track, newborn, (left - high, top - high // 6, right + high, bottom + high // 6))

    def _claim(self, track: Track, newborn: Plane, box: tuple[int, int, int, int]) -> None:
        points = points_in(newborn, self._picture, box)
        if len(points):
            track.add(points)
            newborn[points.y, points.x] = 0
            self._operator.claim(points.y, points.x)

    def _appear(self, group: Group, newborn: Plane) -> None:
        """A line-shaped group appeared: a new track, and perhaps the end of the text that stood there."""
        points = points_in(newborn, self._picture, (group.left, group.top, group.right, group.bottom))
        if len(self.tracks) >= MOST_TRACKS or not _balanced(points):
            return
        replaced: list[tuple[Track, Flags]] = []
        for track in list(self.tracks):
            inside = _covered(track, group)
            if inside is None:
                continue
            if track.age > NEWBORN and track.born_again(newborn):
                if _share(track) >= UNCHANGED and track.changed_character() is None:
                    return
                self._end(track, ~track.alive)
                continue
            verdict = _replaces(group, track, inside)
            if verdict is None:
                return
            if verdict:
                replaced.append((track, inside))
        new = Track(points, self.sample)
        self._begin(new, replaced, newborn)
        if self.flood < FLOOD:
            self._extend(new, newborn)

    def _begin(self, new: Track, replaced: list[tuple[Track, Flags]], newborn: Plane) -> None:
        """Starts a track. What still stands of a text that it replaces in part belongs to it, too."""
        for track, inside in replaced:
            stays = track.alive & track.alive_before & ~inside
            if _share(track) >= STANDS or np.count_nonzero(stays) > 0.75 * np.count_nonzero(~inside):
                new.add(track.points[stays], fresh=False)
                new.replaced = ended = self._end(track, inside & ~track.alive, going=TOLD)
            else:
                ended = self._end(track, inside & ~track.alive, going=TOLD)
            if ended is not None:
                new.parted += self._part_siblings(track, ended.end)
        newborn[new.points.y, new.points.x] = 0
        self._operator.claim(new.points.y[new.fresh], new.points.x[new.fresh])
        new.observe(self._picture)
        self.tracks.append(new)

    def _part_siblings(self, track: Track, end: Fraction) -> list[tuple[Track, Ended]]:
        """A line of a cue was replaced: the cue ends, and with it what stays for the next cue, the lines above and below and
        other parts of the same line. Returns those and what was handed on of them."""
        parted = []
        for other in self.tracks:
            together = abs(other.born - track.born) <= 1 and (_stacked(other, track) or _beside(other, track))
            if together and other.start is not None and other.weak == 0:
                parted.append((other, self._hand_on(other, end)))
                other.start, other.prior, other.born = end, 0.0, self.sample
        return parted

    def _extend(self, track: Track, newborn: Plane) -> None:
        """Takes in newborn pixels on the line's rows that are too few to be a group: punctuation, thin characters."""
        left, top, right, bottom = track.box
        reach = track.height
        first, last = max(0, left - 3 * reach), min(newborn.shape[1], right + 3 * reach)
        columns = first + np.flatnonzero(np.count_nonzero(newborn[top:bottom, first:last], axis=0) >= 2)
        for column in columns[columns >= right]:
            if column - right > reach:
                break
            right = int(column) + 1
        for column in columns[columns < left][::-1]:
            if left - column > reach:
                break
            left = int(column)
        if (left, right) != (track.box[0], track.box[2]):
            self._claim(track, newborn, (left, top, right, bottom))

    def _change(self, track: Track, newborn: Plane) -> None:
        """Begins a new track where one character of a line was replaced by another."""
        # A line just born may hold background that goes away: wait until that is forgotten.
        columns = track.changed_character() if track.age > PRUNED else None
        if columns is None or track.born_again(newborn):
            return
        box = (columns[0], track.box[1], columns[1], track.box[3])
        points = points_in(newborn, self._picture, box)
        inside = (track.points.x >= columns[0]) & (track.points.x < columns[1])
        if len(points) >= 0.3 * np.count_nonzero(inside) and _balanced(points):
            self._begin(Track(points, self.sample), [(track, inside)], newborn)

    # -- how tracks end --------------------------------------------------------------------------------------------

    def _age(self, track: Track) -> None:
        if track.start is None and self.sample - track.born > SETTLED:
            self._undo(track)
            self._settle(track)
        track.prune()
        if track.weak < 2:
            return
        stood = track.alive & track.alive_before
        now = track.points.steps(self._picture)
        # Points that still have their full step are text that has lost its background; chance agreement is looser.
        full = stood & (np.abs(now - track.points.step) <= 0.3 * track.points.step)
        inner = track.inner()  # the edges of a box come again with another text in it
        n = int(np.count_nonzero(full & inner))
        least = max(30, FULL * np.count_nonzero(inner), FULL_STOOD * np.count_nonzero(stood & inner))
        if n >= least and track.age >= SETTLED:
            track.keep(stood)
        else:
            self._end(track, ~track.alive)

    def _lose_part(self, track: Track) -> None:
        """Hands on a line that has gone and leaves the scenery which was taken for a part of it."""
        if track.age <= SETTLED or len(self._pictures) < 2:
            return
        part = track.part_gone()
        if part is None:
            return
        gone, compact = part
        points = track.points[gone]
        if changed_around(points.box(), self._pictures[0], self._picture) > GROUND:
            known = compact or self._taken(points)
            if not known or points.unchanged(self._pictures[0], self._picture) >= STILL_THERE:
                return  # perhaps only the ground changed
        self._settle(track)
        assert track.start is not None
        shots = [s for s in self._reel.frames(self.sample - 9, self.sample) if s.time >= track.start]
        before = sum(s.sample < self.sample - 1 for s in shots)
        if not before:
            return
        contrast = Contrast(points, [s.luma for s in shots], self._picture.shape)
        full = median(contrast[i] for i in _sampled(shots, 0, before)[-5:])
        end = shots[last_visible(contrast, before - 1, full)].end
        ended = Ended(points, track.start, end, full, 1.0, track.prior, track.born, self.sample)
        self._ended.append(ended)
        track.keep(~gone, remember=False)

    def _taken(self, points: Points) -> bool:
        """Whether a line that was just born stands where points were."""
        left, top, right, bottom = points.box()
        for track in self.tracks:
            across = min(right, track.box[2]) - max(left, track.box[0])
            down = min(bottom, track.box[3]) - max(top, track.box[1])
            covers = across >= TAKEN * (right - left) and down >= TAKEN * (bottom - top)
            if track.age <= 2 and covers and len(track.points) >= 0.5 * len(points):
                return True
        return False

    def _undo(self, track: Track) -> None:
        """Takes a split back when what had appeared in place of a character has gone: it was background."""
        before = track.replaced
        if before is None or before not in self._ended:
            return
        # Gone for three samples: text may lose its strokes for a moment, where the ground changes.
        stood = (track.alive | track.alive_before | track.alive_long_before) & track.fresh
        if np.count_nonzero(stood) >= 0.5 * np.count_nonzero(track.fresh):
            return
        if np.count_nonzero(~track.fresh) < FEW:
            return  # nothing of the text before is left to be followed
        self._ended.remove(before)
        track.restore(before)
        for other, part in track.parted:
            if other in self.tracks and part in self._ended and other.start == part.end:
                self._ended.remove(part)
                other.start, other.prior, other.born = part.start, part.prior, part.born

    def _settle(self, track: Track) -> None:
        """Finds the first visible frame while the frames around it are still remembered."""
        if track.start is not None:
            return
        shots = self._reel.frames(track.born - 5, min(self.sample, track.born + SETTLED + 1))
        contrast = Contrast(track.points[track.fresh], [s.luma for s in shots], self._picture.shape)
        inside = next((i for i, s in enumerate(shots) if s.sample >= track.born), len(shots) - 1)
        # A brief line may be gone already.
        stood = next((i for i, s in enumerate(shots) if s.sample > self.sample - track.weak), len(shots))
        track.full = median(contrast[i] for i in _sampled(shots, inside, max(stood, inside + 1)))
        first = first_visible(contrast, inside, track.full)
        track.start = shots[first].time
        if track.replaced is not None:
            track.start = track.replaced.end  # what stays of a line that changed was there all the time
        before = [contrast[i] for i in range(max(0, first - 3), first)]
        track.prior = sum(before) / len(before) / max(1.0, track.full) if before else 0.0

    def _end(self, track: Track, vanished: Flags, going: int = 0) -> Ended | None:
        """Finds the last visible frame, by the points that vanished, and hands the line on.

        going: samples at the end in which it was going, at least.
        """
        self.tracks.remove(track)
        if track.age <= BRIEF:
            self._brief.append((self.sample, track.points.weight(), track.box))
        if track.steadiness < STEADY:
            stood = track.stood()
            still = np.count_nonzero(track.alive_before & stood)
            if still < STEADY * np.count_nonzero(stood) and track.age <= BRIEF:
                return None
        self._settle(track)
        if np.count_nonzero(vanished) < FEW:
            vanished = np.ones(len(vanished), bool)
        assert track.start is not None
        shots = [s for s in self._reel.frames(self.sample - 9, self.sample) if s.time >= track.start]
        if not shots:
            return None
        contrast = Contrast(track.points[vanished], [s.luma for s in shots], self._picture.shape)
        before = sum(s.sample < self.sample - max(1, track.weak) for s in shots)
        full = median(contrast[i] for i in _sampled(shots, 0, before)[-5:]) if before else max(contrast)
        last = last_visible(contrast, max(0, before - 1), full)
        return self._hand_on(track, shots[last].end, going)

    def _hand_on(self, track: Track, end: Fraction, going: int = 0) -> Ended:
        assert track.start is not None
        points = track.all_points()
        steady = track.steadiness_before(max(going, track.weak))
        ended = Ended(points, track.start, end, track.full, steady, track.prior, track.born, self.sample)
        self._ended.append(ended)
        if steady >= STEADY and track.age > BRIEF:
            self._rows.append((track.box[1], track.box[3]))
        return ended


def changed_around(box: Box, before: Plane, now: Plane) -> float:
    """Share of the pixels beside, and above or below, a box that are not as bright in one picture as in the other: as far as it
    is high, and on the side of two where less changed, for other parts of the line and other lines of the cue go, too.

    White letters that vanish from white paper leave their bright pixels as they were, as those do that lose their dark ground;
    but the paper stays.
    """
    left, top, right, bottom = box
    high = bottom - top

    def least(*sides: tuple[slice, slice]) -> float:
        pairs = [(before[side], now[side]) for side in sides]
        shares = [
            np.count_nonzero(raster.difference(a, b) > SAME_BRIGHTNESS) / a.size
            for a, b in pairs
            if a.size  # none beyond the edge of the picture
        ]
        return min(shares, default=0.0)

    rows, columns = slice(top, bottom), slice(left, right)
    beside = least((rows, slice(max(0, left - high), left)), (rows, slice(right, right + high)))
    over = least((slice(max(0, top - high), top), columns), (slice(bottom, bottom + high), columns))
    return max(beside, over)


def _sampled(shots: list[Shot], first: int, last: int) -> list[int]:
    """Indices from `first` until before `last` of shots that are samples; `first` is always one."""
    return [i for i in range(first, last) if i == first or shots[i].sample != shots[i - 1].sample]


def _share(track: Track) -> float:
    return int(np.count_nonzero(track.alive)) / len(track.alive)


def _balanced(points: Points) -> bool:
    """Strokes have two sides: as many steps up as down. The edge of a large object has one."""
    return len(points) > 0 and 0.25 < int(np.count_nonzero(points.sign > 0)) / len(points) < 0.75


def _stacked(a: Track, b: Track) -> bool:
    """Whether one track stands right above the other, in letters of the same size."""
    gap = max(a.box[1], b.box[1]) - min(a.box[3], b.box[3])
    beside = min(a.box[2], b.box[2]) <= max(a.box[0], b.box[0])
    high = max(a.height, b.height)
    return bool(not beside and high < 1.35 * min(a.height, b.height) and -0.2 * high < gap < 0.8 * high)


def _beside(a: Track, b: Track) -> bool:
    """Whether two tracks may be parts of one line, which a text before it, or a wide space, had divided."""
    high = max(a.height, b.height)
    rows = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    gap = max(a.box[0], b.box[0]) - min(a.box[2], b.box[2])
    return rows >= 0.8 * high and gap <= PARTS_APART * high


def _covered(track: Track, group: Group) -> Flags | None:
    """The points of a track within a group's box; None when there are too few to matter."""
    left, top, right, bottom = track.box
    rows = min(bottom, group.bottom) - max(top, group.top)
    if rows < 0.5 * min(bottom - top, group.height) or group.right < left or group.left > right:
        return None
    points = track.points
    inside = (points.x >= group.left - 2) & (points.x < group.right + 2)
    inside &= (points.y >= group.top - 2) & (points.y < group.bottom + 2)
    return inside if np.count_nonzero(inside) >= FEW else None


def _replaces(group: Group, track: Track, inside: Flags) -> bool | None:
    """Whether a newborn group replaces (True) the text of a track in its columns, stands beside it (False), or is but
    background within it (None)."""
    n_in = int(np.count_nonzero(inside))
    alive_in = int(np.count_nonzero(track.alive & inside)) / n_in
    beside = None if group.count < 0.5 * n_in else False
    if _share(track) < STANDS:
        # A ground that changes hides strokes, too: whether a long line has gone, a small group does not tell.
        return (alive_in < STANDS and group.count >= SMALL * len(track.points)) or beside
    if track.age <= PRUNED and group.count < 0.7 * len(track.points):
        return beside
    # The rest of the line stands: only a whole character that changed makes it another cue (走吧！ -> 走吗！).
    whole = group.height >= 0.6 * track.height and group.width >= 0.4 * track.height
    whole &= group.count >= 0.5 * n_in
    if alive_in < CHANGED and whole and n_in >= 16:
        return True
    return beside
