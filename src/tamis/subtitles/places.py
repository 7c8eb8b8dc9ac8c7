"""Which of the lines that were read are subtitles: by what they look like, and by where the clip's sure lines stand.

Subtitles of a clip share their rows, their size and their alignment, the top and bottom boundary (STBB) of the paper. A line
that stands where others stand needs little evidence of its own: a rare character or a doubtful `？` is believed there.
Anywhere else a line must be read surely, and show more than the simple shapes that drawings and texture are taken for (一, X,
“, N). A line that stands alone in a corner, or comes again in the same words where no subtitles stand, is a logo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

Box = tuple[int, int, int, int]

# Characters of one or a few straight strokes; punctuation and Latin letters count as simple, too.
SIMPLE = frozenset(
    "一二三丨丿丶乙人入八儿几口日曰目田工土十上下卜厂了丁川小个中王山"
    "ーノハメニへくしつフリレロトコエイソンりいこヘヒミテクタワ"
    "이으스시로니은는"
)
SURE, SURE_CHARACTERS = 0.6, 3  # evidence and rich characters of a line that shows where subtitles stand
# SCW by which rows, middles and left sides may differ, and the share by which the size may. A misread end moves the
# middle; left sides that nearly agree are common by chance.
ROW, MIDDLE, SIDE, SIZE = 0.3, 0.75, 0.25, 0.2
# Marks that begin, or end, no line: what they were read from is scenery.
NEVER_FIRST, NEVER_LAST = frozenset("，。、；：,;:)）」』》〉】〕"), frozenset("(（「『《〈【〔")
SURELY_ONE, LIKELY = 0.4, 0.2  # evidence of single characters
# Marks that scenery behind a line is often read as, and their least evidence: 0.5 to 1 where one is, 0.2 to 0.4 where none is.
ENDS, LIKELY_END = frozenset("，。、；：,.;:…·"), 0.45
LETTER = 0.5  # P(centre) of one that is no punctuation: which one it is may be in doubt
GAP = 3.0  # SCW between two characters of a line: wider than the spaces between clauses
CORNER = 0.3  # of the frame's width: a line whose middle is farther from the frame's is in a corner
BEYOND_DOUBT = 0.9  # evidence of lines whose difference is no misreading
READ, SENTENCE = 0.8, 5  # the same of lines of so many rich characters: more than the name that a logo is
AT_ONCE_S = Fraction(1, 5)  # between two lines of which one follows the other
BRIEF_S = Fraction(2, 5)  # scenery is often text for a moment, in few characters
MOMENT_S, CROWD = Fraction(1, 10), 3  # more lines than that begin in one moment only where a drawing does
MOVES_S = Fraction(3)  # within which a sign that moves is read again, further on
LONG, VARIED = (
    8,
    0.5,
)  # characters of a long line; share of different ones among them: 0.7 and more in sentences
CENTRED, DECIDED = 0.7, 0.7  # of a line that is surely text
WHICHEVER = 0.8  # `decided` of one that stands where subtitles stand: text, whichever it may be


def is_simple(character: str) -> bool:
    """Whether drawings and texture are often taken for it."""
    return character in SIMPLE or not character.isalpha() or ord(character) < 0x250


def body(
    texts: Sequence[str], positions: Sequence[float], centred: Sequence[float], evidence: Sequence[float]
) -> slice:
    """The part of a line that is text, without the scenery at its ends that was read as dots and strokes.

    positions in SCW; centred and evidence as in `Standing`, of each character. From the first to the last rich character
    that is surely one, and on to either side as long as neighbours are near and likely. All of the line where no character
    is sure.
    """
    sure = [i for i, text in enumerate(texts) if not is_simple(text) and evidence[i] >= SURELY_ONE]
    if not sure:
        return slice(0, len(texts))

    def goes_on(inner: int, outer: int) -> bool:
        letter = texts[outer].isalpha() and ord(texts[outer]) >= 0x250
        seen, least = evidence[outer], LIKELY
        if outer > inner and texts[outer] in ENDS:
            run = next((n for n in range(outer, len(texts)) if texts[n] != texts[outer]), len(texts))
            seen, least = max(evidence[outer:run]), LIKELY_END
        likely = seen >= least or (letter and centred[outer] >= LETTER)
        return likely and abs(positions[inner] - positions[outer]) <= GAP

    first, last = sure[0], sure[-1]
    while first > 0 and goes_on(first, first - 1):
        first -= 1
    while last + 1 < len(texts) and goes_on(last, last + 1):
        last += 1
    while texts[first] in NEVER_FIRST and first < sure[0]:
        first += 1
    while texts[last] in NEVER_LAST and last > sure[-1]:
        last -= 1
    return slice(first, last + 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """A line that was read.

    text      without spaces
    box       its characters, px of the frame
    scw       width of a character, px
    centred   mean P(a character is centred there) over its characters
    evidence  mean of that times P(class), by sight alone
    decided   how decided the networks are of where characters are; see `layout.decided`
    """

    text: str
    start: Fraction
    end: Fraction
    box: Box
    scw: float
    centred: float
    evidence: float
    decided: float

    @property
    def rich(self) -> int:
        """Number of different characters that are not simple; three simple letters count as one."""
        shown = set(self.text)
        simple = {c for c in shown if is_simple(c)}
        return len(shown) - len(simple) + sum(c.isalnum() for c in simple) // 3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least evidence of a line: of three characters and more, of one or two, and where other subtitles stand."""

    line: float
    lonely: float
    at_home: float


