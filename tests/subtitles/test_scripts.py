"""Scripts: what each language may be written with, and telling languages apart."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.errors import UsageError
from tamis.subtitles import characters, scripts
from tamis.subtitles.language import LANGUAGES
from tamis.subtitles.lattice import Lattice


def may(language: str, text: str) -> list[bool]:
    return [bool(scripts.allowed(language)[characters.index()[character]]) for character in text]


@pytest.mark.parametrize(
    ("language", "own", "foreign"),
    [
        ("zh-hans", "们说这里后台干了着著乾於面只系准冲囧〇", "們說這裡後臺幹裏爲麼語気説働妳체あンㄅ"),
        ("zh-hant", "們說這裡裏後后臺台干乾幹了着著於面麵只系準沖群床峰晒雇祕秘爲妳ㄅ〇", "们说这体机听国气儿与"),
        ("ja", "国語気説働込円々〆ヶあンー〇", "们说这妳您啥체ㄅ"),
        ("ko", "한글뷁ㅋㅠ韓國語", "们这あン説ㄅ"),
    ],
)  # fmt: skip
def test_own_and_foreign_forms(language: str, own: str, foreign: str) -> None:
    assert [c for c, yes in zip(own, may(language, own), strict=True) if not yes] == []
    assert [c for c, yes in zip(foreign, may(language, foreign), strict=True) if yes] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_latin_and_punctuation_belong_to_all(language: str) -> None:
    assert all(may(language, characters.ASCII + characters.PUNCTUATION))
    assert not scripts.allowed(language).flags.writeable


def test_simplified_and_traditional_never_mix() -> None:
    opencc = pytest.importorskip("opencc")
    to_simplified, to_traditional = opencc.OpenCC("t2s").convert, opencc.OpenCC("s2t").convert
    classes = np.array(characters.classes())
    simplified, traditional = scripts.allowed("zh-hans"), scripts.allowed("zh-hant")
    for character in classes[simplified & ~traditional]:
        assert to_simplified(character) == character or character in scripts.script("zh-hans")
    changed = [c for c in classes[traditional & ~simplified] if to_traditional(c) != c]
    assert len(changed) < 30  # standard Taiwanese forms that OpenCC has other ideas about: 群 床 峰


def test_unknown_language() -> None:
    with pytest.raises(UsageError, match="zh-hans"):
        scripts.allowed("en")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("这就是你的第二个任务？", "zh-hans"),
        ("這就是你的第二個任務？", "zh-hant"),
        ("これは何ですか？", "ja"),
        ("東京都新宿区役所前で待つ", "ja"),
        ("그런데 그것이 실제로", "ko"),
        ("我没时间跟你们说话", "zh-hans"),
        ("我沒時間跟你們說話", "zh-hant"),
    ],
)
def test_detects_the_language_of_one_line(text: str, language: str) -> None:
    found, probability = scripts.detect_language([text])
    assert found == language
    assert probability > 0.8


def test_no_evidence_is_no_decision() -> None:
    assert scripts.detect_language([])[1] == 0.25
    assert scripts.detect_language(["OK, 123!"])[1] == 0.25


def lattice_of(text: str, other: str, doubt: float) -> Lattice:
    """Every character of `text` with the one of `other` as second choice."""
    labels = np.stack([characters.encode(text), characters.encode(other)], axis=1)
    n = len(labels)
    return Lattice(
        position=np.arange(n, dtype=np.float32),
        log_centre=np.full(n, -0.05, np.float32),
        log_skip=np.full(n, -3, np.float32),
        log_space=np.full(n + 1, -5, np.float32),
        labels=labels,
        log_class=np.log(np.tile([1 - doubt, doubt], (n, 1))).astype(np.float32),
    )


def test_detects_from_lattices_in_spite_of_doubt() -> None:
    lines = [lattice_of("这个时间没来过说话", "這個時間沒來過說話", 0.4), lattice_of("对", "對", 0.3)]
    language, probability = scripts.detect_language(lines)
    assert language == "zh-hans" and probability > 0.7
    language, probability = scripts.detect_language(
        [lattice_of("這個時間沒來過說話", "这个时间没来过说话", 0.4)]
    )
    assert language == "zh-hant" and probability > 0.7


def test_a_lattice_of_latin_or_of_nothing_tells_nothing() -> None:
    assert scripts.detect_language([lattice_of("abc", "ABC", 0.2)])[1] == pytest.approx(0.25, abs=0.01)
    empty = lattice_of("", "", 0.2)
    assert scripts.detect_language([empty])[1] == 0.25
