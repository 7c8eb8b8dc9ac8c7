"""How sampled frames of a peer become cues: pytest tests/benchmarks/test_subtitles_peers.py"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from subtitles_peers import GROUPINGS, Sample, Seen, frame_text, group, similar, without_static
from subtitles_report import Answer, Clip, answer, differences

from tamis.subtitles.evaluate import TrueCue, Truth

STEP = Fraction(1, 4)


def seen(text: str, x: float = 100, y: float = 300, score: float = 0.9) -> Seen:
    return Seen(text, score, (x, y, x + 20 * len(text), y + 20))


def film(*texts: str) -> list[Sample]:
    """One sample every quarter of a second; "" is a frame without text."""
    return [Sample(n * STEP, (seen(text),) if text else ()) for n, text in enumerate(texts)]


def test_similarity() -> None:
    assert similar("你好吗", "你好吧") == pytest.approx(2 / 3)
    assert similar("", "好") == 0


def test_as_used() -> None:
    cues = group(film("", "你好吗？", "你好吗？", "你好吗?", "走", ""), STEP, GROUPINGS["as used"])
    assert [(c.start, c.end, c.text) for c in cues] == [
        (STEP, 4 * STEP, "你好吗？"),
        (4 * STEP, 5 * STEP, "走"),
    ]


def test_tuned() -> None:
    """One-frame texts go; times lie in the middle between samples; the most frequent reading wins."""
    cues = group(film("", "今天天气好", "今天大气好", "今天天气好", "走", ""), STEP, GROUPINGS["tuned"])
    assert [(c.start, c.end, c.text) for c in cues] == [(STEP / 2, 7 * STEP / 2, "今天天气好")]


def test_an_empty_frame_ends_a_cue() -> None:
    assert len(group(film("好的", "", "好的"), STEP, GROUPINGS["as used"])) == 2


def test_doubtful_lines_are_left_out() -> None:
    sample = Sample(Fraction(0), (seen("好", score=0.4), seen("走", y=340, score=0.6)))
    assert [c.text for c in group([sample], STEP, GROUPINGS["as used"])] == ["走"]


def test_rows_and_columns() -> None:
    lines = [seen("右", x=200, y=302), seen("下", y=330), seen("左", x=100, y=300)]
    assert frame_text(lines) == "左 右\n下"


def test_static_text_is_removed() -> None:
    texts = ["你好", "走吧", "今天", "天气", "不错", "是的", "再见"]
    samples = [Sample(n * STEP, (seen("TV", x=10, y=10), seen(text))) for n, text in enumerate(texts)]
    left = [line.text for sample in without_static(samples, 0.7) for line in sample.lines]
    assert left == texts


def test_answers_are_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("answers")
    clip = Clip("a", folder / "a.mp4", Truth((), Fraction(25)))
    given = Answer((TrueCue(Fraction(1, 3), Fraction(2), "好\n走"),), 1.5)
    calls = []

    def read(one: Clip) -> Answer:
        calls.append(one)
        return given

    assert answer(clip, read, folder, again=False) == given
    assert answer(clip, read, folder, again=False) == given
    assert len(calls) == 1
    answer(clip, read, folder, again=True)
    assert len(calls) == 2


def test_differences_are_told() -> None:
    truth = Truth(
        (
            TrueCue(Fraction(1), Fraction(2), "一句"),
            TrueCue(Fraction(3), Fraction(4), "二句"),
            TrueCue(Fraction(5), Fraction(6), "三句"),
        ),
        Fraction(25),
    )
    found = (
        TrueCue(Fraction(1), Fraction(2), "一旬"),
        TrueCue(Fraction(3) + Fraction(3, 25), Fraction(4), "二句"),
        TrueCue(Fraction(8), Fraction(9), "多"),
    )
    told = differences(Clip("a", Path("a.mp4"), truth), Answer(found, 0))
    assert [line.split()[2] for line in told] == ["wrong", "time", "missed", "invented"]
