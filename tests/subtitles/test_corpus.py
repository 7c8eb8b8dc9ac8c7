"""Cutting text into subtitle lines, the parts that are held out, and a model made from a small folder of texts."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from tamis import weights
from tamis.subtitles import corpus
from tamis.subtitles.language import LanguageModel


@pytest.mark.parametrize(
    ("sentence", "manner", "lines"),
    [
        ("我知道，你不会来。", 0, ["我知道，你不会来。"]),
        ("我知道，你不会来。", 1, ["我知道", "你不会来"]),
        ("我知道，你不会来！", 2, ["我知道 你不会来！"]),
        ("他说：“走吧。”然后走了……", 1, ["他说：“走吧。”", "然后走了……"]),
        ("圆周率是3.5，对吗？！好。", 1, ["圆周率是3.5", "对吗？！", "好"]),
        ("정말? 그래, 가자.", 0, ["정말? 그래, 가자."]),
        ("정말? 그래, 가자.", 1, ["정말?", "그래", "가자"]),
        (
            "어릴때 보고 최근에 다시 다운 받아 봐도 느낌이 다르고",
            0,
            ["어릴때 보고 최근에 다시 다운 받아 봐도", "느낌이 다르고"],
        ),
        ("", 0, []),
    ],
)
def test_lines(sentence: str, manner: int, lines: list[str]) -> None:
    assert corpus.lines_of(sentence, manner) == lines


def test_no_manner_loses_a_character_but_punctuation() -> None:
    sentence = "首先，冷水锅中加入猪蹄、大葱段；焯水 10 分钟……撇去浮沫，“捞出”洗干净备用！OK, go. 好。"
    kept = [c for c in sentence if c not in "，。；, ."]
    for manner in range(3):
        found = "".join(corpus.lines_of(sentence, manner))
        assert [c for c in found if c not in "，。；, ."] == kept


def test_one_line_in_twenty_is_for_testing_and_one_for_tuning() -> None:
    parts = [corpus.part(number) for number in range(40)]
    assert parts.count("test") == parts.count("dev") == 2
    assert parts[:3] == ["test", "dev", "train"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of Japanese text in which every line tells by itself to which part it belongs."""
    (tmp_path / "text").mkdir()
    (tmp_path / "words").mkdir()
    lines = {"test": "試験の行です。", "dev": "調整の行です。", "train": "これは学習の行です。"}
    text = "\n".join(lines[corpus.part(number)] for number in range(400))
    (tmp_path / "text" / "ja.txt.xz").write_bytes(lzma.compress(text.encode()))
    (tmp_path / "words" / "freqwords_ja_full.txt").write_text("友達 400\nの 9000\n", encoding="utf-8")
    return tmp_path


def test_only_training_lines_are_learnt(data: Path) -> None:
    model, perplexities = corpus.make(data, "ja", order=3, keep=10_000)
    assert not set("試験調整") & set(model.alphabet)
    assert set("これは学習の行です友達") <= set(model.alphabet)
    assert list(perplexities) == ["human"]


def test_published_with_a_record(data: Path, tmp_path: Path) -> None:
    model, perplexities = corpus.make(data, "ja", order=3, keep=10_000)
    path = corpus.publish(model, "ja", perplexities, tmp_path)
    found = weights.load(tmp_path / "lm.ja.json")
    assert weights.read(found) == path.read_bytes()
    assert LanguageModel.load(path).alphabet == model.alphabet
    again = corpus.publish(model, "ja", perplexities, data)
    assert again.read_bytes() == path.read_bytes()