class Places:
    """Where the sure lines of a clip stand."""

    def __init__(self, lines: Sequence[Standing], width: int) -> None:
        """width: of the frame, px."""
        self._width = width
        self._lines = lines
        self._sure = [line for line in lines if line.evidence >= SURE and line.rich >= SURE_CHARACTERS]
        # A clip may have short texts only, which tell where they stand when nothing about them is in doubt.
        self._telling = self._sure + [
            line for line in lines if 1 <= line.rich < SURE_CHARACTERS and _beyond_doubt(line)
        ]

    def home(self, line: Standing) -> bool:
        """Whether at least two sure lines of other texts and times stand on the same rows, in the same alignment and size."""
        texts = {
            other.text
            for other in self._telling
            if _same_place(line, other) and not _alike(line.text, other.text) and _apart(line, other)
        }
        return len(texts) >= 2

    def are_subtitles(self, cue: Sequence[Standing], least: Thresholds) -> list[bool]:
        """Which lines of one cue are subtitles. A line aligned with one at home, or surely a subtitle, on the next row, is at
        home with it."""
        home = [self.home(line) for line in cue]
        sure = [
            at_home
            or (
                line.evidence >= READ
                and line.rich >= SURE_CHARACTERS
                and self._is_subtitle(line, False, least)
            )
            for line, at_home in zip(cue, home, strict=True)
        ]
        home = [
            at_home or any(known and _next_row(line, other) for other, known in zip(cue, sure, strict=True))
            for line, at_home in zip(cue, home, strict=True)
        ]
        return [self._is_subtitle(line, h, least) for line, h in zip(cue, home, strict=True)]

    def _is_subtitle(self, line: Standing, home: bool, least: Thresholds) -> bool:
        if set(line.text) <= NEVER_FIRST or (not home and _monotonous(line.text)):
            return False
        if home and any(not is_simple(c) for c in line.text):
            surely_text = line.centred >= CENTRED and line.decided >= WHICHEVER
            return surely_text or line.evidence >= least.at_home
        if line.evidence < (least.lonely if line.rich < 2 else least.line):
            return False
        if home:
            return True
        few = line.rich < SURE_CHARACTERS and not _beyond_doubt(line)
        brief = line.end - line.start < BRIEF_S
        if brief and (few or line.evidence < least.lonely):
            return False
        if line.centred < CENTRED or (few and line.decided < DECIDED):
            return False  # of many rows and sizes that a drawing was looked at in, some show characters
        if (line.evidence < BEYOND_DOUBT or line.rich < 2) and self._crowded(line):
            return False
        logo = self._in_corner(line) or self._comes_again(line) or self._moves(line)
        return line.rich >= 1 and not logo

    def _in_corner(self, line: Standing) -> bool:
        """Whether a line stands where logos do, and no sure line of other words does: logos do not change theirs."""
        if abs((line.box[0] + line.box[2]) / 2 - self._width / 2) <= CORNER * self._width:
            return False
        return not any(
            _apart(line, other) and not _alike(line.text, other.text) and _same_place(line, other)
            for other in self._sure
        )

    def _crowded(self, line: Standing) -> bool:
        """Whether a line is one of many that begin in one moment, as those do that a drawing is taken for."""
        return sum(abs(line.start - other.start) <= MOMENT_S for other in self._lines) > CROWD

    def _moves(self, line: Standing) -> bool:
        """Whether the same words stand further to one side within seconds: on a sign that moves."""
        return any(
            _alike(line.text, other.text)
            and not _aligned(line, other)
            and not _within(line, other)
            and not _within(other, line)
            and abs(line.scw - other.scw) <= SIZE * other.scw
            and max(line.start, other.start) - min(line.end, other.end) <= MOVES_S
            for other in self._lines
            if other is not line
        )

    def _comes_again(self, line: Standing) -> bool:
        """Whether the same words stand there at other times. Surely read lines that follow each other and differ are neighbours
        of one wording: what a logo shows stays the same."""
        again = [
            other
            for other in self._lines
            if _same_place(line, other) and _alike(line.text, other.text) and _apart(line, other)
        ]
        run = sorted([*again, line], key=lambda one: one.start)
        # A piece of a line that is there with it is no other time.
        whole = [
            one
            for i, one in enumerate(run)
            if one is line or not any(_piece(one, other) for other in run[max(0, i - 3) : i + 4])
        ]
        sure = all(one.evidence >= SURE for one in whole)
        return bool(again) and not (sure and all(_succeeds(a, b) for a, b in pairwise(whole)))


