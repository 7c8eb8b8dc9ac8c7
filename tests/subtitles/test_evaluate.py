"""The metrics on cases worked out by hand: pytest tests/subtitles/test_evaluate.py"""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.errors import InputError
from tamis.subtitles.evaluate import (
    FORMS,
    Edits,
    TrueCue,
    Truth,
    edits,
    joined,
    match,
    normalise,
    overlap,
    read_truth,
    score_clip,
    summarise,
    timing,
)


def cue(start: float, end: float, text: str = "好", scored: bool = True) -> TrueCue:
    return TrueCue(Fraction(start), Fraction(end), text, scored)


def truth(*cues: TrueCue, rate: int | None = 25) -> Truth:
    return Truth(tuple(cues), Fraction(rate) if rate else None)


class TestNormalise:
    def test_widths_are_equal(self) -> None:
        assert normalise("ＡＢＣ１２３！？，") == normalise("ABC123!?,") == "ABC123!?,"

    def test_an_ellipsis_is_three_stops(self) -> None:
        assert normalise("嗯……") == normalise("嗯......") == "嗯......"

    def test_spaces_and_breaks(self) -> None:
        assert normalise("你好　吗\n走 ", "with_spaces") == "你好 吗 走"
        assert normalise("你好　吗\n走 ", "with_punctuation") == "你好吗走"

    def test_punctuation_goes_and_voicing_marks_stay(self) -> None:
        assert normalise("「が」、～A-1！", "without_punctuation") == "がA1"

    @pytest.mark.parametrize("form", FORMS)
    def test_what_nobody_sees_is_no_error(self, form: str) -> None:
        hidden = "\ufeff葛\U000e0100城\u200b市\u2060か\u200d\u3099\u200e\u2764\ufe0f \u3164"
        assert normalise(hidden, form) == normalise("葛城市が\u2764", form)
        assert normalise("A\u3099", form) == "A\u3099", "a mark has ink"

    def test_scripts_stay_apart(self) -> None:
        assert normalise("发") != normalise("發")

    def test_unknown_form(self) -> None:
        with pytest.raises(ValueError, match="with_spaces"):
            normalise("好", "loud")


class TestEdits:
    def test_one_of_six_wrong(self) -> None:
        assert edits("今天大气很好", "今天天气很好") == Edits(1, 6)
        assert Edits(1, 6).accuracy == pytest.approx(5 / 6)

    def test_accuracy_is_never_negative(self) -> None:
        assert edits("一二三四五", "好").accuracy == 0

    def test_a_lost_mark_counts_only_with_punctuation(self) -> None:
        assert edits("走吧", "走吧！").distance == 1
        assert edits("走吧", "走吧！", "without_punctuation").distance == 0


class TestMatch:
    def test_overlap(self) -> None:
        assert overlap(cue(0, 2), cue(1, 3)) == Fraction(1, 3)
        assert overlap(cue(0, 1), cue(1, 2)) == 0

    def test_half_is_enough(self) -> None:
        assert match([cue(0, 1)], [cue(0, 2)]) == [(0, 0)]
        assert match([cue(0, 0.99)], [cue(0, 2)]) == []

    def test_one_to_one(self) -> None:
        # A true cue found in two pieces: the larger piece is matched, the other is invented.
        assert match([cue(0, 0.5), cue(0.5, 2)], [cue(0, 2)]) == [(1, 0)]

    def test_the_text_decides_a_tie(self) -> None:
        found = [cue(0, 2, "上面"), cue(0, 2, "下面")]
        assert match(found, [cue(0, 2, "下面"), cue(0, 2, "上面")]) == [(1, 0), (0, 1)]

    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12), st.integers(0, 3))
    def test_never_pairs_a_cue_twice(self, spans: list[tuple[int, int]], shift: int) -> None:
        true = [cue(start, start + length) for start, length in spans]
        found = [cue(start + shift, start + length + shift) for start, length in spans]
        pairs = match(found, true)
        assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
        assert shift or len(pairs) == len(spans)


