"""The vocabulary holds what it promises, and folding puts look-alikes on one class."""

import pytest

from tamis.subtitles import characters
from tamis.subtitles.characters import (
    HANGUL_COUNT,
    base_classes,
    classes,
    encode,
    fold,
    hangul_parts,
    hanzi,
    index,
)


def test_every_class_is_there_once() -> None:
    assert len(set(classes())) == len(classes()) == len(base_classes()) + HANGUL_COUNT
    assert len(hanzi()) == 16_918


@pytest.mark.parametrize(
    "text", ["的一是了", "鱻憂鬱", "澤沢淀", "ぁんァヶー々", "한뷁힣", "ㅋㅠ", "Aa09~!?", "「」《》“”—·♪"]
)
def test_vocabulary_covers(text: str) -> None:
    missing = [c for c in fold(text) if c not in index()]
    assert missing in ([], ["鱻"])  # U+9C7B is in none of the official lists


def test_classes_are_stable_under_folding() -> None:
    # A class that folds away could never be the truth of anything.
    assert [c for c in base_classes() if fold(c) != c] == []


def test_forms_that_look_alike_share_a_class() -> None:
    assert fold("２０２６年，好…") == "2026年,好..."
    assert fold("・‧·") == "···" and fold("〜～∼") == "~~~" and fold("―─–") == "———"


def test_encode_marks_spaces_and_strangers() -> None:
    numbers = encode("中 \U0001f600")
    assert numbers[0] == index()["中"] and list(numbers[1:]) == [-1, -2]


def test_hangul_is_composed() -> None:
    lead, vowel, tail = hangul_parts(ord("한") - characters.HANGUL_FIRST)
    assert chr(0x1100 + lead) + chr(0x1161 + vowel) + chr(0x11A7 + tail) == "\u1112\u1161\u11ab"
