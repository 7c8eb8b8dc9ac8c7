"""Which rows of a candidate cue hold lines: the character networks judge what the strokes alone leave open.

Two lines that stand close, or a line that a drawing touches, are one group of strokes. The detector then offers every
row that may hold a line (`CueImage.others`). Rows that hold one show decided centres of characters; rows between two
lines, or across a drawing, do not. And which characters they are can only be told when a strip is centred to about a tenth
of SCW. So of rows that overlap, the one with most characters, most surely told, is a line; and rows that were chosen among
offered ones are moved to where the classes are surest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from tamis.subtitles import scripts
from tamis.subtitles.cue import Box
from tamis.subtitles.detect import LineImage
from tamis.subtitles.recognise import Glance, Recogniser, Sighting

LEAST_DECIDED = 0.35  # lines below are dropped before their classes are scored; see `decided`
DOUBT = 0.05  # by which the first member may be less decided than all
SOME = 0.5  # `characters` of a line that is looked at more closely
APART = 0.8  # SCW between the rows of two lines, at least
CLEAR = 0.93  # `sureness` of lines whose size cannot be far off
SCALES = (0.88, 1.13)  # other sizes that are tried where lines are not clear
KNOWN = 0.8  # mean `sureness` of the lines of a style that was clearly read
BETTER = 1.03  # by which lines must be surer in another size or polarity
ENOUGH = 4  # lines that tell the size of a style
SAME_SIZE = 0.07  # relative difference
LEAST_CHARACTERS, LEAST_SURE = 2.0, 0.6  # of a line that tells a size; scenery is less
HOPELESS = 0.2  # `sureness` of what is no text, moved or in another size
HOPEFUL = 0.6  # `decided` of a row beside which text may stand
MIXED = 0.7  # of what a row is worth that is not set in the size of the clearest one
COARSE = 0.45  # SCW between the rows that are looked at first
MOVES = (-0.24, -0.12, 0.12, 0.24)  # SCW by which a chosen row is moved


@dataclass(eq=False)
class Looked:
    """A line and what the networks see in it. offered: not where the strokes told, see `CueImage.others`.

    One member looks first, and lines are compared by what it sees. The others, twice as much work, look at lines that may
    be text and stay.
    """

    image: LineImage
    recogniser: Recogniser
    offered: bool = False

    @cached_property
    def glance(self) -> Glance:
        """What the first member sees."""
        return self.recogniser.glance(self.image.pixels)

    @cached_property
    def sighting(self) -> Sighting:
        """What all members see."""
        return self.recogniser.sight(self.image.pixels, self.glance)

    @cached_property
    def likely(self) -> float:
        """`sureness` of the first member: not cheap, asked for only where lines are compared."""
        return sureness(self.glance.sighting, self.recogniser)

    @cached_property
    def sure(self) -> float:
        """`sureness` of all."""
        return sureness(self.sighting, self.recogniser)

    @property
    def decided(self) -> float:
        return decided(self.glance.sighting)

    @property
    def characters(self) -> float:
        return characters(self.glance.sighting)


@dataclass(eq=False)
class _Style:
    """Letters of one size: what was measured, px, and how sure the networks were of each scale, summed over lines."""

    scw: float
    lines: int = 0
    sure: dict[float, float] = field(default_factory=lambda: dict.fromkeys((1.0, *SCALES), 0.0))

    def scale(self) -> float:
        best = max(self.sure, key=lambda scale: self.sure[scale])
        return best if self.sure[best] > BETTER * self.sure[1.0] else 1.0


class Sizes:
    """What size and polarity the letters of a clip are best read in, as its first lines tell.

    Pitch and ink height give the character width of faces of usual shape. In narrow, wide or spaced ones they
    contradict each other, and the networks tell which size they know letters by. They tell bright text with a dark outline
    from dark text as well, which drawings on a bright ground, all of them dark, would decide otherwise.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser
        self._styles: list[_Style] = []
        self._polarity = {1: 0.0, -1: 0.0}  # how sure the networks were of each, summed over lines

    @property
    def learnt_nothing(self) -> bool:
        return not self._styles

    def cut(self, image: LineImage) -> LineImage:
        """The line in the polarity of the clip and in the size of its style, as far as those are known."""
        if self._polarity[-image.polarity] > BETTER * self._polarity[image.polarity]:
            image = image.turned()
        style = self._style(image.scw)
        scale = style.scale() if style is not None else 1.0
        return image if scale == 1.0 else image.cut(0.0, scale)

    def learn(self, image: LineImage, looked: Looked) -> bool:
        """Takes a line into account; whether that changed the size or polarity in which it is to be cut.

        image: as it was measured; looked: perhaps in a size or polarity that was learnt before.
        """
        style = self._style(image.scw)
        if looked.characters < LEAST_CHARACTERS or (style is not None and style.lines >= ENOUGH):
            return False
        if looked.image is not image:
            looked = Looked(image, self._recogniser)
        turned = Looked(image.turned(), self._recogniser)
        best = max((looked, turned), key=lambda line: line.likely)
        sure = {1.0: best.likely}
        if sure[1.0] < HOPELESS:
            return False  # scenery in any size
        if best.sure < CLEAR:
            for scale in SCALES:
                sure[scale] = Looked(best.image.cut(0.0, scale), self._recogniser).likely
        if max(sure.values()) < LEAST_SURE:
            return False  # scenery
        cut_before = self.cut(image)
        self._polarity[image.polarity] += looked.likely
        self._polarity[-image.polarity] += turned.likely
        if style is None:
            style = _Style(image.scw)
            self._styles.append(style)
        style.lines += 1
        for scale, value in sure.items():
            style.sure[scale] += value
        now = self.cut(image)
        return (now.scw, now.polarity) != (cut_before.scw, cut_before.polarity)

    def known(self) -> list[float]:
        """Widths of a character, px of the frame, in which lines were clearly read."""
        scales = [(style, style.scale()) for style in self._styles]
        return [style.scw * scale for style, scale in scales if style.sure[scale] >= KNOWN * style.lines]

    def _style(self, scw: float) -> _Style | None:
        near = (style for style in self._styles if abs(scw / style.scw - 1) < SAME_SIZE)
        return min(near, key=lambda style: abs(scw / style.scw - 1), default=None)