def _beyond_doubt(line: Standing) -> bool:
    return min(line.evidence, line.centred, line.decided) >= BEYOND_DOUBT


def _monotonous(text: str) -> bool:
    """Whether a long line goes on and on in the same few characters, as hatching and grids do when they are read."""
    return len(text) >= LONG and len(set(text)) < VARIED * len(text)


def _apart(a: Standing, b: Standing) -> bool:
    """Whether two lines are not shown at one time."""
    return a.end <= b.start or b.end <= a.start


def _succeeds(before: Standing, after: Standing) -> bool:
    """Whether a line takes the place of one before it, in other words: at once, or both read beyond doubt."""
    if before.text in after.text or after.text in before.text:
        return False  # a logo of which a part was read
    at_once = after.start - before.end <= AT_ONCE_S
    sentences = min(before.rich, after.rich) >= SENTENCE
    return at_once or min(before.evidence, after.evidence) >= (READ if sentences else BEYOND_DOUBT)


def _within(part: Standing, line: Standing) -> bool:
    """Whether one line's columns lie within another's: a part of it may be seen for longer than the whole."""
    slack = SIDE * line.scw
    return part.box[0] >= line.box[0] - slack and part.box[2] <= line.box[2] + slack


def _piece(part: Standing, line: Standing) -> bool:
    """Whether a line is a part of another that is shown at the same time: of its text, or of the time that this is there."""
    less = (len(part.text), part.end - part.start) < (len(line.text), line.end - line.start)
    return less and part.text in line.text and not _apart(part, line) and _within(part, line)


def _alike(a: str, b: str) -> bool:
    """Whether two texts share more than half of their characters."""
    return len(set(a) & set(b)) > 0.5 * max(len(set(a)), len(set(b)))


def _same_place(a: Standing, b: Standing) -> bool:
    rows = abs((a.box[1] + a.box[3]) - (b.box[1] + b.box[3])) / 2 <= ROW * b.scw
    return rows and _aligned(a, b) and abs(a.scw - b.scw) <= SIZE * b.scw


def _next_row(a: Standing, b: Standing) -> bool:
    rows = abs((a.box[1] + a.box[3]) - (b.box[1] + b.box[3])) / 2
    return 0.8 * b.scw < rows < 2 * b.scw and _aligned(a, b) and abs(a.scw - b.scw) <= SIZE * b.scw


def _aligned(a: Standing, b: Standing) -> bool:
    """Whether two lines share their middle or their left side."""
    middle = abs((a.box[0] + a.box[2]) - (b.box[0] + b.box[2])) / 2
    return middle <= MIDDLE * b.scw or abs(a.box[0] - b.box[0]) <= SIDE * b.scw
