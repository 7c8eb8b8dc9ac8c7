"""python -m pytest tests/test_cli.py"""

from __future__ import annotations

import argparse
import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tamis import __version__, cli, doctor
from tamis.errors import InputError, MissingExtraError, TamisError, UsageError


class Toy:
    """Play with toys.

    A capability whose one verb raises what the test puts here.
    """

    raises: BaseException | None = None
    defaults: Mapping[str, bool] = MappingProxyType({})

    def add_commands(self, verbs: argparse._SubParsersAction, common: argparse.ArgumentParser) -> None:  # type: ignore[type-arg]
        parser = verbs.add_parser("play", parents=[common])
        parser.set_defaults(run=self.run, **self.defaults)

    def run(self, options: argparse.Namespace) -> int:
        if self.raises is not None:
            raise self.raises
        print("played")
        return 0

    def demo(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "toy.txt").write_text("a toy")
        print("played with a toy")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    monkeypatch.setattr(cli, "CAPABILITIES", {"toys": toy})
    return toy


def test_a_verb_runs(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["toys", "play"]) == 0
    assert capsys.readouterr() == ("played\n", "")


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (InputError("film.mp4 is no video."), 1, "film.mp4 is no video."),
        (UsageError("Two inputs need -o."), 2, "Two inputs need -o."),
        (KeyboardInterrupt(), 130, "Stopped. Nothing half-written was left.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device."),
        (PermissionError(errno.EACCES, "Permission denied", "x.mp4"), 1, "x.mp4: Permission denied."),
        (
            ZeroDivisionError("by zero"),
            1,
            "An unexpected fault, ZeroDivisionError: by zero. Run again with --debug",
        ),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), 1, 'run  pip install "tamis[subtitles]"'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_a_sentence_and_a_status(
    toy: Toy, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, sentence: str
) -> None:
    toy.raises = error
    assert cli.main(["toys", "play"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tamis: ") and err.count("\n") == 1
    assert sentence in err


@pytest.mark.parametrize(
    ("default", "how"),
    [
        ({"resume": False}, "; a batch goes on with --resume."),
        ({"trains": True}, "; the same command goes on from"),
    ],
)
def test_who_stops_a_command_is_told_how_it_goes_on(
    toy: Toy, capsys: pytest.CaptureFixture[str], default: dict[str, bool], how: str
) -> None:
    toy.raises, toy.defaults = KeyboardInterrupt(), default
    assert cli.main(["toys", "play"]) == 130
    assert how in capsys.readouterr().err


def test_what_a_killed_worker_may_have_left_is_not_denied(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.raises, toy.defaults = KeyboardInterrupt(), {"resume": False}
    toy.raises.add_note("Hidden files may be left in out.")
    assert cli.main(["toys", "play"]) == 130
    err = capsys.readouterr().err
    assert err == "tamis: Stopped; a batch goes on with --resume. Hidden files may be left in out.\n"


def test_debug_shows_the_whole_story(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.raises = TamisError("It failed.")
    assert cli.main(["toys", "play", "--debug"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "in run" in err and err.endswith("tamis: It failed.\n")


@pytest.mark.parametrize(
    "arguments", [[], ["toys"], ["toys", "fight"], ["toys", "play", "--loud"], ["nothing"]]
)
def test_wrong_usage_is_a_sentence_and_status_2(
    toy: Toy, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("tamis") and "--help" in err and err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tamis {__version__}\n"


def test_demo_goes_where_it_is_told(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "-o", str(tmp_path / "here")]) == 0
    assert (tmp_path / "here" / "toys").is_dir()
    assert "<pre>played with a toy</pre>" in (tmp_path / "here" / "index.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith("played with a toy\n")


@pytest.mark.parametrize(
    "absent",
    [ModuleNotFoundError("No module named 'cv2'", name="cv2"), MissingExtraError("cv2", "whatever")],
    ids=lambda error: type(error).__name__,
)
def test_the_demo_goes_on_without_a_capability_whose_extra_is_absent(
    toy: Toy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: Exception,
) -> None:
    def demo(folder: Path) -> None:
        print("so far")
        raise absent

    lacking = Toy()
    monkeypatch.setattr(lacking, "demo", demo)
    monkeypatch.setattr(cli, "CAPABILITIES", {"weakseg": lacking, "toys": toy})
    assert cli.main(["demo", "-o", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "played with a toy\n" in out and "all of it on one page" in out
    assert err.startswith("tamis: weakseg was skipped. ") and err.count("\n") == 1
    assert "'cv2'" in err and 'pip install "tamis[slides]"' in err
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "so far" in page and "weakseg was skipped" in page and "played with a toy" in page


def test_the_demo_knows_the_extra_of_every_capability() -> None:
    assert set(cli.EXTRAS) == set(cli.CAPABILITIES)
    assert set(cli.EXTRAS.values()) <= set(doctor.extras())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tamis", "doctor"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr == "tamis: No space left on device.\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tamis", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 1


def test_doctor_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in (f"tamis {__version__}", "threads", "native kernels", "onnxruntime", "weights"):
        assert word in out


def test_doctor_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["tamis"] == __version__
    assert record["threads"] >= 1
    assert record["extras"]["subtitles"]["av"]
    assert all(weights["licence"] and not weights["fault"] for weights in record["weights"])
