"""python -m pytest tests/test_ray_workers.py

One cluster of two workers on this machine, started in a process of its own, so that Ray's own threads and warnings stay
outside the test run. It takes some seconds to start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tamis import ray_workers
from tamis.errors import InputError

pytest.importorskip("ray", reason='needs Ray: pip install "tamis[cluster]"')

WORK = """
import os, signal, sys, time
from pathlib import Path
from tamis.batch import Item, run
from tamis.errors import InputError
from tamis.writing import replacing

def shout(item, told):
    note = item.output.parent / f"started-{item.input.stem}-{os.getpid()}-{time.monotonic_ns()}"
    under_way = item.output.parent / f"now-{os.getpid()}"
    under_way.touch()
    note.write_text(str(len(list(item.output.parent.glob("now-*")))))
    text = item.input.read_text()
    attempts = len(list(item.output.parent.glob(f"started-{item.input.stem}-*")))
    if text == "bad":
        under_way.unlink()
        raise InputError(f"{item.input} is bad.")
    if text == "kill" and attempts == 1 or text == "crash":
        under_way.unlink()
        with replacing(item.output) as beside:
            beside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    with replacing(item.output) as beside:
        beside.write_text(text.upper())
    under_way.unlink()
    return {"length": len(text)}

if __name__ == "__main__":
    from ray_work import shout
    source, target, cluster = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None
    target.mkdir()
    items = [Item(path, target / f"{path.stem}.txt") for path in sorted(source.iterdir())]
    run(items, shout, journal=target / "journal.jsonl", jobs=2, cluster=cluster)
"""
TEXTS = ["a", "b", "kill", "c", "bad", "d", "e"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The results of one process batch and of Ray, over the same inputs."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "ray_work.py").write_text(WORK)
    source = folder / "inputs"
    source.mkdir()
    for number, text in enumerate(TEXTS):
        (source / f"{number}.in").write_text(text)
    command = [sys.executable, str(folder / "ray_work.py"), str(source)]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    subprocess.run([*command, str(folder / "on-ray"), "local"], check=True, timeout=240, env=environment)
    (source / "2.in").write_text("kill")
    # A process batch fails an item whose worker dies; so the same input is given without the kill.
    (source / "2.in").write_text("kilL")
    subprocess.run([*command, str(folder / "processes"), ""], check=True, timeout=120, env=environment)
    return folder / "processes", folder / "on-ray"


def results(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def done(folder: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return sorted((Path(line["input"]).stem, line["status"]) for line in lines)


def test_ray_gives_what_processes_give(folders: tuple[Path, Path]) -> None:
    processes, on_ray = folders
    assert results(on_ray) == results(processes)
    assert done(on_ray) == done(processes)
    assert ("4", "failed") in done(on_ray)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(folders: tuple[Path, Path]) -> None:
    _, on_ray = folders
    assert len(list(on_ray.glob("started-2-*"))) == 2
    assert results(on_ray)["2.txt"] == "KILL"
    assert [line for line in done(on_ray) if line[0] == "2"] == [("2", "done")]
    assert not list(on_ray.glob(".part-*"))


def test_no_more_is_under_way_than_there_are_jobs(folders: tuple[Path, Path]) -> None:
    _, on_ray = folders
    assert {int(path.read_text()) for path in on_ray.glob("started-*")} <= {1, 2}


class BusyRay:
    """Ray on a machine that is too busy to start it, so many times."""

    def __init__(self, failures: int) -> None:
        self.left, self.started = failures, 0

    def init(self, **_: object) -> None:
        self.started += 1
        if self.started <= self.left:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(
    ("address", "failures", "starts", "sentence"),
    [
        ("local", 2, 3, ""),
        ("local", 3, 3, r"Ray was not up .*timed out during startup.*when this machine is less busy"),
        ("ray://host:10001", 1, 1, r"No Ray cluster answers at ray://host:10001"),
    ],
)
def test_a_busy_machine_is_given_time(
    monkeypatch: pytest.MonkeyPatch, address: str, failures: int, starts: int, sentence: str
) -> None:
    ray = BusyRay(failures)
    monkeypatch.setitem(sys.modules, "ray", ray)
    if sentence:
        with pytest.raises(InputError, match=sentence):
            ray_workers._connected(address, 2)
    else:
        assert ray_workers._connected(address, 2) is ray
    assert ray.started == starts