def decided(sighting: Sighting) -> float:
    """How sure the networks are of where characters are: the mean of P(centre), weighted by itself. 0 for an empty line.

    Cheap, for it needs no classes. On development clips lines of text have 0.96 (median), scenery 0.46.
    """
    return float((sighting.mass**2).sum() / max(1e-6, sighting.mass.sum()))


def characters(sighting: Sighting) -> float:
    """About how many characters are surely there; doubtful ones (P(centre) below one half) count against them."""
    return float((sighting.mass * (2 * sighting.mass - 1)).sum())


def arrange(
    lines: Sequence[LineImage],
    others: Sequence[LineImage],
    recogniser: Recogniser,
    sizes: Sizes | None = None,
) -> list[Looked]:
    """The lines of a candidate cue that look like text, top to bottom, no two of them on one spot.

    sizes: what is known of the clip's letters; it learns from these lines.
    """
    sizes = sizes or Sizes(recogniser)

    def look(image: LineImage, offered: bool) -> Looked:
        return Looked(sizes.cut(image), recogniser, offered)

    def look_and_learn(image: LineImage) -> Looked:
        line = look(image, False)
        return look(image, False) if sizes.learn(image, line) else line

    looked = [look_and_learn(image) for image in lines]
    # Where a line is clear, none of the rows that overlap it could take its place.
    doubtful = [
        image
        for image in others
        if not any(overlap(image, line.image) and _is_clear(line) for line in looked)
    ]
    # Scenery shows itself at every other row: those between are looked at only beside one that may be text.
    first, between = _every_other(doubtful)
    looked += [look(image, True) for image in first]
    hopeful = [line for line in looked if line.decided >= HOPEFUL and line.characters > SOME]
    near = [image for image in between if any(overlap(image, line.image) for line in hopeful)]
    looked += [look(image, True) for image in near]
    read = [line for line in looked if line.characters >= LEAST_CHARACTERS and line.likely >= KNOWN]
    looked = [
        _moved(line)
        if line.characters <= SOME and any(_alike(line.image, other.image) for other in read)
        else line
        for line in looked
    ]
    looked = [line for line in looked if line.decided >= LEAST_DECIDED - DOUBT]
    chosen = _apart(looked)
    if any(line.offered for line in chosen):
        chosen = _apart([centred(line, recogniser) for line in chosen])
    if sizes.learnt_nothing:
        changed = [sizes.learn(line.image, line) for line in chosen]
        if any(changed):
            chosen = [Looked(sizes.cut(line.image), recogniser, line.offered) for line in chosen]
    chosen = [line for line in chosen if decided(line.sighting) >= LEAST_DECIDED]
    return sorted(chosen, key=lambda line: (line.image.box[1], line.image.box[0]))


