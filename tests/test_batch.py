"""python -m pytest tests/test_batch.py"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from tamis import batch
from tamis.batch import DEBUG, Item, Journal, Outcome, Told, expand, plan, run
from tamis.errors import InputError, OutputError, UsageError
from tamis.writing import replacing

ENDINGS = frozenset({".mp4", ".mkv"})


def shout(item: Item, told: Told, pause_s: float = 0.0) -> dict[str, int]:
    """The work of these tests: upper case. Every start is noted, so that the tests can count them."""
    with (item.output.parent / "started.txt").open("a") as file:
        file.write(f"{item.input.stem}\n")
    text = item.input.read_text()
    if text == "bad":
        raise InputError(f"{item.input} is bad.")
    told(0.5)
    if text == "fault":
        raise ZeroDivisionError("a fault")
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    with replacing(item.output) as beside:
        beside.write_text(text.upper())
        time.sleep(pause_s)
    return {"length": len(text)}


def videos(folder: Path, texts: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:02d}.mp4" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def lines(journal: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def started(folder: Path) -> list[str]:
    return (folder / "started.txt").read_text().split()


# which inputs, which outputs


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    first, second = videos(tmp_path / "films", ["a", "b"])
    (tmp_path / "films" / "notes.txt").write_text("not a video")
    (tmp_path / "films" / "LOUD.MKV").write_text("c")
    (tmp_path / "films" / "._00.mp4").write_text("what another system leaves beside a file")
    folder = [first, second, tmp_path / "films" / "LOUD.MKV"]
    assert expand([str(tmp_path / "films")], ENDINGS) == sorted(folder)
    assert expand([str(tmp_path / "films" / "*.mp4")], ENDINGS) == [first, second]
    assert expand([str(second), str(tmp_path / "films" / "*.mp4")], ENDINGS) == [second, first]
    assert expand([str(tmp_path / "films" / "notes.txt")], ENDINGS) == [tmp_path / "films" / "notes.txt"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "[group] film [1080p].mp4"
    path.write_text("a")
    assert expand([str(path)], ENDINGS) == [path]


def test_what_does_not_exist_is_kept_to_fail_by_itself(tmp_path: Path) -> None:
    assert expand([str(tmp_path / "no.mp4")], ENDINGS) == [tmp_path / "no.mp4"]


def test_a_link_to_what_is_not_there_does_not_go_unnoticed(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert expand([str(tmp_path)], ENDINGS) == [tmp_path / "gone.mp4"]


def test_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no file that ends in \.mkv, \.mp4"):
        expand([str(tmp_path)], ENDINGS)


def test_results_are_named_after_their_inputs(tmp_path: Path) -> None:
    items = plan([Path("a/one.mp4"), Path("b/two.x.mkv")], tmp_path, ".srt")
    assert [item.output.name for item in items] == ["one.srt", "two.x.srt"]


def test_urls_and_folders_are_inputs_too(tmp_path: Path) -> None:
    """A folder is a DICOM series, whose name is full of dots and has no ending."""
    (tmp_path / "1.2.840").mkdir()
    inputs = ["https://host/slides/a.svs?key=1", str(tmp_path / "1.2.840")]
    items = plan(inputs, tmp_path / "out", "/score.json")
    assert [item.output.relative_to(tmp_path) for item in items] == [
        Path("out/a/score.json"),
        Path("out/1.2.840/score.json"),
    ]
    assert [item.source for item in items] == inputs
    assert (items[0].url, items[0].input) == (inputs[0], Path("a.svs"))


@pytest.mark.parametrize("other", ["b/film.mp4", "a/film.mkv", "b/FILM.mp4"])
def test_two_inputs_never_share_a_result(other: str) -> None:
    with pytest.raises(UsageError, match="would both be written to"):
        plan([Path("a/film.mp4"), Path(other)], Path("out"), ".srt")


# running


@pytest.mark.parametrize("jobs", [1, 3])
def test_bad_inputs_do_not_stop_the_others(tmp_path: Path, jobs: int) -> None:
    texts = [f"text {n}" for n in range(20)]
    texts[3], texts[7], texts[12] = "bad", "crash", "fault"
    items = plan(videos(tmp_path / "in", texts), tmp_path, ".srt")
    outcomes = run(items, shout, journal=tmp_path / "journal.jsonl", jobs=jobs)

    failed = {o.item.input.stem: o.error for o in outcomes if o.status == "failed"}
    assert set(failed) == {"03", "07", "12"}
    assert failed["03"].endswith("03.mp4 is bad.")
    assert "by signal 11 (SIGSEGV)" in failed["07"]
    assert "ZeroDivisionError: a fault" in failed["12"]
    for item in items:
        assert item.output.exists() == (item.input.stem not in failed)
    journal = lines(tmp_path / "journal.jsonl")
    assert len(journal) == 20
    assert sum(line["status"] == "done" for line in journal) == 17
    assert next(line for line in journal if str(line["input"]).endswith("00.mp4"))["result"] == {"length": 6}


def test_a_system_without_signal_masks_runs_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither a mask nor what starts the resource tracker."""
    resource_tracker.ensure_running()  # of this system's own multiprocessing, which needs the mask for it
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(batch, "resource_tracker", None)
    items = plan(videos(tmp_path / "in", ["a", "bad", "c"]), tmp_path, ".srt")
    outcomes = run(items, shout, journal=tmp_path / "journal.jsonl")
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]


