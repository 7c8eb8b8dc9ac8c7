"""Give read characters back the forms that their language writes: full-width marks, ellipses, paired quotes, no stray spaces.

The recogniser's classes are folded (`characters.fold`): it cannot tell a comma from a full-width comma, and sees an
ellipsis as three dots. Which form stands there follows from the language and from the neighbours.

    >>> from tamis.subtitles.search import ReadCharacter
    >>> read = [ReadCharacter((i,), c, 0.9) for i, c in enumerate("真的吗?3,000元...")]
    >>> "".join(character.text for character in restore(read, "zh-hans"))
    '真的吗？3,000元…'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from tamis.subtitles.search import ReadCharacter

FULL_WIDTH = {",": "，", "?": "？", "!": "！", ":": "：", ";": "；", "(": "（", ")": "）", "~": "～"}
INSIDE_NUMBERS = ",:~()"  # half-width between Latin letters or digits
DOTS = ".·"
STOP = "。"
ONCE = "，、"  # marks of which no two stand side by side
DOUBTFUL = (
    0.6  # confidence of a mark at the end of a line; where there is one it is 0.73 and more, mostly 0.99
)
FIRST_CJK = "\u2e80"  # radicals, kana, ideographs and Hangul all lie behind it
OPENING, CLOSING = "「『《〈【〔（“‘", "」』》〉】〕）”’"
NO_SPACE_AFTER = OPENING + "，。、：；"
NO_SPACE_BEFORE = CLOSING + "，。、：；？！…"


def restore(read: Sequence[ReadCharacter], language: str) -> tuple[ReadCharacter, ...]:
    """The characters of one line in the forms of `language`. Dots that form an ellipsis become one character."""
    foreign = any(_is_latin(c.text) for c in read) and not any(c.text >= FIRST_CJK for c in read)
    if language == "ko" or foreign:
        return tuple(_with_ellipses(read, DOTS[1:]))
    found = _with_ellipses(read, DOTS)
    found = _full_width(found, language)
    found = [c for i, c in enumerate(found) if c.text not in ONCE or i == 0 or found[i - 1].text != c.text]
    found = _paired(found, "“", "”")
    return tuple(_without_stray_spaces(found, language))


def without_doubtful_ends(read: Sequence[ReadCharacter]) -> tuple[ReadCharacter, ...]:
    """The characters without marks at either end, and without runs of Latin letters and marks there, that are more likely
    scenery, as which texture and the ends of strokes are read. All of them where nothing else is left."""
    first = _doubtful(read)
    last = len(read) - _doubtful(read[::-1])
    return tuple(read[first:last]) if first < last else tuple(read)


def _doubtful(read: Sequence[ReadCharacter]) -> int:
    """Number of doubtful characters at the beginning, with the space that follows them."""
    letter = (
        i for i, c in enumerate(read) if not (_is_mark(c.text) or _is_latin(c.text) or c.text.isspace())
    )
    run = next(letter, len(read))
    confidences = [c.confidence for c in read[:run] if not c.text.isspace()]
    if confidences and sum(confidences) < DOUBTFUL * len(confidences):
        return run
    sure = (i for i, c in enumerate(read) if not (_is_mark(c.text) and c.confidence < DOUBTFUL))
    return next(sure, len(read))


def _is_mark(text: str) -> bool:
    return not text.isalnum() and not text.isspace()


def _is_latin(text: str) -> bool:
    return text.isascii() and text.isalnum()


def _with_ellipses(read: Sequence[ReadCharacter], dots: str) -> list[ReadCharacter]:
    """Runs of two and more dots as ellipses of three; one dot more or less than a multiple of three was misread. Three full
    stops are dots as well."""
    found: list[ReadCharacter] = []
    for text, group in groupby(read, key=lambda character: character.text):
        run = list(group)
        stops = text == STOP and len(run) >= 3
        if (text not in dots and not stops) or len(run) < 2:
            found += run
            continue
        number = max(1, round(len(run) / 3))
        for i in range(number):
            part = run[len(run) * i // number : len(run) * (i + 1) // number]
            candidates = tuple(candidate for dot in part for candidate in dot.candidates)
            found.append(ReadCharacter(candidates, "…", min(dot.confidence for dot in part)))
    return found


def _full_width(read: Sequence[ReadCharacter], language: str) -> list[ReadCharacter]:
    found = []
    for i, character in enumerate(read):
        text = character.text
        between_latin = 0 < i < len(read) - 1 and _is_latin(read[i - 1].text) and _is_latin(read[i + 1].text)
        if text in FULL_WIDTH and not (between_latin and text in INSIDE_NUMBERS):
            text = FULL_WIDTH[text]
        elif text == "·" and language == "ja":
            text = "・"
        found.append(replace(character, text=text))
    return found


def _paired(read: Sequence[ReadCharacter], opening: str, closing: str) -> list[ReadCharacter]:
    """Of two quotation marks in one line, the first opens and the second closes, whatever they look like."""
    marks = [i for i, character in enumerate(read) if character.text in (opening, closing)]
    found = list(read)
    for place in range(0, len(marks) - 1, 2):
        if found[marks[place]].text == found[marks[place + 1]].text:
            found[marks[place]] = replace(found[marks[place]], text=opening)
            found[marks[place + 1]] = replace(found[marks[place + 1]], text=closing)
    return found


def _without_stray_spaces(read: Sequence[ReadCharacter], language: str) -> list[ReadCharacter]:
    """Full-width marks bring their own room. Japanese sets a space behind ？ and ！ inside a line all the same."""
    no_space_after = NO_SPACE_AFTER if language == "ja" else NO_SPACE_AFTER + CLOSING + "？！"
    found: list[ReadCharacter] = []
    for i, character in enumerate(read):
        if character.text == " ":
            before = read[i - 1].text if i else ""
            after = read[i + 1].text if i + 1 < len(read) else ""
            stray = not before or not after or before in no_space_after or after in NO_SPACE_BEFORE
            if stray or (language != "ja" and after in OPENING):
                continue
        found.append(character)
    return found
