"""The verbs as they are typed.  python -m pytest tests/weakseg/test_commands.py"""

from __future__ import annotations

import json
import os
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
from saved import save, write_table
from toy import toy_record

from tamis.cli import main
from tamis.errors import InputError
from tamis.weakseg import segment
from tamis.weakseg.network import load
from tamis.weakseg.phantom import phantom
from tamis.weakseg.source import expand_sources


@pytest.fixture
def toy(tmp_path: Path) -> str:
    return str(toy_record(tmp_path / "toy"))


def fields(folder: Path) -> Path:
    for index in range(3):
        save(folder / f"{index}.png", phantom(120, 80, seed=index)[0])
    return folder


def test_a_folder_with_bad_files_is_finished_and_each_is_named(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken, blank, vanished: exit status 1, the others whole, nothing half-written."""
    folder = fields(tmp_path / "in")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(folder / "blank.png", np.full((80, 120, 3), 244, np.uint8))
    out = tmp_path / "out"
    arguments = ["weakseg", "segment", str(folder), str(tmp_path / "gone.png"), "-o", str(out)]
    status = main([*arguments, "--mpp", "2", "--weights", toy, "--json"])
    captured = capsys.readouterr()
    records = {Path(r["input"]).stem: r for r in map(json.loads, captured.out.splitlines())}
    assert status == 1
    assert {name for name, r in records.items() if r["status"] == "done"} == {"0", "1", "2"}
    assert "broken" in records["broken"]["error"]
    assert "no stained tissue" in records["blank"]["error"]
    assert "does not exist" in records["gone"]["error"]
    assert len(list(out.glob("[0-2].*"))) == 12
    assert {p.name for p in out.iterdir() if not p.name[0].isdigit()} == {"journal.jsonl"}
    assert "Traceback" not in captured.err


def test_resume_does_what_is_missing(tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = fields(tmp_path / "in"), tmp_path / "out"
    arguments = ["weakseg", "segment", str(folder), "-o", str(out), "--mpp", "2", "--weights", toy]
    assert main(arguments) == 0
    (out / "1.summary.json").unlink()
    capsys.readouterr()
    assert main([*arguments, "--resume", "--jobs", "2"]) == 0
    assert "1 segmented, 0 failed, 2 done before" in capsys.readouterr().err
    assert main([*arguments, "--resume", "--threshold", "0.9"]) == 0
    assert "3 segmented, 0 failed, 0 done before" in capsys.readouterr().err
    assert json.loads((out / "1.summary.json").read_text())["threshold"] == 0.9


def segmenting(picture: Path, out: Path, weights: str) -> list[str]:
    return ["weakseg", "segment", str(picture), "-o", str(out), "--mpp", "2", "--weights", weights]


def test_the_same_call_in_python(tmp_path: Path, toy: str) -> None:
    picture = fields(tmp_path / "in") / "0.png"
    arguments = segmenting(picture, tmp_path / "out", toy)
    assert main([*arguments, "--threshold", "0.3", "--whole"]) == 0
    typed = json.loads((tmp_path / "out" / "0.summary.json").read_text())
    called = segment(picture, tmp_path / "again", mpp=2, threshold=0.3, weights=toy, whole=True)
    assert {**called, "seconds": 0} == {**typed, "seconds": 0}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are text there")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text_and_a_terminal_that_shows_little(
    tmp_path: Path, toy: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / os.fsdecode(b"caf\xe9 \xe6\x9c\x88.png")  # Latin-1, then a moon in UTF-8
    picture.write_bytes((fields(tmp_path / "in") / "0.png").read_bytes())
    shown = TextIOWrapper(BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", shown)
    arguments = segmenting(picture, tmp_path / "out", toy)
    assert main([*arguments, "--json"]) == 0
    told = json.loads(shown.buffer.getvalue().decode(encoding))  # type: ignore[attr-defined]
    assert told["input"] == str(picture)
    (summary,) = (tmp_path / "out").glob("*.summary.json")
    assert json.loads(summary.read_text(encoding="utf-8"))["image"] == str(picture)
    (polygons,) = (tmp_path / "out").glob("*.geojson")
    assert json.loads(polygons.read_text(encoding="utf-8"))["features"]


def test_results_beside_the_pictures_are_no_pictures(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fields(tmp_path / "in")
    arguments = ["weakseg", "segment", str(folder), "-o", str(folder), "--mpp", "2", "--weights", toy]
    assert [main(arguments), main(arguments)] == [0, 0]
    assert len(list(folder.glob("*.summary.json"))) == 3
    assert expand_sources([str(folder / "0.overlay.png")]) == [str(folder / "0.overlay.png")]  # by its name
    for picture in folder.glob("[0-2].png"):
        picture.unlink()
    assert main(arguments) == 2
    assert "holds results of segment and no picture" in capsys.readouterr().err


def test_unknown_resolution_fails_with_the_way_out(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fields(tmp_path / "in")
    assert (
        main(["weakseg", "segment", str(folder / "0.png"), "-o", str(tmp_path / "out"), "--weights", toy])
        == 1
    )
    assert "--mpp" in capsys.readouterr().err


@pytest.mark.parametrize("mpp", ["0", "-1", "much"])
def test_an_impossible_resolution_is_wrong_usage(tmp_path: Path, mpp: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["weakseg", "segment", "a.png", "-o", str(tmp_path), "--mpp", mpp])
    assert caught.value.code == 2


def test_urls_are_opened_by_fsspec(tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fields(tmp_path / "in")
    arguments = ["-o", str(tmp_path / "out"), "--mpp", "2", "--weights", toy]
    assert (
        main(["weakseg", "segment", f"file://{folder}/0.png", f"file://{folder}/[12].png", *arguments]) == 0
    )
    assert len(list((tmp_path / "out").glob("*.summary.json"))) == 3
    assert main(["weakseg", "segment", f"file://{folder}/absent.png", *arguments]) == 1
    assert "cannot be fetched" in capsys.readouterr().err


def test_two_inputs_of_one_name_are_refused(
    tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields(tmp_path / "a"), fields(tmp_path / "b")
    inputs = [str(tmp_path / side / "0.png") for side in "ab"]
    assert main(["weakseg", "segment", *inputs, "-o", str(tmp_path / "out"), "--weights", toy]) == 2
    assert "would both be written" in capsys.readouterr().err


def test_a_record_without_a_threshold_is_no_network(toy: str) -> None:
    record = Path(toy)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"operating_point": {}}))
    with pytest.raises(InputError, match="is a record of other weights"):
        load(record)


def test_a_run_in_place_of_weights_is_told_the_way(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tamis weakseg export .* makes one"):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, "{}", '{"name": "x"}', "no json"])
def test_weights_that_are_none_are_named(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "w.json"
    if content is not None:
        record.write_text(content)
    assert main(["weakseg", "segment", "a.png", "-o", str(tmp_path / "out"), "--weights", str(record)]) == 1
    assert "w.json" in capsys.readouterr().err


def test_check_says_what_is_wrong(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weakseg", "check", str(dataset)]) == 0
    assert "8 sound images, 4 with cancer (4 with an area)" in capsys.readouterr().out
    write_table(dataset, ["name", "label"], [["field_0", "1"], ["field_0", "1"], ["other", "0"]])
    assert main(["weakseg", "check", str(dataset), "--json"]) == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert any("there twice" in fault for fault in faults)
    assert any("no image other" in fault for fault in faults)
    assert main(["weakseg", "check", str(dataset / "absent")]) == 1
