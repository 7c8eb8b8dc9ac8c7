"""A track: the stroke pixels of one line that appeared together, followed until they vanish.

A track is a list of points of the stroke plane. Each has a reference step (brightness difference across its stroke
edge at full visibility); a point is alive in a picture when at least half of that step is there. Everything that is
asked of a track (does it still stand, which characters of it changed, how visible is it in this frame) is a mean over
its points, so background, which adds steps of random sign, cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import raster
from tamis.subtitles.raster_native import Pointers
from tamis.subtitles.strokes import STEP_X, STEP_Y

Plane = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int32]
Box = tuple[int, int, int, int]

PRUNED = 6  # samples after which points that do not stand are forgotten
SETTLED = 4  # samples after which a track's start can be told: a fade in is over
RECENT = 24  # samples by which is judged how steady a track is
RISING = 1.08  # a sample's mean step relative to the greatest before, beyond which the text is fading in
SAME_BRIGHTNESS = 32  # of a text's ink, or outline, when the ground changes: no more than that; as in ink.py
CONTRAST_POINTS = 300  # are enough for a mean
# A part of a track that vanishes at once, while the rest stands: the least share of the points that it has, the least share
# of the points in its box that vanish, and the greatest share of those outside.
PART, PART_GONE, REST_GONE = 0.1, 0.75, 0.15
# Of such a part that is known by its shape: width in heights, two characters or more; share of its box that is stroke.
EDGE = 0.2  # of a line's height, within which a caption box has its edges
LINE_WIDE, LINE_FILLED = 1.6, 0.14
AGAIN = 0.6  # share of a track's points that are newborn when all of it has come anew; of another text's, 0.4 at most
# Of two unrelated texts at one place, a sixth to two fifths of the points agree by chance; of the same text, nearly all.
STANDS, CHANGED = 0.5, 0.55


@dataclass(eq=False)
class Points:
    """Stroke pixels: row y, column x, sign (+1 rise, -1 fall) and brightness step (positive), each [n] int32."""

    y: Ints
    x: Ints
    sign: Ints
    step: Ints

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, which: Flags | Ints) -> Points:
        return Points(self.y[which], self.x[which], self.sign[which], self.step[which])

    def joined(self, other: Points) -> Points:
        pairs = ((self.y, other.y), (self.x, other.x), (self.sign, other.sign), (self.step, other.step))
        return Points(*(np.concatenate(pair) for pair in pairs))

    def weight(self) -> float:
        """How much the points look like a line of text: many strong steps, close together. See `lines.Group.weight`."""
        left, top, right, bottom = self.box()
        return float(self.step.sum()) * len(self) / ((right - left) * (bottom - top))

    def box(self) -> Box:
        return int(self.x.min()), int(self.y.min()), int(self.x.max()) + 1, int(self.y.max()) + 1

    def steps(self, picture: Plane) -> Ints:
        """Signed steps of the points in a working picture: about `step` where the text is fully visible."""
        flat = picture.ravel()
        at = self.y * picture.shape[1] + self.x
        across = flat.take(at + STEP_Y * picture.shape[1] + STEP_X).astype(np.int32) - flat.take(at)
        return across * self.sign

    def unchanged(self, before: Plane, now: Plane) -> float:
        """Share of the points whose brighter pixel is as bright in one picture as in the other, or that share of the darker
        pixels, whichever is greater. Text that stands keeps one of the two when the ground behind it changes."""
        first = self.y * now.shape[1] + self.x
        second = first + STEP_Y * now.shape[1] + STEP_X
        rises = self.sign > 0
        shares = []
        for at in (np.where(rises, second, first), np.where(rises, first, second)):
            change = now.ravel().take(at).astype(np.int32) - before.ravel().take(at)
            shares.append(np.count_nonzero(np.abs(change) <= SAME_BRIGHTNESS) / max(1, len(at)))
        return max(shares)


class Contrast(Sequence[float]):
    """Mean signed step of some points in each of some full frames, measured when first asked for.

    working: height and width of the working picture that the points are of.
    """

    def __init__(self, points: Points, frames: Sequence[Plane], working: tuple[int, int]) -> None:
        self._frames = frames
        self._known: dict[int, float] = {}
        if len(points) > CONTRAST_POINTS:
            points = points[np.linspace(0, len(points) - 1, CONTRAST_POINTS).astype(np.int32)]
        self._count = max(1, len(points))
        shape = frames[0].shape if frames else working
        first = _frame_place(points.y, points.x, shape, working)
        second = _frame_place(points.y + STEP_Y, points.x + STEP_X, shape, working)
        rises = points.sign > 0
        self._pointers = Pointers()
        self._brighter = np.where(rises, second[0], first[0]), np.where(rises, second[1], first[1])
        self._darker = np.where(rises, first[0], second[0]), np.where(rises, first[1], second[1])

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> float:  # type: ignore[override]
        if not 0 <= index < len(self._frames):
            raise IndexError(index)
        if index not in self._known:
            frame = self._frames[index]
            if compiled := raster.kernels():
                step = compiled.contrast(frame, self._pointers.of(*self._brighter, *self._darker))
            else:  # sums of unsigned bytes: exact, and far cheaper than signed differences
                step = int(frame[self._brighter].sum()) - int(frame[self._darker].sum())
            self._known[index] = step / self._count
        return self._known[index]


def _frame_place(
    y: Ints, x: Ints, shape: tuple[int, ...], working: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Frame pixel in the middle of each pixel of the working picture."""
    down, across = shape[0] / working[0], shape[1] / working[1]
    return ((y + 0.5) * down).astype(np.intp), ((x + 0.5) * across).astype(np.intp)