@pytest.mark.parametrize("debug", ["", "1"])
def test_workers_tell_the_story_of_a_failure_where_debug_is_asked(
    tmp_path: Path, debug: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DEBUG, debug)
    items = plan(videos(tmp_path / "in", ["bad", "fault", "good"]), tmp_path, ".srt")
    outcomes = list(run(items, shout, journal=tmp_path / "journal.jsonl"))
    assert [o.status for o in outcomes] == ["failed", "failed", "done"]
    told = capfd.readouterr().err
    assert told.count("Traceback") == (2 if debug else 0)
    assert ("ZeroDivisionError: a fault" in told) == bool(debug)


def test_resume_does_the_rest_only_and_counts_attempts(tmp_path: Path) -> None:
    inputs = videos(tmp_path / "in", ["a", "bad", "c"])
    items = plan(inputs, tmp_path, ".srt")
    journal = tmp_path / "journal.jsonl"
    run(items, shout, journal=journal)
    inputs[1].write_text("mended")
    seen: list[Outcome] = []
    run(items, shout, journal=journal, resume=True, on_outcome=seen.append)
    assert [o.status for o in seen] == ["skipped", "skipped", "done"]
    assert (tmp_path / "01.srt").read_text() == "MENDED"
    run(items[:1], shout, journal=journal)
    assert started(tmp_path) == ["00", "01", "02", "01", "00"], "without resume all is done again"
    assert [line["attempt"] for line in lines(journal)] == [1, 1, 1, 2, 2]