class TestScoreClip:
    def test_by_hand(self) -> None:
        """Three true cues: one right but a frame early, one with a wrong character two frames late, one missed."""
        true = truth(cue(1, 2, "你好！"), cue(2, 4, "今天天气"), cue(5, 6, "走"))
        found = [
            TrueCue(Fraction(24, 25), Fraction(2), "你好！"),
            TrueCue(Fraction(52, 25), Fraction(4), "今天大气"),
            cue(8, 9, "卜"),
        ]
        score = score_clip(found, true, Fraction(10), "clip")
        assert score.cues.true_positives == 2
        assert score.cues.false_positives == score.cues.false_negatives == 1
        # 你好!今天大气卜 against 你好!今天天气走: two of eight characters.
        assert score.whole["with_punctuation"] == Edits(2, 8)
        assert score.whole["without_punctuation"] == Edits(2, 7)
        assert score.per_cue["with_punctuation"] == (Edits(0, 3), Edits(1, 4), Edits(1, 1))
        assert score.exact == 1
        assert score.start_errors == (1.0, 2.0)
        assert score.end_errors == (0.0, 0.0)

    def test_nothing_to_find(self) -> None:
        assert score_clip([], truth(), Fraction(10)).whole["with_punctuation"].accuracy == 1
        invented = score_clip([cue(1, 2, "日")], truth(), Fraction(10))
        assert invented.whole["with_punctuation"].accuracy == 0
        assert invented.cues.false_positives == 1

    def test_a_cue_in_the_wrong_place_is_missed_and_invented(self) -> None:
        score = score_clip([cue(5, 6)], truth(cue(1, 2)), Fraction(10))
        assert (score.cues.false_positives, score.cues.false_negatives) == (1, 1)
        assert score.whole["with_punctuation"].accuracy == 1
        assert score.per_cue["with_punctuation"][0].accuracy == 0

    def test_unscored_cues_count_for_nothing(self) -> None:
        true = truth(cue(1, 2, "好"), cue(3, 5, "半個字", scored=False))
        score = score_clip([cue(1, 2, "好"), cue(3, 4, "半"), cue(4, 5.5, "字")], true, Fraction(10))
        assert score.whole["with_punctuation"] == Edits(0, 1)
        assert (score.cues.true_positives, score.cues.false_positives) == (1, 0)

    def test_a_scored_cue_beside_an_unscored_one_counts(self) -> None:
        """A line that runs off the picture, and a subtitle below it for a part of its time or for all of it."""
        for end in (2, 5):
            true = truth(cue(1, 5, "半個字長", scored=False), cue(1, end, "走吧"))
            score = score_clip([cue(1, 5, "半個字"), cue(1, end, "走吧")], true, Fraction(10))
            assert score.whole["with_punctuation"] == Edits(0, 2)
            assert (score.cues.true_positives, score.cues.false_positives) == (1, 0)
            missed = score_clip([cue(1, 5, "半個字")], true, Fraction(10))
            assert (missed.cues.true_positives, missed.cues.false_positives) == (0, 0)

    def test_rough_times_are_not_scored(self) -> None:
        score = score_clip([cue(1.1, 2)], truth(cue(1, 2), rate=None), Fraction(10))
        assert score.cues.true_positives == 1
        assert score.start_errors == score.end_errors == ()

    def test_two_lines_may_stand_on_one(self) -> None:
        score = score_clip([cue(1, 2, "上行 下行")], truth(cue(1, 2, "上行\n下行")), Fraction(10))
        assert [score.whole[form].distance for form in score.whole] == [0, 0, 0]

    def test_cues_are_joined_in_order_of_time(self) -> None:
        assert joined([cue(3, 4, "二"), cue(1, 2, "一")]) == "一\n二"


