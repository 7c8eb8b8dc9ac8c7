"""The vocabulary: every character that the recogniser can output, and how text is folded onto it.

One class set serves Simplified, Traditional, Japanese and Korean, so that language is a constraint on the search
and not a choice of model. It holds the 8,105-character standard table and GB 2312 (Simplified), all of Big5
(Traditional), the JIS X 0208 kanji with kana, all 11,172 Hangul syllables, ASCII and the punctuation that subtitles use.

Forms that look alike share a class (full-width and half-width Latin; the several middle dots and dashes): `fold` maps
text onto classes, and the search puts the form back that the language wants. An ellipsis is three dots.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
PUNCTUATION = "、。「」『』《》〈〉【】〔〕“”‘’—·♪♥★☆●→×°"
KANA = "".join(chr(c) for c in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB))) + "ーヽヾゝゞ々〆〇"
JAMO = "".join(chr(code) for code in range(0x3131, 0x3164))  # ㅋㅋ and ㅠㅠ stand alone in Korean subtitles
BOPOMOFO = "".join(chr(code) for code in range(0x3105, 0x312A))

HANGUL_FIRST, HANGUL_COUNT = 0xAC00, 11_172
HANGUL_PARTS = (19, 21, 28)  # leading consonants, vowels, trailing consonants (28th: none)

# Look-alikes that NFKC keeps apart but a picture does not.
_FOLDS = str.maketrans(
    {
        "‧": "·", "・": "·", "•": "·", "･": "·", "‐": "-", "‑": "-", "–": "—", "―": "—", "─": "—", "━": "—", "−": "-",
        "〜": "~", "∼": "~", "～": "~", "〝": "“", "〞": "”", "〟": "”", "＂": '"', "′": "'", "○": "〇", "◯": "〇",
        "♫": "♪", "♬": "♪", "♡": "♥", "⋯": "···", "…": "...", "‥": "..", "¨": '"',
    }
)  # fmt: skip


def fold(text: str) -> str:
    """Text in the forms that the vocabulary knows; characters outside the vocabulary stay as they are.

    >>> fold("２０２６年，你好……")
    '2026年,你好......'
    """
    folded = []
    for character in text.translate(_FOLDS):
        if "\u3131" <= character <= "\u3163":  # NFKC would turn ㅋ into a conjoining jamo
            folded.append(character)
        else:
            folded.append(unicodedata.normalize("NFKC", character))
    return "".join(folded).translate(_FOLDS)


@cache
def hanzi() -> str:
    """The Han characters of the vocabulary, by code point: GB 2312, the 8,105 table, Big5 and JIS X 0208 together."""
    text = resources.files(__package__).joinpath("hanzi.txt").read_text(encoding="utf-8")
    return "".join(text.split())


@cache
def classes() -> tuple[str, ...]:
    """All classes in the order of the network's outputs: `base_classes()`, then the Hangul syllables."""
    return base_classes() + tuple(map(chr, range(HANGUL_FIRST, HANGUL_FIRST + HANGUL_COUNT)))


@cache
def base_classes() -> tuple[str, ...]:
    """The classes with an output of their own. Hangul is composed of three smaller outputs instead (`HANGUL_PARTS`)."""
    ordered = dict.fromkeys(ASCII + PUNCTUATION + KANA + JAMO + BOPOMOFO + hanzi())
    return tuple(ordered)


@cache
def index() -> dict[str, int]:
    """Class number of every character."""
    return dict(zip(classes(), range(len(classes())), strict=True))


@cache
def _number_of_code_point() -> NDArray[np.int16]:
    numbers = np.full(0x110000, -2, np.int16)
    numbers[code_points("".join(classes()))] = np.arange(len(classes()))
    return numbers


def code_points(text: str) -> NDArray[np.uint32]:
    """The code point of each character."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def numbers_of(text: str) -> NDArray[np.int32]:
    """Class numbers [len(text)] of characters that are folded already; -2 outside the vocabulary. For long texts."""
    return _number_of_code_point()[code_points(text)].astype(np.int32)


def encode(text: str) -> NDArray[np.int32]:
    """Class numbers [len(fold(text))] int32; a space is -1, a character outside the vocabulary -2."""
    numbers = index()
    return np.array([-1 if c.isspace() else numbers.get(c, -2) for c in fold(text)], dtype=np.int32)


def hangul_parts(syllable: int) -> tuple[int, int, int]:
    """(lead, vowel, tail) of the Hangul syllable with this number in [0, 11172).

    >>> hangul_parts(ord("한") - HANGUL_FIRST)
    (18, 0, 4)
    """
    return syllable // 588, syllable % 588 // 28, syllable % 28
