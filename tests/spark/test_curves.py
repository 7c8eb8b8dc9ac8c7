"""python -m pytest tests/spark/test_curves.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="training needs the extra: pip install tamis[train]")

from tamis.spark.curves import draw


def test_a_run_of_no_step_has_no_picture(tmp_path: Path) -> None:
    draw(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_lines_become_a_picture(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 1, "dev_loss": 3.1, "active_share_0": 0.08, "attended_0": 31.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
