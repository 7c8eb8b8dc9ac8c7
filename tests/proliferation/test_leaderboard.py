"""python -m pytest tests/proliferation/test_leaderboard.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.proliferation.evaluate import Options
from tamis.proliferation.leaderboard import Leaderboard, draw, judge


def board(folder: Path, *names: str) -> Leaderboard:
    """Submissions under these names, of which each has the truth's scores."""
    for name in ("truth.csv", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1,0.5\n2,0.7\n3,0.1\n1,0.2\n")
    options = Options(resamples=10)
    return judge(folder / "truth.csv", [folder / name for name in names], options, 0.25)


def test_submissions_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Also from one whose own name is what the second of them would get."""
    found = board(tmp_path, "x/a.csv", "y/a.csv", "x/a (2).csv", "z/a.csv")
    assert [evaluation.name for evaluation in found.evaluations] == ["a", "a (3)", "a (2)", "a (4)"]
    assert [difference.other for difference in found.differences] == ["a (3)", "a (2)", "a (4)"] * 2


def test_a_name_with_dollars_is_no_formula(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(board(tmp_path, "$a_b_c$.csv", "$\\frac$.csv"), tmp_path / "board.png")
    assert (tmp_path / "board.png").stat().st_size > 5000
