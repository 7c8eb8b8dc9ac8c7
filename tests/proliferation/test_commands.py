"""python -m pytest tests/proliferation/test_commands.py"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tamis.proliferation.commands import demo
from tamis.proliferation.detect import FOLDER, NETWORK


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