def test_a_resumed_batch_asks_once_for_each_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten thousand slides, comparing each with all that were skipped took longer than looking them up."""
    items = plan(videos(tmp_path / "in", ["a", "b", "c", "d"]), tmp_path, ".srt")
    noted(tmp_path / "journal.jsonl", [items[0], items[2]])
    asked, compared = [], []
    holds, equals = Journal.holds, Item.__eq__
    monkeypatch.setattr(Journal, "holds", lambda book, item: asked.append(item) or holds(book, item))
    monkeypatch.setattr(Item, "__eq__", lambda one, other: compared.append(one) or equals(one, other))
    outcomes = run(items, shout, journal=tmp_path / "journal.jsonl", resume=True)
    assert [o.status for o in outcomes] == ["skipped", "skipped", "done", "done"]
    assert len(asked) == len(items) and not compared


def test_what_was_done_with_other_settings_is_done_again(tmp_path: Path) -> None:
    items = plan(videos(tmp_path / "in", ["a"]), tmp_path, ".srt")
    journal = tmp_path / "journal.jsonl"
    statuses = []
    for settings in (None, {"threshold": 0.5}, {"threshold": 0.5}, {"threshold": 0.3}, None):
        (outcome,) = run(items, shout, journal=journal, resume=True, settings=settings)
        statuses.append(outcome.status)
    assert statuses == ["done", "done", "skipped", "done", "done"]


def noted(journal: Path, items: list[Item]) -> None:
    """A journal in which these items are done, and their results."""
    with Journal(journal) as book:
        for item in items:
            item.output.write_text(item.input.read_text().upper())
            book.write(Outcome(item, "done", result={"length": 1}))


def held(journal: Path, items: list[Item]) -> list[bool]:
    with Journal(journal) as book:
        return [book.holds(item) for item in items]


def test_what_has_changed_or_gone_is_not_done(tmp_path: Path) -> None:
    inputs = videos(tmp_path / "in", ["a", "b", "c", "d"])
    items = plan(inputs, tmp_path, ".srt")
    noted(tmp_path / "journal.jsonl", items)
    inputs[0].write_text("longer")
    items[1].output.unlink()
    items[2] = Item(inputs[2], tmp_path / "elsewhere.srt")
    assert held(tmp_path / "journal.jsonl", items) == [False, False, False, True]


def test_a_result_that_another_input_has_overwritten_is_not_done(tmp_path: Path) -> None:
    """Two folders with a film of one name, and batches of the one and the other into the same folder."""
    one, other = (plan(videos(tmp_path / name, [name]), tmp_path / "out", ".txt")[0] for name in "ab")
    assert one.output == other.output
    one.output.parent.mkdir()
    one.output.write_text("A")
    path = tmp_path / "journal.jsonl"
    with Journal(path) as book:
        book.write(Outcome(one, "done"))
        assert book.holds(one)
        book.write(Outcome(other, "failed"))
        assert book.holds(one), "a failure writes nothing"
        book.write(Outcome(other, "done"))
        assert book.holds(other) and not book.holds(one)
    with Journal(path) as book:
        assert book.holds(other) and not book.holds(one)


def lengthened(item: Item, told: Told) -> dict[str, int]:
    """As when the input was still being copied: there is more of it once the work is done."""
    item.output.write_text(item.input.read_text())
    with item.input.open("a") as file:
        file.write(" and the rest")
    return {}


def test_an_input_that_has_grown_while_it_was_read_is_done_again(tmp_path: Path) -> None:
    items = plan(videos(tmp_path / "in", ["a"]), tmp_path, ".srt")
    journal = tmp_path / "journal.jsonl"
    run(items, lengthened, journal=journal)
    assert [outcome.status for outcome in run(items, shout, journal=journal, resume=True)] == ["done"]
    assert [outcome.status for outcome in run(items, shout, journal=journal, resume=True)] == ["skipped"]


def test_a_failure_after_a_success_counts(tmp_path: Path) -> None:
    items = plan(videos(tmp_path / "in", ["a"]), tmp_path, ".srt")
    noted(tmp_path / "journal.jsonl", items)
    with Journal(tmp_path / "journal.jsonl") as book:
        book.write(Outcome(items[0], "failed", "It is bad now."))
    assert held(tmp_path / "journal.jsonl", items) == [False]


def test_a_torn_line_in_the_journal_is_ignored(tmp_path: Path) -> None:
    items = plan(videos(tmp_path / "in", ["a", "b"]), tmp_path, ".srt")
    journal = tmp_path / "journal.jsonl"
    noted(journal, items[:1])
    whole = journal.read_text()
    for cut in range(0, len(whole), 7):
        journal.write_text(whole + whole[:cut])
        assert held(journal, items) == [True, False]
        noted(journal, items[1:])
        assert held(journal, items) == [True, True]
        assert json.loads(journal.read_text().splitlines()[-1])["attempt"] == 1


def test_names_that_are_not_utf8_go_through_the_journal(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = os.fsdecode("电影".encode("gbk") + b".mp4")
    (tmp_path / "in" / name).write_text("a")
    items = plan([tmp_path / "in" / name], tmp_path, ".srt")
    noted(tmp_path / "journal.jsonl", items)
    assert held(tmp_path / "journal.jsonl", items) == [True]


@pytest.mark.parametrize(
    "text", ["\n", "null\n", "[]\n", "3\n", '{"status": "done"}\n', "\xff\x00\n", '{"input": []}\n']
)
def test_any_other_content_of_the_journal_is_ignored(tmp_path: Path, text: str) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text(text, encoding="latin-1")
    with Journal(journal) as book:
        assert not book.holds(Item(tmp_path / "a.mp4", tmp_path / "a.srt"))


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of its path is a file"):
        run([], shout, journal=tmp_path / "file" / "journal.jsonl")


# killed


BATCH = """
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from test_batch import expand, plan, run, shout, ENDINGS

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    items = plan(expand([str(folder / "in")], ENDINGS), folder, ".srt")
    run(items, partial(shout, pause_s=0.03), journal=folder / "journal.jsonl", jobs=int(sys.argv[3]), resume=True)
