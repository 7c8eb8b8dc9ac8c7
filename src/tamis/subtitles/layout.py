"""Which rows of a candidate cue hold lines: the character networks judge what the strokes alone leave open.

Two lines that stand close, or a line that a drawing touches, are one group of strokes. The detector then offers every
row that may hold a line (`CueImage.others`). Rows that hold one show decided centres of characters; rows between two
lines, or across a drawing, do not. Of rows that overlap, the one with most decided characters is a line.

Which characters they are can only be told when a strip is centred to about a tenth of SCW, so rows that were chosen among
offered ones are moved to where the classes are surest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tamis.subtitles.cue import Box
from tamis.subtitles.detect import LineImage
from tamis.subtitles.recognise import Recogniser, Sighting

LEAST_DECIDED = 0.35  # lines below are dropped before their classes are scored; see `decided`
FIRST_GUESS = 1.05  # by which the row that the strokes tell is preferred to one that was only offered
APART = 0.8  # SCW between the rows of two lines, at least
MOVES = (-0.24, -0.12, 0.12, 0.24)  # SCW by which a chosen row is moved


@dataclass(frozen=True, slots=True)
class Looked:
    """A line and what the networks see in it. offered: not where the strokes told, see `CueImage.others`."""

    image: LineImage
    sighting: Sighting
    offered: bool = False


def decided(sighting: Sighting) -> float:
    """How sure the networks are of where characters are: the mean of P(centre), weighted by itself. 0 for an empty line.

    Cheap, for it needs no classes. On development clips lines of text have 0.96 (median), scenery 0.46.
    """
    return float((sighting.mass**2).sum() / max(1e-6, sighting.mass.sum()))


def characters(sighting: Sighting) -> float:
    """About how many characters are surely there; doubtful ones (P(centre) below one half) count against them."""
    return float((sighting.mass * (2 * sighting.mass - 1)).sum())


def arrange(lines: Sequence[LineImage], others: Sequence[LineImage], recogniser: Recogniser) -> list[Looked]:
    """The lines of a candidate cue that look like text, top to bottom, no two of them on one spot."""
    looked = [Looked(image, recogniser.sight(image.pixels)) for image in lines]
    looked += [Looked(image, recogniser.sight(image.pixels), offered=True) for image in others]
    looked = [line for line in looked if decided(line.sighting) >= LEAST_DECIDED]
    if len(looked) < 2:
        return looked

    def worth(line: Looked) -> float:
        return characters(line.sighting) * (1.0 if line.offered else FIRST_GUESS)

    chosen: list[Looked] = []
    for line in sorted(looked, key=worth, reverse=True):
        if not any(overlap(line.image, other.image) for other in chosen):
            chosen.append(line)
    chosen = [centred(line, recogniser) if line.offered else line for line in chosen]
    return sorted(chosen, key=lambda line: (line.image.box[1], line.image.box[0]))


def centred(line: Looked, recogniser: Recogniser) -> Looked:
    """The line, moved up or down to where the classes of its characters are surest."""
    if characters(line.sighting) <= 0.5:
        return line  # no text: scenery is as good as any
    moved = [line]
    for down in MOVES:
        image = line.image.cut(down, 1.0)
        moved.append(Looked(image, recogniser.sight(image.pixels), offered=True))
    return max(moved, key=lambda line: sureness(line.sighting, recogniser))


def sureness(sighting: Sighting, recogniser: Recogniser) -> float:
    """Mean probability, over the characters that are there, of the best class of each; in any script."""
    there = sighting.mass > 0.5
    if not there.any():
        return 0.0
    lattice = recogniser.lattice(sighting)
    return float(np.mean(sighting.mass[there] * np.exp(lattice.log_class[there, 0]))) * decided(sighting)


def overlap(a: LineImage, b: LineImage) -> bool:
    """Whether two lines cannot both be there: their columns overlap, and their rows are nearer than two lines can be."""
    distance = abs(_middle(a.box) - _middle(b.box))
    columns = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    return columns > 0 and distance < APART * 0.5 * (a.scw + b.scw)


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2
