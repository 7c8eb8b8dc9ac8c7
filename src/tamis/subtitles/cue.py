"""The records that the subtitle reader produces: a cue, its lines, its characters.

Times are exact seconds (`fractions.Fraction`), taken from presentation timestamps, so that nothing drifts on a
film of any length or rate. Boxes are pixels of the upright frame, (left, top, right, bottom), right and bottom
exclusive, y down.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Character:
    """One recognised character. `confidence` is a calibrated probability in [0, 1]."""

    text: str
    confidence: float
    box: Box


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a cue, left to right."""

    characters: tuple[Character, ...]
    box: Box

    @property
    def text(self) -> str:
        return "".join(character.text for character in self.characters)


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle. Visible from `start` until just before `end` (last visible frame + one frame).

    `confidence` is a calibrated probability in [0, 1] that the whole text is right. `picture` is a PNG of the merged
    frames around the text (for the review page), empty when not asked for.
    """

    start: Fraction
    end: Fraction
    lines: tuple[Line, ...]
    confidence: float
    picture: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)
