"""python -m pytest tests/proliferation/test_scoring_inputs.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.errors import UsageError
from tamis.proliferation import scoring
from tamis.proliferation.scoring import inputs


def test_several_files_of_one_series_are_one_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the pattern *.dcm names them, by the shell or here; what cannot be read is left to fail by itself."""
    monkeypatch.setattr(scoring, "series_uid", lambda path: path.stem[0].strip("x"))
    files = [tmp_path / f"{name}.dcm" for name in ("a0", "a1", "b0", "b1", "x0", "x1")]
    for path in files:
        path.touch()
    expected = [str(tmp_path / f"{name}.dcm") for name in ("a0", "b0", "x0", "x1")]
    assert inputs([str(tmp_path / "*.dcm")]) == inputs(list(map(str, files))) == expected
    assert inputs([str(files[1])]) == [str(files[1])]
    assert inputs([str(tmp_path)]) == [str(tmp_path)]
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "a0.dcm"
    other.touch()
    assert inputs([str(files[0]), str(other)]) == [str(files[0]), str(other)], (
        "a copy elsewhere is another slide"
    )


@pytest.mark.parametrize("name", ["a.dcm", "a.MRXS", "a.vms?key=1"])
def test_the_url_of_one_file_of_several_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"one file of a slide that has several.*copy the whole slide"):
        inputs([f"https://host/slides/{name}"])
