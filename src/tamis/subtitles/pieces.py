"""Pieces of cues put together: one subtitle is one cue, however often the ground behind it hid a part of it.

A ground that changes tears a text in time, into the whole and pieces of it, or in space, into lines; a drawing behind it leaves
pieces that outlive it. What two pieces share is where their characters stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from tamis.subtitles.cue import Box, Cue, Line
from tamis.subtitles.detect import SAME_TIME

MOST_SHARED_S = Fraction(2, 5)  # by which the times of one cue and the next on its spot may be off
NEAR_S = 60.0  # between the starts of what may be pieces of one text, or beside them: three times what a text stands at most
HIDDEN_S = Fraction(1, 2)  # for which a text may be hidden between two of its pieces
LEAST_PIECE = 2  # characters by which a piece is known
SURE = 0.65  # confidence of a character that is another than the one in its place
AS_SURE = 0.95  # confidence, as a share, of a cue that is the same as a surer one
SAME_PLACE = 0.4  # character widths between the places of one and the same character


def whole(cues: Sequence[Cue]) -> list[Cue]:
    """The cues that were read, in order of time, without and instead of pieces."""
    return joined(stacked(shared(without_fragments(mended(without_drawings(cues))))))


def without_drawings(cues: Sequence[Cue]) -> list[Cue]:
    """Cues but those that are there when the words they show are not: a drawing that was there before a text, or stays behind the
    next one, is merged with it. The words are known from a cue within that time, and another one stands beside that on its spot.
    """
    near = _Near(cues)
    return [
        cue
        for cue in cues
        if not any(
            other is not cue
            and near(other, cue)
            and other.text == cue.text
            and _same_spot(other, cue)
            and cue.start - SAME_TIME <= other.start
            and other.end <= cue.end + SAME_TIME
            and any(
                near(third, cue) and _contradicts(third, cue) and _shared_s(third, other) <= SAME_TIME
                for third in cues
            )
            for other in cues
        )
    ]


def _contradicts(a: Cue, b: Cue) -> bool:
    """Whether two cues are there at one time on one spot, in other words."""
    other_words = a.text not in b.text and b.text not in a.text
    return other_words and _shared_s(a, b) > MOST_SHARED_S and _same_spot(a, b)


def mended(cues: Sequence[Cue]) -> list[Cue]:
    """Cues that last as long as any piece of them is seen: the pieces follow them closely, or each other."""
    result: list[Cue] = []
    near = _Near(cues)
    rest = sorted(cues, key=lambda cue: (-len(cue.text), cue.start))
    while rest:
        longest = first = rest.pop(0)
        around = [cue for cue in cues if near(cue, first)]
        # What was there beside the whole and outlives it is the drawing behind it; what stands beside another text, which is
        # no piece of this one, is a piece of that.
        others = [cue for cue in around if cue is not first and not _placed_in(cue, first)]
        pieces = [
            cue
            for cue in rest
            if near(cue, first)
            and _shared_s(first, cue) <= SAME_TIME
            and _placed_in(cue, first)
            and not any(
                len(other.text) > len(cue.text)
                and _shared_s(other, cue) > SAME_TIME
                and _same_spot(other, cue)
                for other in others
            )
        ]
        while (piece := next((piece for piece in pieces if _continues(longest, piece)), None)) is not None:
            pieces.remove(piece)
            rest.remove(piece)
            longest = replace(longest, start=min(longest.start, piece.start), end=max(longest.end, piece.end))
        result.append(longest)
    return result


class _Near:
    """Whether two cues begin within NEAR_S of each other. Fractions are slow: a film of hours has a million pairs."""

    def __init__(self, cues: Sequence[Cue]) -> None:
        self._cues = cues  # alive, so that no other has the id of one of them
        self._at = {id(cue): float(cue.start) for cue in cues}

    def __call__(self, a: Cue, b: Cue) -> bool:
        return abs(self._start(a) - self._start(b)) <= NEAR_S

    def _start(self, cue: Cue) -> float:
        known = self._at.get(id(cue))
        return float(cue.start) if known is None else known


def _shared_s(a: Cue, b: Cue) -> Fraction:
    """Time for which both are shown; negative: between them."""
    return min(a.end, b.end) - max(a.start, b.start)


def _continues(cue: Cue, piece: Cue) -> bool:
    """Whether a piece of a cue's text comes right before or after it.

    What begins before the cue may be a text that grows, which is another cue: not where it stands as no text is set by itself.
    """
    if _shared_s(cue, piece) < -HIDDEN_S:
        return False
    places = [next(line for line in cue.lines if _rows(line.box, part.box)) for part in piece.lines]
    pairs = list(zip(piece.lines, places, strict=True))
    if len(piece.lines) < len(cue.lines) and all(len(_inked(a)) == len(_inked(b)) for a, b in pairs):
        return False  # a line of several may come or go by itself
    earlier = piece.start < cue.start - SAME_TIME and len(piece.text) < len(cue.text)
    return not (earlier and any(_begins(part, line) for part, line in pairs))


def _placed_in(piece: Cue, cue: Cue) -> bool:
    """Whether all lines of one cue are parts of lines of another, at their very places."""
    return all(
        any(_rows(line.box, part.box) and _part_of(part, line) for line in cue.lines) for part in piece.lines
    )


def _inked(line: Line) -> list[tuple[str, float, float]]:
    """Characters, where they are centred, px, and their confidences."""
    return [
        (c.text, (c.box[0] + c.box[2]) / 2, c.confidence) for c in line.characters if not c.text.isspace()
    ]


def _part_of(part: Line, line: Line) -> bool:
    """Whether nearly all characters of one line stand at the same places of another, and none is surely another there: lines
    that differ in one character are neighbours, not pieces."""
    pieces, others = _inked(part), _inked(line)
    near = SAME_PLACE * 0.8 * (line.box[3] - line.box[1])  # a line's box is 1.25 characters high
    same = 0
    for text, x, confidence in pieces:
        there = [(other, sure) for other, at, sure in others if abs(x - at) <= near]
        if any(other == text for other, _ in there):
            same += 1
        elif confidence >= SURE and (not there or max(sure for _, sure in there) >= SURE):
            return False
    return same >= max(LEAST_PIECE, 0.8 * len(pieces))


def _begins(part: Line, line: Line) -> bool:
    """Whether a part is the first characters of a line."""
    same = _inked(part)[0][0] == _inked(line)[0][0]
    return same and abs(part.box[0] - line.box[0]) <= 0.5 * (line.box[3] - line.box[1])


def joined(cues: Sequence[Cue], gap: Fraction = Fraction(1, 10)) -> list[Cue]:
    """Cues in order, with pieces of one subtitle put together: same words, same place, next to no time between."""
    result: list[Cue] = []
    for cue in cues:
        last = result[-1] if result else None
        if (
            last is not None
            and last.text == cue.text
            and cue.start - last.end <= gap
            and _rows(last.lines[0].box, cue.lines[0].box)
        ):
            better = last if last.confidence >= cue.confidence else cue
            result[-1] = Cue(
                last.start, max(last.end, cue.end), better.lines, better.confidence, better.picture
            )
        else:
            result.append(cue)
    return result


def stacked(cues: Sequence[Cue]) -> list[Cue]:
    """Cues of which none is a line of another: what begins and ends with a line right above or below belongs to it.

    Detection tells so by the strokes' boxes, which touch or overlap where a drawing joins them.
    """
    result: list[Cue] = []
    near = _Near(cues)
    for cue in cues:
        for i, other in enumerate(result):
            if not near(cue, other):
                continue
            together = abs(cue.start - other.start) <= SAME_TIME and abs(cue.end - other.end) <= SAME_TIME
            if together and _beside(cue, other):
                longer, shorter = sorted((other, cue), key=lambda part: -len(part.text))
                result[i] = _both(longer, shorter)
                break
        else:
            result.append(cue)
    return sorted(result, key=lambda cue: (cue.start, cue.end))


def shared(cues: Sequence[Cue]) -> list[Cue]:
    """Cues of which a line that stays while the one above or below it changes belongs to each: it begins with the first of
    those and ends with the last."""
    result = list(cues)
    near = _Near(cues)
    for cue in cues:
        beside = [
            other
            for other in result
            if other is not cue
            and near(other, cue)
            and _shared_s(other, cue) > SAME_TIME
            and _beside(other, cue)
        ]
        beside.sort(key=lambda other: other.start)
        ends = [cue.start, *(other.end for other in beside)]
        starts = [*(other.start for other in beside), cue.end]
        if len(beside) > 1 and all(abs(a - b) <= SAME_TIME for a, b in zip(ends, starts, strict=True)):
            result = [_both(o, cue) if o in beside else o for o in result if o is not cue]
    return sorted(result, key=lambda cue: (cue.start, cue.end))


def _beside(a: Cue, b: Cue) -> bool:
    return any(_next_row(first.box, second.box) for first in a.lines for second in b.lines)


def _both(cue: Cue, more: Cue) -> Cue:
    """A cue with the lines of another, too."""
    lines = tuple(sorted(cue.lines + more.lines, key=lambda line: (line.box[1], line.box[0])))
    return replace(cue, lines=lines, confidence=cue.confidence * more.confidence)


def without_fragments(cues: Sequence[Cue]) -> list[Cue]:
    """Cues of which no two stand on the same spot at the same time: of such a pair the one with more characters, more surely
    read, stays.

    A track that began late, or lost a part of its line, gives a fragment beside the whole; so does a drawing that stays
    when the text in front of it goes.
    """
    kept: list[Cue] = []
    near = _Near(cues)
    for cue in sorted(cues, key=lambda cue: -len(cue.text) * (0.1 + cue.confidence)):
        at = next(
            (i for i, o in enumerate(kept) if near(cue, o) and _same_time(cue, o) and _same_spot(cue, o)),
            None,
        )
        if at is None:
            kept.append(cue)
        elif kept[at].text == cue.text and cue.confidence >= AS_SURE * kept[at].confidence:
            # Seen while the ground was quiet. What is less sure is a drawing that outlives the text.
            start, end = min(kept[at].start, cue.start), max(kept[at].end, cue.end)
            kept[at] = replace(kept[at], start=start, end=end)
    return sorted(kept, key=lambda cue: (cue.start, cue.end))


def _same_time(first: Cue, second: Cue) -> bool:
    shared = _shared_s(first, second)
    return shared > MOST_SHARED_S or 2 * shared > min(first.end - first.start, second.end - second.start)


def _same_spot(first: Cue, second: Cue) -> bool:
    return any(
        _rows(a.box, b.box) and min(a.box[2], b.box[2]) > max(a.box[0], b.box[0])
        for a in first.lines
        for b in second.lines
    )


def _next_row(a: Box, b: Box) -> bool:
    """Whether two boxes of lines, 1.25 SCW high, are those of neighbouring rows in letters of one size."""
    high, low = max(a[3] - a[1], b[3] - b[1]), min(a[3] - a[1], b[3] - b[1])
    distance = abs(a[1] + a[3] - b[1] - b[3]) / 2
    return high <= 1.2 * low and 0.6 * high < distance < 1.4 * high and min(a[2], b[2]) > max(a[0], b[0])


def _rows(a: Box, b: Box) -> bool:
    """Whether two boxes share more than half of the lower one's rows."""
    return min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * min(a[3] - a[1], b[3] - b[1])