class TestSummary:
    def test_by_hand(self) -> None:
        right = score_clip([cue(1, 2, "一二三四")], truth(cue(1, 2, "一二三四")), Fraction(30))
        half = score_clip([cue(1, 2, "一二")], truth(cue(1, 2, "一三"), cue(4, 6, "四五")), Fraction(30))
        summary = summarise([right, half], np.random.default_rng(1), resamples=200)
        assert summary.clips == 2
        assert summary.true_cues == 3
        # Clip 2 gives 一二 for 一三四五: one substitution and two deletions of four.
        assert summary.end_to_end["with_punctuation"].value == pytest.approx((1 + 1 / 4) / 2)
        assert summary.character["with_punctuation"].value == pytest.approx(5 / 8)
        assert summary.per_cue["with_punctuation"].value == pytest.approx((1 + 0.5 + 0) / 3)
        assert summary.exact.value == pytest.approx(1 / 3)
        assert summary.recall.value == pytest.approx(2 / 3)
        assert summary.precision.value == 1
        assert summary.invented == 0
        assert summary.start is not None
        assert summary.start.median == 0
        assert summary.end_to_end["with_punctuation"].low == pytest.approx(0.25)
        assert summary.end_to_end["with_punctuation"].high == 1

    def test_invented_a_minute(self) -> None:
        empty = score_clip([cue(1, 2), cue(3, 4)], truth(), Fraction(30))
        assert summarise([empty], np.random.default_rng(1)).invented_per_min == 4

    def test_one_clip_has_no_interval(self) -> None:
        summary = summarise([score_clip([], truth(cue(1, 2)), Fraction(30))], np.random.default_rng(1))
        assert summary.recall.value == 0
        assert math.isnan(summary.recall.low)
        assert summary.start is None

    def test_percentiles(self) -> None:
        found = timing([0.0] * 19 + [10.0])
        assert found is not None
        assert (found.median, found.n) == (0, 20)
        # Position 0.95 x 19 = 18.05 of the sorted errors: 5 % of the way from 0 to 10.
        assert found.p95 == pytest.approx(0.5)


DATA = Path(os.environ.get("TAMIS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


class TestReadTruth:
    def test_rendered_clip(self, tmp_path: Path) -> None:
        path = tmp_path / "a.truth.json"
        cues = [{"start": "1001/24000", "end": "5/2", "text": "好\n走", "box": [1, 2, 3, 4]}]
        path.write_text(
            json.dumps({"language": "zh-hans", "tags": ["fade"], "rate": "24000/1001", "cues": cues}),
            encoding="utf-8",
        )
        found = read_truth(path)
        assert found.rate == Fraction(24000, 1001)
        assert found.language == "zh-hans"
        assert found.tags == ("fade",)
        assert found.cues == (TrueCue(Fraction(1001, 24000), Fraction(5, 2), "好\n走"),)

    def test_real_clip(self, tmp_path: Path) -> None:
        path = tmp_path / "a.gt.json"
        cue = {"id": "1", "start": 10.1, "end": 13.875, "text": "好", "edge_cropped": True}
        path.write_text(json.dumps([cue]), encoding="utf-8")
        found = read_truth(path)
        assert found.rate is None
        assert found.cues == (TrueCue(Fraction(101, 10), Fraction(111, 8), "好", scored=False),)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[1]",
            "[" * 100_000,
            '{"rate": "1/0", "cues": []}',
            '{"rate": "-25", "cues": [], "language": "ja", "tags": []}',
            '{"rate": 0, "cues": [], "language": "ja", "tags": []}',
            '[{"start": 1, "end": "x"}]',
        ],
    )
    def test_anything_else_is_told_in_a_sentence(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.truth.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"a\.truth\.json"):
            read_truth(path)

    def test_the_real_film(self) -> None:
        path = DATA / "subtitles" / "real_clips" / "animation_band.gt.json"
        if not path.exists():
            pytest.skip(f"{path} is not there")
        found = read_truth(path)
        assert len(found.cues) == 143
        assert sum(cue.scored for cue in found.cues) == 141
        scored = [cue for cue in found.cues if cue.scored]
        score = score_clip(scored, found, Fraction(400))
        assert score.exact == score.cues.true_positives == 141
        assert score.whole["with_spaces"].accuracy == 1
