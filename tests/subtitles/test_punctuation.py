"""Forms that the recogniser folds together, put back as each language writes them."""

from __future__ import annotations

import unicodedata

import pytest

from tamis.subtitles import characters
from tamis.subtitles.punctuation import restore, without_doubtful_ends
from tamis.subtitles.search import ReadCharacter


def restored(text: str, language: str) -> str:
    return "".join(
        c.text for c in restore([ReadCharacter((i,), c, 0.9) for i, c in enumerate(text)], language)
    )


@pytest.mark.parametrize(
    ("read", "language", "expected"),
    [
        ("你好,小黑!", "zh-hans", "你好，小黑！"),
        ("3,000元,12:30到", "zh-hans", "3,000元，12:30到"),
        ("这是(真的)?!", "zh-hans", "这是（真的）？！"),
        ("用CPU,对吧", "zh-hans", "用CPU，对吧"),
        ("OK, go!", "zh-hans", "OK, go!"),
        ("也就是说......小黑", "zh-hans", "也就是说……小黑"),
        ("什么··· 不", "zh-hant", "什么… 不"),
        (".....", "zh-hans", "……"),
        ("哈....", "zh-hans", "哈…"),
        ("特色。。。", "zh-hant", "特色…"),
        ("真的。。", "zh-hans", "真的。。"),
        ("版本2.5.", "zh-hans", "版本2.5."),
        ("“他说“", "zh-hans", "“他说”"),
        ("”他“说”她“", "zh-hans", "”他“说”她“"),
        ("他说:“走", "zh-hans", "他说：“走"),
        ("你好! 小黑 , 走", "zh-hans", "你好！小黑，走"),
        ("走 吧", "zh-hans", "走 吧"),
        ("罗小黑·战记", "zh-hans", "罗小黑·战记"),
        ("マイク·タイソン", "ja", "マイク・タイソン"),
        ("え? 何...", "ja", "え？ 何…"),
        ("그래, 뭐...?", "ko", "그래, 뭐...?"),
        ("", "ja", ""),
    ],
)
def test_forms(read: str, language: str, expected: str) -> None:
    assert restored(read, language) == expected


def test_an_ellipsis_keeps_its_candidates_and_the_least_confidence() -> None:
    read = [ReadCharacter((0,), "好", 0.9), *(ReadCharacter((i,), ".", 1 - i / 10) for i in (1, 2, 3))]
    character = restore(read, "zh-hans")[1]
    assert character.text == "…" and character.candidates == (1, 2, 3)
    assert character.confidence == pytest.approx(0.7)


@pytest.mark.parametrize("language", ["zh-hans", "zh-hant", "ja", "ko"])
def test_restored_text_folds_back_to_what_was_read(language: str) -> None:
    read = "真的,吗?!3,000...“好”「对」(是):~;。、"
    assert characters.fold(restored(read, language)) == read
    assert unicodedata.normalize("NFKC", restored(read, language)) == read


def test_of_two_commas_side_by_side_one_was_misread() -> None:
    assert (
        "".join(
            c.text
            for c in restore([ReadCharacter((i,), c, 0.9) for i, c in enumerate("老书虫,,")], "zh-hans")
        )
        == "老书虫，"
    )


@pytest.mark.parametrize(
    "text, confidences, expected",
    [
        ("水辺の，", (0.9, 0.9, 0.9, 0.34), "水辺の"),
        ("水辺の，", (0.9, 0.9, 0.9, 0.9), "水辺の，"),
        ("“～水辺～。", (0.2, 0.5, 0.4, 0.4, 0.5, 0.3), "水辺"),
        ("？！", (0.4, 0.5), "？！"),
        ("어릴 때 www", (0.99, 0.99, 0.9, 0.9, 0.9, 0.2, 0.25, 0.6), "어릴 때"),
        ("3 到 5G", (0.9, 0.9, 0.9, 0.9, 0.9, 0.7), "3 到 5G"),
    ],
)
def test_doubtful_marks_at_the_ends_are_left_out(
    text: str, confidences: tuple[float, ...], expected: str
) -> None:
    read = [ReadCharacter((i,), c, p) for i, (c, p) in enumerate(zip(text, confidences, strict=True))]
    assert "".join(c.text for c in without_doubtful_ends(read)) == expected