"""


def start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    script = folder / "batch.py"
    script.write_text(BATCH)
    command = [sys.executable, script, Path(__file__).parent, folder, str(jobs)]
    # Where the tests run in the background Ctrl-C may be ignored, and children inherit that.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed)


def wait_until(condition: partial[bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def has_started(folder: Path, count: int) -> bool:
    return (folder / "started.txt").exists() and len(started(folder)) >= count


def quiet(folder: Path) -> bool:
    before = started(folder), sorted(folder.iterdir())
    time.sleep(0.3)
    return before == (started(folder), sorted(folder.iterdir()))


def test_a_folder_has_changed_when_a_file_in_it_has(tmp_path: Path) -> None:
    """A series of DICOM instances is one input; the folder's own time says nothing of what is inside its files."""
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.dcm").write_text("one")
    item = Item(series, tmp_path / "out.txt")
    item.output.touch()
    with Journal(tmp_path / "journal.jsonl") as book:
        book.write(Outcome(item, "done"))
        assert book.holds(item)
        (series / "1.dcm").write_text("other")
        assert not book.holds(item)


def test_killed_at_any_moment_and_resumed_does_the_rest_only(tmp_path: Path) -> None:
    videos(tmp_path / "in", [f"text {n}" for n in range(16)])
    journal = tmp_path / "journal.jsonl"
    kills = 0
    for count in (3, 9):
        process = start(tmp_path, jobs=2)
        wait_until(partial(has_started, tmp_path, count), process)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        assert quiet(tmp_path), "a worker outlived the batch"
        for path in tmp_path.glob("[0-9]*.srt"):
            assert path.read_text() == (tmp_path / "in" / f"{path.stem}.mp4").read_text().upper()
    assert kills == 2
    process = start(tmp_path, jobs=2)
    assert process.wait(60) == 0 and process.communicate()[1] == b""

    assert len(list(tmp_path.glob("*.srt"))) == 16
    done = [line for line in lines_that_parse(journal) if line["status"] == "done"]
    assert len(done) == len({line["input"] for line in done}) == 16, "what was done was done again"
    # Each kill can interrupt at most the two that were at work.
    assert 16 <= len(started(tmp_path)) <= 16 + 2 * kills
    assert not list(tmp_path.glob(".part*")), "half-written files were left"