def _apart(looked: list[Looked]) -> list[Looked]:
    """The lines without those that overlap one which shows more characters, more surely. The lines of a cue are mostly set in
    one size, that of its clearest."""
    if not any(overlap(a.image, b.image) for i, a in enumerate(looked) for b in looked[:i]):
        return looked

    def worth(line: Looked) -> float:
        count = line.characters
        sure = line.likely if count > SOME else 0.0
        return sure * count if sure else min(0.0, count) - 1

    worths = {id(line): worth(line) for line in looked}
    clearest = max(looked, key=lambda line: worths[id(line)])
    for line in looked:
        if worths[id(line)] > 0 and abs(line.image.scw / clearest.image.scw - 1) >= SAME_SIZE:
            worths[id(line)] *= MIXED
    chosen: list[Looked] = []
    for line in sorted(looked, key=lambda line: worths[id(line)], reverse=True):
        if not any(overlap(line.image, other.image) for other in chosen):
            chosen.append(line)
    return chosen


def _every_other(images: Sequence[LineImage]) -> tuple[list[LineImage], list[LineImage]]:
    """Rows that lie COARSE apart, and those between them; rows of letters of other sizes say nothing about each other."""
    first: list[LineImage] = []
    between: list[LineImage] = []
    for image in sorted(images, key=lambda image: _middle(image.box)):
        alike = (o for o in first if abs(o.scw / image.scw - 1) < SAME_SIZE)
        beside = (o for o in alike if min(o.box[2], image.box[2]) > max(o.box[0], image.box[0]))
        close = any(abs(_middle(o.box) - _middle(image.box)) < COARSE * image.scw for o in beside)
        (between if close else first).append(image)
    return first, between


def _is_clear(line: Looked) -> bool:
    if line.decided < CLEAR - DOUBT or line.characters <= SOME or line.likely < HOPELESS:
        return False
    return decided(line.sighting) >= CLEAR and characters(line.sighting) > SOME and line.sure >= CLEAR


def centred(line: Looked, recogniser: Recogniser) -> Looked:
    """A line that was offered, moved up or down to where the classes of its characters are surest."""
    if not line.offered or line.characters <= SOME or line.likely < HOPELESS:
        return line  # no text: scenery is as good as any
    moved = [Looked(line.image.cut(down, 1.0), recogniser, offered=True) for down in MOVES]
    return max([line, *moved], key=lambda line: line.likely)


def _moved(line: Looked) -> Looked:
    """A line of the size of one that was read in the same cue, in which no characters are seen, moved up or down to where most
    are, most surely: drawings beside a short line move its rows."""
    moved = [Looked(line.image.cut(down, 1.0), line.recogniser, line.offered) for down in MOVES]
    return max([line, *moved], key=lambda one: one.characters * one.likely if one.characters > SOME else 0.0)


def _alike(a: LineImage, b: LineImage) -> bool:
    return abs(a.scw / b.scw - 1) < SAME_SIZE


def sureness(sighting: Sighting, recogniser: Recogniser) -> float:
    """Mean probability, over the characters that are there, of the best class of each, among the commoner
    characters of all scripts: rare ones seldom decide which rows or which size is right, and would cost four times as much."""
    there = sighting.mass > 0.5
    if not there.any():
        return 0.0
    sure = sighting.only(there)
    best = np.exp(recogniser.surest(sure, scripts.common()))
    return float(np.mean(sure.mass * best)) * decided(sighting)


def overlap(a: LineImage, b: LineImage) -> bool:
    """Whether two lines cannot both be there: their columns overlap, and their rows are nearer than two lines can be."""
    distance = abs(_middle(a.box) - _middle(b.box))
    columns = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    return columns > 0 and distance < APART * 0.5 * (a.scw + b.scw)


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2
