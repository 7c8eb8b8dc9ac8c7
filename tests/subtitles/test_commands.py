"""python -m pytest tests/subtitles/test_commands.py"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import toy_reader

from tamis import cli

TOY = Path(__file__).parent / "toy_reader.py"


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Tamis = Callable[..., Done]


@pytest.fixture
def tamis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tamis:
    """The command with the toy reader, in a folder of its own, within this process."""
    monkeypatch.chdir(tmp_path)
    for name, module in toy_reader.modules().items():
        monkeypatch.setitem(sys.modules, name, module)

    def run(*arguments: str) -> Done:
        try:
            status = cli.main(["subtitles", *arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Done(status, *capsys.readouterr())

    return run


def batch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, with the toy reader: workers are processes of their own."""
    command = [sys.executable, str(TOY), "subtitles", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """20 files, 3 of them bad."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(20):
        text = {4: "bad", 9: "crash", 15: "bad"}.get(number, f"第{number}部 你好")
        (folder / f"{number:02d}.mp4").write_text(text, encoding="utf-8")
    return tmp_path


def one(folder: Path, text: str = "你好 再见") -> Path:
    path = folder / "film.mp4"
    path.write_text(text, encoding="utf-8")
    return path


def test_one_video_to_one_file(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    done = tamis("read", "film.mp4", "-o", "out/film.srt")
    assert (done.returncode, done.stdout) == (0, "film.mp4: 2 subtitles; out/film.srt\n") and not done.stderr
    text = (tmp_path / "out" / "film.srt").read_text(encoding="utf-8")
    assert "00:00:00,000 --> 00:00:01,000\n你好\n" in text and "再见" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.srt"]


def test_ass_has_the_glyphs_of_what_was_read(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path, "これはとても良いですね")
    assert tamis("read", "film.mp4", "-o", "film.ass").returncode == 0
    assert "Noto Sans CJK JP" in (tmp_path / "film.ass").read_text(encoding="utf-8")
    assert "Noto Sans CJK KR" in tamis("read", "film.mp4", "--format", "ass", "--language", "ko").stdout


@pytest.mark.parametrize("ending", ["vtt", "ass", "json"])
def test_the_ending_chooses_the_format(tamis: Tamis, tmp_path: Path, ending: str) -> None:
    one(tmp_path)
    assert tamis("read", "film.mp4", "-o", f"film.{ending}").returncode == 0
    start = {"vtt": "WEBVTT", "ass": "[Script Info]", "json": ("{", "[")}[ending]
    assert (tmp_path / f"film.{ending}").read_text(encoding="utf-8").startswith(start)


def test_without_output_the_subtitles_are_printed(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    assert "00:00:00,000 --> 00:00:01,000\n你好\n" in tamis("read", "film.mp4").stdout
    record = json.loads(tamis("read", "film.mp4", "--json").stdout)
    assert [cue["text"] for cue in record["cues"]] == ["你好", "再见"]
    assert record["video"]["name"] == "film.mp4" and record["video"]["width"] > 0


def test_json_tells_what_was_written(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    done = tamis("read", "film.mp4", "-o", "film.srt", "--json")
    assert json.loads(done.stdout) == {
        "input": "film.mp4", "output": "film.srt", "status": "done", "error": "", "cues": 2, "characters": 4,
    }  # fmt: skip


def test_a_folder_that_exists_takes_the_file(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    (tmp_path / "out").mkdir()
    assert tamis("read", "film.mp4", "-o", "out").returncode == 0
    assert (tmp_path / "out" / "film.srt").exists()


def test_a_page_for_proof_reading(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    assert tamis("read", "film.mp4", "-o", "film.srt", "--review", "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "你好" in page and "<html" in page


def test_a_page_alone_beside_printed_subtitles(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    (tmp_path / "pages").mkdir()
    assert "你好" in tamis("read", "film.mp4", "--review", "page.htm").stdout
    assert tamis("read", "film.mp4", "-o", "film.srt", "--review", "pages").returncode == 0
    for page in ("page.htm", "pages/film.html"):
        assert "你好" in (tmp_path / page).read_text(encoding="utf-8")


def test_what_is_printed_has_the_format_that_was_asked_for(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path)
    (tmp_path / "out").mkdir()
    assert tamis("read", "film.mp4", "--format", "vtt").stdout.startswith("WEBVTT")
    assert tamis("read", "film.mp4", "--format", "vtt", "-o", "film.vtt").returncode == 0
    assert tamis("read", "film.mp4", "--format", "ass", "-o", "out").returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.ass"]


def test_piped_subtitles_are_utf_8_whatever_the_terminal_shows(tmp_path: Path) -> None:
    one(tmp_path)
    command = [sys.executable, str(TOY), "subtitles", "read", "film.mp4"]
    environment = os.environ | {"PYTHONIOENCODING": "iso-8859-1", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, env=environment, timeout=300)
    assert "\n你好\n" in done.stdout.decode("utf-8")


def test_no_subtitles_is_an_empty_file_and_a_sentence(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path, "")
    done = tamis("read", "film.mp4", "-o", "film.srt")
    assert done.returncode == 0
    assert done.stderr == "tamis: film.mp4: no subtitles were found; film.srt is empty.\n"
    assert (tmp_path / "film.srt").read_text().strip() == ""


def test_damage_is_told_and_what_is_readable_is_kept(tamis: Tamis, tmp_path: Path) -> None:
    one(tmp_path, "damaged 你好")
    done = tamis("read", "film.mp4", "-o", "film.srt")
    assert done.returncode == 0
    assert done.stderr == "tamis: film.mp4: The file breaks off. What is there was read.\n"
    assert "你好" in (tmp_path / "film.srt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (
            ["film.mp4", "-o", "film"],
            2,
            "film has no known ending: name a file that ends in .srt, .vtt, .ass, .json",
        ),
        (["film.mp4", "-o", "film.mp4"], 2, "has no known ending"),
        (["film.mp4", "other.mp4"], 2, "--resume need a folder for their results: add -o DIR."),
        (["film.mp4", "other.mp4", "-o", "x.srt"], 2, "x.srt names one file, but several inputs, a folder"),
        (["film.mp4", "film.mp4", "-o", "x.srt"], 2, "x.srt names one file, but several inputs, a folder"),
        (["fi*.mp4", "-o", "x.srt"], 2, "x.srt names one file, but several inputs, a folder"),
        (["film.mp4", "-o", "x.srt", "--review", "x.srt"], 2, "x.srt is no name for a page"),
        (["film.mp4", "-o", "x.srt", "--review", "pages"], 2, "pages is no name for a page"),
        (["film.mp4", "x.mp4", "-o", "out", "--review", "x.html"], 2, "x.html names one page, but several"),
        (["film.mp4", "x.mp4", "-o", "out", "--review", "bad.mp4"], 2, "bad.mp4 names one page, but several"),
        (["film.mp4", "-o", "x.srt", "--format", "ass"], 2, "x.srt does not end in .ass"),
        (["no.mp4", "-o", "new/folder/x.srt"], 1, "no.mp4: there is no such file."),
        (["film.mp4", "sub/film.mkv", "-o", "out"], 2, "would both be written to out/film.srt"),
        (
            ["film.mp4", "--resume", "-o", "x.srt"],
            2,
            "but several inputs, a folder of them, a pattern and --resume need",
        ),
        (["film.mp4", "--region", "1,2,3"], 2, "is not four whole numbers: left,top,right,bottom"),
        (["film.mp4", "--region", "9,2,3,4"], 2, "is empty: left < right and top < bottom"),
        (["film.mp4", "--jobs", "0"], 2, "is not a whole number from 1 on"),
        (["film.mp4", "--language", "latin"], 2, "invalid choice: 'latin'"),
        (["sub", "-o", "out"], 2, "The folder sub holds no file that ends in"),
        (["film.mp4", "-o", "film.mp4/x.srt"], 1, "was not written: a part of its path is a file"),
        (
            ["https://a.b/film.mp4", "-o", "x.srt"],
            2,
            "https://a.b/film.mp4 is a URL: videos are read from files",
        ),
        (["no.mp4", "-o", "x.srt"], 1, "no.mp4: there is no such file."),
        (["bad.mp4", "-o", "x.srt"], 1, "bad.mp4 is no video."),
    ],
)
def test_what_goes_wrong_is_a_sentence(
    tamis: Tamis, tmp_path: Path, arguments: list[str], status: int, sentence: str
) -> None:
    one(tmp_path)
    (tmp_path / "bad.mp4").write_text("bad")
    (tmp_path / "sub").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = tamis("read", *arguments)
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr and done.stderr.startswith("tamis")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_input_is_never_overwritten(tamis: Tamis, tmp_path: Path) -> None:
    source = tmp_path / "film.srt"  # a video with a lying name
    source.write_text("你好")
    done = tamis("read", "film.srt", "-o", "film.srt")
    assert done.returncode == 2 and "is the input itself" in done.stderr
    assert source.read_text() == "你好"


def test_videos_read_at_one_time_share_the_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis.subtitles import commands

    for name, module in toy_reader.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    asked: list[int | None] = []

    def read(path: Path, **options: Any) -> list[Any]:
        asked.append(options["threads"])
        return []

    monkeypatch.setattr(sys.modules["tamis.subtitles.reader"], "read", read)
    monkeypatch.setattr(commands, "processors", lambda: 6)
    for jobs in (1, 2, 4, 9):
        settings = commands.Settings("auto", None, None, jobs)
        commands._cues(tmp_path / "film.mp4", settings, tell=print, progress=None)
    assert asked == [None, 3, 1, 1]


def test_two_videos_share_the_processors_in_two_also_with_many_jobs(
    tamis: Tamis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis.subtitles import commands

    told: list[Any] = []
    monkeypatch.setattr(commands, "run", lambda *_, **options: told.append(options) or [])
    tamis("read", "a.mp4", "b.mp4", "-o", "out", "--jobs", "8")
    assert told[0]["jobs"] == 2


def test_one_film_is_a_batch_where_several_could_be_meant(films: Path) -> None:
    for path in sorted((films / "films").iterdir())[1:]:
        path.unlink()
    for inputs in ("films", "films/*.mp4", "films/00.mp4"):
        done = batch(films, "read", inputs, "-o", "out", "--resume")
        assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "tamis: 0 read, 0 failed, 1 done before."


def test_resuming_with_other_settings_reads_again(films: Path) -> None:
    for path in sorted((films / "films").iterdir())[1:]:
        path.unlink()
    read = ("read", "films", "-o", "out", "--resume")
    settings = ((), ("--region", "0,0,9,9"), ("--language", "ja"), ("--review", "pages"))
    told = [batch(films, *read, *more).stderr.splitlines()[-1] for more in (*settings, settings[-1])]
    assert told == ["tamis: 1 read, 0 failed, 0 done before."] * 4 + [
        "tamis: 0 read, 0 failed, 1 done before."
    ]
    assert (films / "pages" / "00.html").exists()


def test_a_batch_finishes_in_spite_of_bad_files(films: Path) -> None:
    done = batch(films, "read", "films", "-o", "out", "--jobs", "2", "--json")
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert sum("is no video." in line for line in errors) == 2
    assert sum("09.mp4: the process at work on it was ended by signal 9" in line for line in errors) == 1
    assert errors[-1] == "tamis: 17 read, 3 failed, 0 done before."
    assert len(list((films / "out").glob("*.srt"))) == 17
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(r["status"] for r in records) == ["done"] * 17 + ["failed"] * 3
    journal = [json.loads(line) for line in (films / "out" / "journal.jsonl").read_text().splitlines()]
    assert len(journal) == 20 and all(line["attempt"] == 1 for line in journal)

    (films / "films" / "04.mp4").write_text("好了")
    again = batch(films, "read", "films", "-o", "out", "--resume")
    assert again.stderr.splitlines()[-1] == "tamis: 1 read, 2 failed, 17 done before."
    assert again.returncode == 1


def test_patterns_reviews_and_formats_of_several(films: Path) -> None:
    done = batch(films, "read", "films/0[0-2].mp4", "-o", "out", "--format", "vtt", "--review", "pages")
    assert done.returncode == 0
    assert sorted(p.name for p in (films / "out").iterdir()) == [
        "00.vtt",
        "01.vtt",
        "02.vtt",
        "journal.jsonl",
    ]
    assert sorted(p.name for p in (films / "pages").iterdir()) == ["00.html", "01.html", "02.html"]


def test_ctrl_c_in_a_batch_is_a_sentence_and_resume_does_the_rest(films: Path) -> None:
    for path in (films / "films").iterdir():
        path.write_text("slow")
    command = [sys.executable, str(TOY), "subtitles", "read", "films", "-o", "out"]
    # Where the tests run in the background Ctrl-C may be ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=films, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed
    )
    deadline = time.monotonic() + 60
    while not list(films.glob("out/[0-9]*.srt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors == "tamis: Stopped. Nothing half-written was left; a batch goes on with --resume.\n"
    assert 1 <= len(list(films.glob("out/*.srt"))) < 20 and not list(films.glob("out/.*"))
    # What the journal says; the signal may have come between a file and its line.
    lines = (films / "out" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    finished = sum(json.loads(line)["status"] == "done" for line in lines)
    for path in sorted((films / "films").iterdir())[finished:]:
        path.write_text("你好")
    resumed = batch(films, "read", "films", "-o", "out", "--resume", "--jobs", "2")
    assert resumed.returncode == 0
    assert resumed.stderr == f"tamis: {20 - finished} read, 0 failed, {finished} done before.\n"


# evaluate


def srt(path: Path, *cues: tuple[str, str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = "".join(f"{n}\n{start} --> {end}\n{text}\n\n" for n, (start, end, text) in enumerate(cues, 1))
    path.write_text(text, encoding="utf-8")


def test_evaluate_two_files(tamis: Tamis, tmp_path: Path) -> None:
    srt(
        tmp_path / "truth.srt",
        ("00:00:01,000", "00:00:02,000", "今天天气"),
        ("00:00:03,000", "00:00:04,000", "很好"),
    )
    srt(
        tmp_path / "found.srt",
        ("00:00:01,040", "00:00:02,000", "今天大气"),
        ("00:00:03,000", "00:00:04,000", "很好"),
    )
    done = tamis("evaluate", "found.srt", "truth.srt", "--rate", "25", "--json")
    record = json.loads(done.stdout)
    assert record["time_unit"] == "frames"
    assert record["score"]["end_to_end"]["with_punctuation"] == {
        "value": pytest.approx(5 / 6), "low": None, "high": None, "n": 1,
    }  # fmt: skip
    assert record["score"]["f1"]["value"] == 1.0
    assert record["score"]["start"] == {"median": 0.5, "p95": pytest.approx(0.95), "n": 2}
    lines = tamis("evaluate", "found.srt", "truth.srt").stdout.splitlines()
    assert lines[0] == "1 file, 2 true cues, 0 invented"
    assert any(line.startswith("start error") and "20.0 ms" in line for line in lines)


def test_without_true_cues_no_share_of_them_is_told(tamis: Tamis, tmp_path: Path) -> None:
    srt(tmp_path / "truth.srt")
    srt(tmp_path / "found.srt", ("00:00:01,000", "00:00:02,000", "你好"))
    shown = tamis("evaluate", "found.srt", "truth.srt").stdout.splitlines()
    assert shown[0] == "1 file, 0 true cues, 1 invented"
    values = dict(line.rsplit(maxsplit=1) for line in shown[1:])
    assert values["characters, with punctuation"] == values["cues right to the last mark"] == "-"
    assert values["end to end, with punctuation"] == "0.00%"
    record = json.loads(tamis("evaluate", "found.srt", "truth.srt", "--json").stdout)
    assert record["score"]["exact"]["value"] is record["score"]["recall"]["value"] is None


def test_evaluate_two_folders(tamis: Tamis, tmp_path: Path) -> None:
    cue = ("00:00:01,000", "00:00:02,000", "你好")
    for name in ("a", "b"):
        srt(tmp_path / "truth" / f"{name}.gt.srt", cue)
    srt(tmp_path / "found" / "a.srt", cue)
    done = tamis("evaluate", "found", "truth")
    assert done.returncode == 1 and "found lacks 1 of the 2 files that truth has, first b" in done.stderr
    srt(tmp_path / "found" / "b.srt")
    record = json.loads(tamis("evaluate", "found", "truth", "--json").stdout)
    assert record["score"]["end_to_end"]["with_punctuation"]["value"] == 0.5
    assert record["score"]["clips"] == 2


def test_evaluate_says_what_does_not_fit(tamis: Tamis, tmp_path: Path) -> None:
    srt(tmp_path / "found.srt")
    (tmp_path / "truth").mkdir()
    assert "must be two files or two folders" in tamis("evaluate", "found.srt", "truth").stderr
    assert tamis("evaluate", "found.srt", "none.srt").returncode == 1
    assert "is no frame rate" in tamis("evaluate", "found.srt", "found.srt", "--rate", "x").stderr


# train


def test_train_has_its_own_options(tamis: Tamis, tmp_path: Path) -> None:
    done = tamis("train", "--help")
    assert done.returncode == 0 and "usage: tamis subtitles train" in done.stdout
    assert tamis("train", "--nonsense").returncode == 2
