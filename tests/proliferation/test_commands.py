"""python -m pytest tests/proliferation/test_commands.py"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tamis.batch import Item
from tamis.cli import main
from tamis.errors import InputError
from tamis.proliferation.commands import SAMPLES, demo
from tamis.proliferation.detect import CANDIDATES, FOLDER, NETWORK
from tamis.proliferation.score import PUBLISHED_MODEL
from tamis.proliferation.scoring import submission


def test_the_demo_scores_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (FOLDER / f"{NETWORK}.json").exists():
        pytest.skip("needs the published mitosis detector")
    demo(tmp_path)
    record = json.loads((tmp_path / "phantom" / "score.json").read_text())
    assert record["provenance"]["detector"]["name"] == NETWORK
    assert 0 < record["provenance"]["detector"]["threshold"] < 1
    assert record["predicted"]["pam50_proliferation"]["model"] == "svr.tupac16-scores"
    printed = capsys.readouterr().out
    assert "drawn, not tissue" in printed
    told = re.search(r"mitotic score (\d), (\d+) mitoses, among them (\d) of the 9 drawn", printed)
    assert told is not None
    score, count, hits = map(int, told.groups())
    assert (score, count) == (record["mitotic_score"], record["count"])
    assert 7 <= hits <= min(count, 9)
    assert (tmp_path / "phantom" / "report.html").exists()
    assert (tmp_path / "results.csv").exists()


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *given: str | Path) -> str:
    """The sentence that `score` ends with before it has touched a slide."""
    command = [
        "proliferation",
        "score",
        str(SAMPLES / "phantom.tif"),
        "-o",
        str(tmp_path / "out"),
        *map(str, given),
    ]
    assert main(command) == 1
    assert not (tmp_path / "out").exists()
    return capsys.readouterr().err


def test_weights_without_their_file_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PUBLISHED_MODEL, tmp_path)
    assert ".npz is missing" in refused(tmp_path, capsys, "--model", tmp_path / PUBLISHED_MODEL.name)
    for name in (NETWORK, CANDIDATES):
        shutil.copy(FOLDER / f"{name}.json", tmp_path)
    assert "is missing" in refused(tmp_path, capsys, "--detector", tmp_path)


def test_a_table_of_scores_is_no_table_of_mitoses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scores.csv").write_text("1,0.5\n2,0.1\n")
    assert "holds no positions" in refused(tmp_path, capsys, "--mitoses", tmp_path / "scores.csv")


def test_a_submission_that_cannot_be_written_is_told_before_the_scoring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "it is a folder" in refused(tmp_path, capsys, "--submission", tmp_path)


def row(name: str, pam50: float | None = 0.5) -> dict[str, Any]:
    return {"slide": name, "mitotic_score": 2, "pam50_proliferation": pam50}


def test_no_row_of_a_submission_is_another_slide(tmp_path: Path) -> None:
    file = tmp_path / "te.csv"
    last = Item(tmp_path / "TE-003.svs", tmp_path / "out" / "TE-003" / "score.json")
    with pytest.raises(InputError, match=r"TE-003\.svs could not be scored"):
        submission([row("TE-001"), row("TE-002")], file, [last])
    with pytest.raises(InputError, match="a0 has the number 0"):
        submission([row("a0"), row("a1"), row("a2")], file)
    assert not file.exists()


def test_a_task_that_is_not_entered_for_want_of_one_value_is_told(tmp_path: Path) -> None:
    file = tmp_path / "te.csv"
    (told,) = submission([row("a1"), row("a2", None)], file)
    assert "task 2 is not entered, as a2 has no PAM50 value" in told
    assert file.read_text() == "2,-1\n2,-1\n"
    assert submission([row("a1", None), row("a2", None)], file) == submission([row("a1")], file) == []
