"""Plans of the end-to-end clips, and one clip rendered: pytest tests/benchmarks/test_subtitles_clips.py"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from subtitles_footage import FOOTAGE, Move, Sticker, footage
from subtitles_looks import THEMES, Event, Look, ass_file, centiseconds
from subtitles_plan import (
    BEFORE,
    COUNTS,
    FAST,
    FIRST_THEME,
    RATES,
    VARIABLE_BASE,
    Planned,
    boundary_cs,
    event,
    kept_frames,
)
from subtitles_sentences import FACES

from tamis.subtitles.typefaces import TEST_FACES

DATA = (
    Path(os.environ.get("TAMIS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "subtitles"
)


@pytest.mark.parametrize("rate", [*set(RATES), FAST, VARIABLE_BASE])
def test_rounding_to_centiseconds_never_moves_a_cue_to_another_frame(rate: Fraction) -> None:
    for frame in range(1, 3000):
        boundary = Fraction(boundary_cs(frame, rate), 100)
        # libass compares whole milliseconds, so a millisecond must lie between.
        assert (frame - 1) / rate + Fraction(1, 1000) < boundary < frame / rate - Fraction(1, 1000)


def test_a_fade_passes_one_half_at_the_ends_of_the_cue() -> None:
    drawn = event(Planned(50, 100, "好", 2, half_in_cs=10, half_out_cs=20), Fraction(25))
    assert drawn.start_cs + drawn.fade_in_ms // 20 == boundary_cs(50, Fraction(25))
    assert drawn.end_cs - drawn.fade_out_ms // 20 == boundary_cs(100, Fraction(25))
    assert (drawn.fade_in_ms, drawn.fade_out_ms) == (200, 400)


def test_kept_frames_follow_the_expression() -> None:
    kept, expression = kept_frames(1000, np.random.default_rng(3))
    assert kept[0] == 0
    assert 200 < len(kept) < 1000
    assert set(np.diff(kept)) > {2}
    assert expression.count("if(lt(n,") == expression.count("not(mod(n,")


def test_faces_and_footage_of_the_groups_are_disjoint() -> None:
    files = {g: {face.file for faces in FACES[g].values() for face in faces} for g in FACES}
    before = BEFORE["test"]
    held_out = files["test"].union(*(files[group] for group in before))
    assert not files["dev"] & held_out
    assert not set(FOOTAGE["dev"]) & set(FOOTAGE["test"])
    for language in ("ja", "ko"):
        assert not set(FACES["test"][language]) & {face for g in before for face in FACES[g][language]}
    for name in held_out:
        assert any(part in name for part in TEST_FACES), name  # no training line is set in it


def test_every_theme_occurs_in_the_chinese_test_clips() -> None:
    for language in ("zh-hans", "zh-hant"):
        first, count = FIRST_THEME["test"].get(language, 0), COUNTS["test"][language]
        assert {(first + n) % len(THEMES) for n in range(count)} == set(range(len(THEMES)))


def test_ass_times() -> None:
    assert centiseconds(0) == "0:00:00.00"
    assert centiseconds(360000 + 6150 + 7) == "1:01:01.57"


def test_ass_file() -> None:
    face = FACES["test"]["zh-hant"][1]
    if not face.path.exists():
        pytest.skip(f"{face.path} is not installed")
    text = ass_file((1280, 720), face, 40, Look(box=True), 30, [Event(10, 250, "上\n下", alignment=8)])
    style = next(line for line in text.splitlines() if line.startswith("Style: "))
    assert style.split(",")[1:3] == ["cwTeXYen", "40.00"]
    assert style.split(",")[15] == "3"
    assert text.splitlines()[-1] == "Dialogue: 0,0:00:00.10,0:00:02.50,Default,,0,0,0,,{\\an8}上\\N下"


def test_footage_is_the_same_from_the_same_seed() -> None:
    shots = [("line-art", 3), ("texture", 2), ("gradient", 2)]
    first, second = (np.stack(list(footage(7, [], shots, (240, 136), 25.0))) for _ in range(2))
    assert first.shape == (7, 136, 240, 3)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, np.stack(list(footage(8, [], shots, (240, 136), 25.0))))


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_has_its_size_and_shows_the_right_part(flip: bool) -> None:
    """Grey levels rise across the picture, so that a view's own levels say which part it shows."""
    ramp = np.repeat(np.linspace(0, 255, 301, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    move = Move((1.0, 0.0, 0.0), (2.0, 1.0, 1.0), flip)
    for part in np.linspace(0, 1, 11):
        seen = move.view(ramp, float(part), (320, 180))
        assert seen.shape == (180, 320, 3)
    # Twice enlarged at the far end: the right half of the picture, or the left half seen in a mirror.
    assert seen[0, 0, 0] == pytest.approx(127, abs=3)
    assert seen[0, -1, 0] == pytest.approx(0 if flip else 255, abs=3)


def test_a_sticker_is_cut_at_the_edge_and_moves() -> None:
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    sticker = Sticker(white, np.ones((4, 4, 1), dtype=np.float32), x=-2, y=3, vx=1, first=5)
    frame = np.zeros((6, 8, 3), dtype=np.uint8)
    sticker.paste(frame, 4)
    assert not frame.any()
    sticker.paste(frame, 5)
    assert frame[3:, :2].all()
    assert frame.any(axis=2).sum() == 6
    sticker.paste(frame, 100)
    assert frame.any(axis=2).sum() == 6


needs_tools = pytest.mark.skipif(
    not (DATA / "text").exists() or not shutil.which("ffmpeg"), reason=f"needs ffmpeg and {DATA}"
)


@needs_tools
def test_sentences_can_be_drawn_and_are_unseen() -> None:
    from subtitles_sentences import Sentences, drawn, read_lines

    language = "ja"  # the smallest text
    face = FACES["dev"][language][0]
    if not face.path.exists():
        pytest.skip(f"{face.path} is not installed")
    sentences = Sentences(DATA, language, "dev")
    train = [line for lines in read_lines(DATA, language) for n, line in enumerate(lines) if n % 20 > 1]
    rng = np.random.default_rng(5)
    for _ in range(20):
        line = sentences.draw(rng, face, 12, "full")
        assert 1 <= len(line) <= 12 + 4  # a mark or ellipsis may be added
        assert all(drawn(face, c) for c in line)
        if len(line) >= 8:
            assert not any(line in other for other in train)


@needs_tools
def test_lines_of_the_former_test_set_are_not_drawn_again() -> None:
    from subtitles_sentences import Sentences

    face = FACES["test"]["ja"][0]
    if not face.path.exists():
        pytest.skip(f"{face.path} is not installed")
    fresh = Sentences(DATA, "ja", "test")
    rng = np.random.default_rng(7)
    seen = {fresh.draw(rng, face, 12, "film") for _ in range(60)}
    rng = np.random.default_rng(7)
    others = Sentences(DATA, "ja", "test", seen)
    again = {others.draw(rng, face, 12, "film") for _ in range(60)}
    assert not {line for line in again & seen if len(line) >= Sentences.min_unique}


@needs_tools
def test_the_drawn_times_of_a_fade_with_a_shadow_are_checked(tmp_path: Path) -> None:
    from subtitles_clips import _check_cue, check_times, drawn_ink, write_script
    from subtitles_plan import Clip

    face = FACES["dev"]["zh-hant"][0]
    if not face.path.exists():
        pytest.skip(f"{face.path} is not installed")
    cue = Planned(40, 90, "你好", 2, half_in_cs=20, half_out_cs=20)
    clip = Clip(
        name="fade", language="zh-hant", seed=2, size=(320, 180), drawn_size=(320, 180), round_trip=False, rate=FAST,
        frames=130, kept=tuple(range(130)), select="", face=face, em_px=20.0, look=Look(shadow=3.0), margin_px=10, crf=20,
        cues=(cue,), shots=(("gradient", 130),), stickers=(), tags=("fade",),
    )  # fmt: skip
    write_script(clip, tmp_path)
    assert len(check_times(clip, tmp_path)) == 1
    letters = replace(clip, look=Look(outline=0.0))
    write_script(letters, tmp_path)
    ink, changed, _ = drawn_ink(letters, tmp_path)
    _check_cue(letters, cue, ink, changed)
    for moved in (replace(cue, first=39), replace(cue, last=91), replace(cue, last=89)):
        with pytest.raises(RuntimeError, match="drawn at other times"):
            _check_cue(letters, moved, ink, changed)


@needs_tools
def test_a_rendered_clip_says_what_is_in_it(tmp_path: Path) -> None:
    """A short clip made whole, checked against itself: exact times, the right face, pictures where the truth says."""
    import av
    from subtitles_clips import render
    from subtitles_plan import Clip

    face = FACES["dev"]["zh-hant"][0]
    if not face.path.exists():
        pytest.skip(f"{face.path} is not installed")
    clip = Clip(
        name="short", language="zh-hant", seed=2, size=(320, 180), drawn_size=(320, 180), round_trip=False,
        rate=Fraction(24000, 1001), frames=40, kept=tuple(range(40)), select="", face=face, em_px=20.0, look=Look(),
        margin_px=10, crf=20, cues=(Planned(5, 17, "你好", 2), Planned(17, 30, "再見", 2)), shots=(("gradient", 40),),
        stickers=(), tags=("plain",),
    )  # fmt: skip
    render(clip, "dev", DATA, tmp_path)
    truth = json.loads((tmp_path / "short.truth.json").read_text(encoding="utf-8"))
    step = Fraction(1001, 24000)
    assert [(Fraction(c["start"]), Fraction(c["end"])) for c in truth["cues"]] == [
        (5 * step, 17 * step),
        (17 * step, 30 * step),
    ]
    with av.open(str(tmp_path / "short.mp4")) as container:
        luma = np.stack([frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)])
    left, top, right, bottom = truth["cues"][0]["box"]
    changes = np.abs(np.diff(luma[:, top:bottom, left:right], axis=0)).mean(axis=(1, 2))
    assert sorted(np.argsort(changes)[-3:] + 1) == [5, 17, 30]
