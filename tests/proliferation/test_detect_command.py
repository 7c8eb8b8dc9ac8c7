"""python -m pytest tests/proliferation/test_detect_command.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.proliferation.detect_command import _fields


def test_a_field_never_leads_out_of_the_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose folder is written as .. is named after what that is."""
    (tmp_path / "05" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "05" / "here")
    names = ["../01.png", "../../06/02.png", "03.png", "here/../04.png", "/05.png"]
    assert _fields(names, tmp_path / "out") == {
        "../01.png": "05/01",
        "../../06/02.png": "06/02",
        "03.png": "03",
        "here/../04.png": "here/04",
        "/05.png": "05",
    }
