"""Which files are compared with which: pytest tests/subtitles/test_compare.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tamis.errors import UsageError
from tamis.subtitles.compare import compare


def srt(path: Path, text: str) -> Path:
    path.write_text(f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n", encoding="utf-8")
    return path


def truth(path: Path, text: str) -> Path:
    path.write_text(json.dumps([{"start": 1, "end": 2, "text": text}]), encoding="utf-8")
    return path


def right(hypotheses: Path, true: Path) -> float:
    return compare(hypotheses, true).score.end_to_end["with_punctuation"].value


def test_what_was_read_and_its_truth_may_lie_in_one_folder(tmp_path: Path) -> None:
    """Whatever their endings: a truth is never what was read, nor what was read a truth."""
    for name, ending in (("a", ".json"), ("b", ".srt")):
        srt(tmp_path / f"{name}.srt", "一二三四")
        truth(tmp_path / f"{name}.gt{ending}", "一二三五") if ending == ".json" else srt(
            tmp_path / f"{name}.gt.srt", "一二三五"
        )
    assert right(tmp_path, tmp_path) == 0.75
    # A machine's JSON knows more than its own .srt, and still is no truth.
    (tmp_path / "a.json").write_text('{"format": "tamis-subtitles", "version": 1, "cues": []}')
    assert right(tmp_path, tmp_path) == (0 + 0.75) / 2


def test_a_file_is_not_compared_with_itself(tmp_path: Path) -> None:
    path = srt(tmp_path / "a.srt", "一")
    link = tmp_path / "b.srt"
    link.symlink_to(path)
    for found, true in ((path, path), (path, link), (tmp_path, tmp_path)):
        with pytest.raises(UsageError, match="both as what was read and as the truth"):
            compare(found, true)