def points_in(newborn: Plane, picture: Plane, box: Box) -> Points:
    """The stroke pixels of `newborn` inside a box (clipped to the plane)."""
    left, top = max(0, box[0]), max(0, box[1])
    y, x = np.nonzero(newborn[top : max(top, box[3]), left : max(left, box[2])])
    rows, columns = (y + top).astype(np.int32), (x + left).astype(np.int32)
    across = picture[rows + STEP_Y, columns + STEP_X].astype(np.int32) - picture[rows, columns]
    signs = np.where(across >= 0, 1, -1).astype(np.int32)
    return Points(rows, columns, signs, newborn[rows, columns].astype(np.int32))


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """A line that has come and gone.

    share     of its points that stood, median over its samples
    prior     its contrast just before it came, as a share of the full contrast (a logo that was only dimmed has it)
    born      number of the sample at which it was first seen
    sample    number of the sample at which the end was seen
    """

    points: Points
    start: Fraction
    end: Fraction
    contrast: float
    share: float
    prior: float
    born: int
    sample: int


@dataclass(eq=False)
class Track:
    """born: number of the sample at which it was first seen; its points stand in that sample and the one before."""

    points: Points
    born: int
    box: Box = field(init=False)
    # points that appeared with this track, not inherited from the text before
    fresh: Flags = field(init=False)
    alive: Flags = field(init=False)
    alive_before: Flags = field(init=False)
    alive_long_before: Flags = field(init=False)  # the sample before that
    # share of points alive, per sample of late since points were last forgotten
    share: list[float] = field(default_factory=list)
    age: int = 0  # samples observed
    weak: int = 0  # samples in a row with less than `STANDS` of the points alive
    rising: bool = False  # fading in: stronger than in any sample before
    start: Fraction | None = None  # time of the first visible frame, once known
    full: float = 0.0  # contrast when fully shown
    prior: float = 0.0  # contrast just before the start, as a share of `full`
    replaced: Ended | None = None  # the line of which it changed a part
    parted: list[tuple[Track, Ended]] = field(default_factory=list)  # tracks that were parted with that line

    def __post_init__(self) -> None:
        self.box = self.points.box()
        self.alive = self.alive_before = self.alive_long_before = self.fresh = np.ones(len(self.points), bool)
        self._stood = np.zeros(len(self.points), np.int32)  # samples of late in which each point was alive
        self._counted = 0  # those samples
        self._life = np.zeros(len(self.points), np.int32)  # samples in all
        self._pointers = Pointers()
        self._forgotten: list[tuple[Points, Ints]] = []  # points that were dropped, with their lives
        self._level = float(self.points.step.mean())

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]

    def observe(self, picture: Plane) -> None:
        """Looks at the next sample: which points are alive, and while fading in, how strong they become."""
        self.alive_long_before, self.alive_before = self.alive_before, self.alive
        number = len(self.alive)
        if compiled := raster.kernels():
            p = self.points
            pointers = self._pointers.of(p.y, p.x, p.sign, p.step, self._stood, self._life)
            self.alive = np.empty(number, bool)
            count, total = compiled.steps(picture, pointers, self.alive)
        else:
            now = self.points.steps(picture)
            self.alive = 2 * now >= self.points.step
            self._stood += self.alive
            self._life += self.alive
            count, total = int(np.count_nonzero(self.alive)), int(now.sum())
        self._counted += 1
        share, level = count / number, total / number
        self.age += 1
        self.rising = bool(self.age <= 2 * SETTLED and level > RISING * self._level and share > 0.7)
        self._level = max(self._level, level)
        if self.rising:
            self.points.step = np.maximum(self.points.step, self.points.steps(picture))
        self.share.append(share)
        self.weak = self.weak + 1 if share < STANDS else 0

    def add(self, more: Points, fresh: bool = True) -> None:
        self.points = self.points.joined(more)
        here = np.ones(len(more), bool)
        self.alive = np.concatenate([self.alive, here])
        self.alive_before = np.concatenate([self.alive_before, here])
        self.alive_long_before = np.concatenate([self.alive_long_before, here])
        self.fresh = np.concatenate([self.fresh, here & fresh])
        self._stood = np.concatenate([self._stood, np.full(len(more), self._counted, np.int32)])
        self._life = np.concatenate([self._life, np.full(len(more), self.age, np.int32)])
        self.box = self.points.box()

    def keep(self, which: Flags, *, remember: bool = True) -> None:
        """Follows only these points from now on. remember: the others may have been text that the ground hides."""
        if remember:
            self._forgotten.append((self.points[~which], self._life[~which]))
        self._life = self._life[which]
        self.points, self.fresh = self.points[which], self.fresh[which]
        self.alive, self.alive_before = self.alive[which], self.alive_before[which]
        self.alive_long_before = self.alive_long_before[which]
        self._stood = np.zeros(len(self.points), np.int32)
        self._counted = 0
        self.share = []
        self.box = self.points.box()
        self.weak = 0

    def prune(self) -> None:
        """Forgets points that mostly did not stand of late: background that moved, edges that it made with the text."""
        if self._counted < PRUNED or min(self.share[-3:]) < STANDS:
            return  # just after a pause, points that do not stand tell that another text has come
        steady = self._stood >= 0.6 * self._counted
        if 0.3 * len(steady) <= np.count_nonzero(steady) < 0.97 * len(steady):
            self.keep(steady)
        self._stood[:] = 0
        self._counted = 0
        self.share = self.share[-RECENT:]

    def stood(self) -> Flags:
        """The points that stood in most samples before the line was going; all, when those are few."""
        steady = self._stood >= 0.6 * max(1, self._counted - self.weak)
        return steady if np.count_nonzero(steady) >= 0.3 * len(steady) else np.ones(len(steady), bool)

    def inner(self) -> Flags:
        """The points well inside of the line, where no edges of a caption box are; all, when those are few."""
        left, top, right, bottom = self.box
        margin = EDGE * (bottom - top)
        inside = (self.points.y >= top + margin) & (self.points.y < bottom - margin)
        inside &= (self.points.x >= left + margin) & (self.points.x < right - margin)
        return inside if np.count_nonzero(inside) >= 0.3 * len(inside) else np.ones(len(inside), bool)

    def all_points(self) -> Points:
        """The points, and those forgotten that had stood for half of the time: text that the ground hid later."""
        points = self.points
        for forgotten, life in self._forgotten:
            points = points.joined(forgotten[life >= 0.5 * self.age])
        return points

    def restore(self, before: Ended) -> None:
        """Takes back that this track replaced another: goes on as that one, without what had come."""
        self.keep(~self.fresh)
        self._forgotten.append((before.points, np.full(len(before.points), 1 << 30, np.int32)))
        self.start, self.full, self.prior = before.start, before.contrast, before.prior
        self.born = before.born

    @property
    def steadiness(self) -> float:
        """Share of the points that stand: the median over samples, leaving out those in which the line was going."""
        return self.steadiness_before(self.weak)

    def steadiness_before(self, samples: int) -> float:
        """The same, leaving out so many samples at the end."""
        body = self.share[: len(self.share) - samples] or [1.0]
        return sorted(body)[len(body) // 2]

    def changed_character(self) -> tuple[int, int] | None:
        """Columns (left, right) of a character that vanished at the sample before last while most of the line stands."""
        if not self.share or not STANDS <= self.share[-1] <= 0.985 or self.age < 3:
            return None
        em = max(8, self.height)
        bins = (self.points.x - self.box[0]) // max(1, em // 4)
        count = np.bincount(bins)
        dead = np.bincount(bins, weights=~self.alive & ~self.alive_before, minlength=len(count))
        window = np.ones(min(4, len(count)))
        in_window, dead_in = np.convolve(count, window, "valid"), np.convolve(dead, window, "valid")
        share = np.where(in_window >= max(16, 0.3 * in_window.mean()), dead_in / np.maximum(1, in_window), 0)
        at = int(np.argmax(share))
        outside = max(1, len(bins) - in_window[at])
        if share[at] < 1 - CHANGED or (dead.sum() - dead_in[at]) / outside > 0.25:
            return None
        left = self.box[0] + at * (em // 4)
        return left, left + em

    def born_again(self, newborn: Plane) -> bool:
        """Whether most points have come anew: they were hidden in one sample, by a pause between two texts, or a flash.

        newborn: the operator's, of which what this track holds was claimed.
        """
        again = newborn[self.points.y, self.points.x] > 0
        return bool(np.count_nonzero(again & self.alive) >= AGAIN * len(again))

    def part_gone(self) -> tuple[Flags, bool] | None:
        """The points of a part of the track that vanished at the sample before last while the rest stands: text that was
        taken for one line with scenery which appeared in the same moment, as at a scene cut. And whether all within the part
        vanished: where scenery stands in it as well, it has the shape of a line of its own, which another ground can do, too."""
        gone = self._just_gone()
        if gone is None:
            return None
        left, top, right, bottom = _trimmed(self.points[gone])
        inside = (self.points.x >= left) & (self.points.x <= right)
        inside &= (self.points.y >= top) & (self.points.y <= bottom)
        n_inside = np.count_nonzero(inside)
        n_outside = len(inside) - n_inside
        # In both samples: what was gone for one came with another text, as the edges of its box do.
        stands = np.count_nonzero(~(self.alive & self.alive_before) & ~inside) <= REST_GONE * n_outside
        if not stands or n_outside < PART * len(inside):
            return None
        if np.count_nonzero(gone & inside) >= PART_GONE * n_inside:
            return gone, True
        wide, high = right - left + 1, bottom - top + 1
        shaped = wide >= LINE_WIDE * high and np.count_nonzero(gone) >= LINE_FILLED * wide * high
        return (gone, False) if shaped else None

    def _just_gone(self) -> Flags | None:
        """The points that vanished at the sample before last; None where they are few."""
        lost = np.count_nonzero(self.alive_long_before) - np.count_nonzero(self.alive)
        if lost < PART / 2 * len(self.alive):
            return None
        gone = self.alive_long_before & ~self.alive_before & ~self.alive
        return gone if np.count_nonzero(gone) >= max(40, PART * len(gone)) else None


def _trimmed(points: Points) -> Box:
    """First and last column and row of all but a fiftieth of the points at each side: (left, top, right, bottom)."""
    x, y = np.sort(points.x), np.sort(points.y)
    first, last = len(x) // 50, len(x) - 1 - len(x) // 50
    return int(x[first]), int(y[first]), int(x[last]), int(y[last])
