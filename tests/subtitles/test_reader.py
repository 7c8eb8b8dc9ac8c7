"""The whole reader on the bundled clip, and its smaller decisions on records made by hand."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tamis.errors import InputError, UsageError
from tamis.subtitles import read
from tamis.subtitles.evaluate import TrueCue, Truth, score_clip
from tamis.subtitles.formats import parse
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.reader import (
    SeenLine,
    evidence,
    to_line,
)
from tamis.subtitles.recognise import Sighting
from tamis.subtitles.search import ReadCharacter, Reading

SAMPLES = Path(__file__).parents[2] / "src" / "tamis" / "subtitles" / "samples"


def test_the_bundled_clip_is_read_with_exact_times() -> None:
    told: list[float] = []
    cues = read(SAMPLES / "moonlight.mp4", pictures=True, progress=told.append)
    truth = parse(SAMPLES / "moonlight.srt")
    score = score_clip(
        cues, Truth(tuple(TrueCue(c.start, c.end, c.text) for c in truth), Fraction(24)), Fraction(16)
    )
    assert score.cues.true_positives >= len(truth) - 1 and score.cues.false_positives <= 1
    assert score.whole["with_punctuation"].accuracy > 0.85
    assert np.median(score.start_errors) < 0.1 and np.median(score.end_errors) < 0.1
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1
    assert all(cue.picture.startswith(b"\x89PNG") for cue in cues)
    two_lines = [cue for cue in cues if len(cue.lines) == 2]
    assert len(two_lines) == 1 and two_lines[0].lines[0].box[1] < two_lines[0].lines[1].box[1]


def test_a_region_without_subtitles_has_none() -> None:
    assert read(SAMPLES / "moonlight.mp4", region=(0, 0, 960, 250)) == []


@pytest.mark.parametrize("region", [(960, 0, 970, 10), (0, 5000, 960, 6000)])
def test_a_region_outside_of_the_picture_is_wrong_usage(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match=r"lies outside of the picture, which is 960 x \d+ px"):
        read(SAMPLES / "moonlight.mp4", region=region)


def test_the_function_is_what_the_package_exports() -> None:
    import tamis.subtitles as package

    assert all(hasattr(package, name) for name in package.__all__)


def test_an_unknown_language_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="zh-hans"):
        read(SAMPLES / "moonlight.mp4", language="klingon")


def test_a_text_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text("not a film")
    with pytest.raises(InputError):
        read(path)


def _lattice(mass: list[float], p: list[float]) -> Lattice:
    n = len(mass)
    return Lattice(
        position=np.arange(n, dtype=np.float32) + 2,
        log_centre=np.log(np.array(mass, np.float32)),
        log_skip=np.log1p(-np.array(mass, np.float32)),
        log_space=np.full(n + 1, -9, np.float32),
        labels=np.zeros((n, 1), np.int32),
        log_class=np.log(np.array(p, np.float32))[:, None],
    )


def _reading(text: str) -> Reading:
    return Reading(tuple(ReadCharacter((i,), c, 0.9) for i, c in enumerate(text)), -0.1)


def test_evidence_is_where_and_which() -> None:
    assert evidence(_lattice([0.9] * 4, [0.8] * 4), _reading("四个字啊")) == pytest.approx((0.9, 0.72))
    assert evidence(_lattice([0.9] * 4, [0.8] * 4), Reading((), 0.0)) == (0, 0)


def test_characters_go_back_to_the_frame() -> None:
    sighting = Sighting(*(np.zeros(0, np.float32),) * 4)
    line = to_line(
        SeenLine(sighting, (100, 50, 400, 90), 30.0), _lattice([0.9] * 3, [0.9] * 3), _reading("好天气")
    )
    assert line.text == "好天气"
    assert line.characters[0].box == (145, 50, 175, 90)  # its centre is 2 SCW from the left edge of the strip
    assert line.box == (145, 50, 235, 90)