def lines_that_parse(journal: Path) -> list[dict[str, object]]:
    found = []
    for line in journal.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def test_ctrl_c_stops_the_workers_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    videos(tmp_path / "in", [f"text {n}" for n in range(200)])
    process = start(tmp_path, jobs=2)
    wait_until(partial(has_started, tmp_path, 4), process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group gets it
    errors = process.communicate(timeout=30)[1].decode()
    assert process.returncode == -signal.SIGINT or "KeyboardInterrupt" in errors
    assert errors.count("Traceback") <= 1, "a worker printed a traceback of its own"
    assert quiet(tmp_path)
    assert not list(tmp_path.glob(".part*"))
    assert len(started(tmp_path)) < 200


def stubborn(item: Item, told: Told) -> dict[str, int]:
    """Amid a computation that no signal ends; of the input "quick" done when the other has begun."""
    if item.input.read_text() == "quick":
        while not any(item.output.parent.glob(".part-*")):
            time.sleep(0.01)
        return {}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with TemporaryDirectory(prefix=f"tamis-{os.getpid()}-"), replacing(item.output) as beside:
        beside.write_text("half")
        told(0.5)
        time.sleep(120)
    return {}


@pytest.mark.parametrize("amid", ["progress", "outcome"])
def test_what_a_killed_worker_leaves_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amid: str
) -> None:
    """Whether Ctrl-C comes while the batch waits for a worker, or while it tells of another's outcome."""
    out, copies = tmp_path / "out", tmp_path / "copies"
    items = plan(videos(tmp_path / "in", ["slow", "quick"]), out, ".srt")
    for folder in (out, copies):
        folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(copies))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(batch, "PATIENCE_S", 0.2)

    def stop(told: object) -> None:
        raise KeyboardInterrupt

    when = {"progress": stop} if amid == "progress" else {"on_outcome": stop}
    items = items if amid == "outcome" else items[:1]
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(items, stubborn, journal=out / "journal.jsonl", jobs=2, **when)  # type: ignore[arg-type]
    (note,) = stopped.value.__notes__
    assert f"The work on {items[0].source} could not be ended gently" in note
    assert f".part-* may be left in {out}" in note and list(out.glob(".part-*"))
    assert not list(copies.iterdir()), "what was fetched was left"


def test_a_worker_that_ends_gently_leaves_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "PATIENCE_S", 60.0)  # on a busy machine five seconds pass before it is heard

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    items = plan(videos(tmp_path / "in", ["a"]), tmp_path, ".srt")
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(items, partial(shout, pause_s=60), journal=tmp_path / "journal.jsonl", progress=stop)
    assert not hasattr(stopped.value, "__notes__")
    assert not list(tmp_path.glob(".part-*"))


def test_a_bar_is_told_what_is_done_of_the_items_under_way(tmp_path: Path) -> None:
    """One slide or film can take an hour: a bar that moves with whole items only would stand still for it."""
    items = plan(videos(tmp_path / "in", ["a", "bad", "crash", "d"]), tmp_path, ".srt")
    noted(tmp_path / "journal.jsonl", items[:1])
    shares: list[float] = []
    run(items, shout, journal=tmp_path / "journal.jsonl", resume=True, progress=shares.append)
    assert shares == [n / 8 for n in (2, 4, 5, 6, 7, 8)], (
        "a skipped, b failed, half of c, c crashed, half of d, d"
    )


def test_a_bar_is_told_of_all_items_under_way_together(tmp_path: Path) -> None:
    items = plan(videos(tmp_path / "in", ["a", "b", "c"]), tmp_path, ".srt")
    shares: list[float] = []
    run(items, shout, journal=tmp_path / "journal.jsonl", jobs=3, progress=shares.append)
    assert shares[-1] == 1 and len(shares) == 6 and all(0 < share <= 1 for share in shares)


def test_a_worker_tells_no_more_often_than_somebody_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    seconds = iter([0.0, 0.05, 0.1, 0.25, 0.3])
    monkeypatch.setattr(batch.time, "monotonic", lambda: next(seconds))
    told = batch._Teller(SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    for share in (0.1, 0.2, 0.3, 0.4, 0.5):
        told(share)
    assert sent == [0.1, 0.4]
