"""Many inputs: which they are, where their results go, a journal, and workers that may crash. Knows no capability.

    items = plan(expand(arguments, endings), folder, ".srt")
    outcomes = run(items, work, journal=folder / "journal.jsonl", jobs=2, resume=True)

The journal holds one line per input and attempt, written when the attempt has ended and its result has its final
name. So a batch may be killed at any moment: with `resume`, what was done in the same way is skipped. (An input
whose result was renamed in the instant before the kill, but not yet noted, is done once more, with the same result.)

Work runs in processes of its own, even one at a time: a decoder that crashes on a damaged file takes that file's
worker with it and nothing else. With `cluster` the same work runs on Ray (`tamis.ray_workers`); the journal stays here.
"""

from __future__ import annotations

import glob
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from tamis.errors import TamisError, UsageError
from tamis.remote import clear_copies, is_url, name_of, stem_of
from tamis.writing import output_error

Result = Mapping[str, Any]
DEBUG = "TAMIS_DEBUG"
"""The environment variable that says --debug to the workers: set and not empty, they print the story of each failure."""


@dataclass(frozen=True, slots=True)
class Item:
    """One input and the name of what comes of it."""

    input: Path
    output: Path
    url: str = ""
    """Where the input is fetched from, if it is no file of this machine; `input` is then its name alone."""

    @property
    def source(self) -> str:
        """The input as the user named it."""
        return self.url or str(self.input)


Told = Callable[[float], None]
"""Called with the share that is done, in [0, 1]."""
Work = Callable[[Item, Told], Result]
"""Writes `item.output` whole or not at all, and returns what the journal shall say about it (JSON values). May tell how
much of the item is done. Raises TamisError when it cannot. Runs in another process, so it must be picklable: a function of
a module, or a `functools.partial` of one."""
PATIENCE_S = 5.0  # with a worker that is to clear up and end
TELL_S = 0.2  # between two words of a worker about its progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. `error` is a sentence; `attempt` counts from 1 over the whole journal."""

    item: Item
    status: Literal["done", "failed", "skipped"]
    error: str = ""
    started: str = ""
    seconds: float = 0.0
    result: Result = field(default_factory=dict)
    input_state: list[int] | None = None
    """Of the input when the work began: what is still being copied then is not the file that lies there in the end."""


def expand(arguments: Sequence[str], endings: frozenset[str]) -> list[Path]:
    """The files that the arguments name, in order, each once.

    A file is itself whatever its ending. A folder is the files directly inside it with one of `endings` (lower case,
    with dot), sorted. A pattern (* ? [) is whatever matches it. An argument that names nothing is kept as it is, so
    that it fails as an input and the others are still done. Raises UsageError for a folder that holds no such file.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            paths += _inside(path, endings)
        elif not path.exists() and (matches := sorted(glob.glob(argument, recursive=True))):  # noqa: PTH207 - absolute patterns too
            paths += [Path(match) for match in matches if Path(match).is_file()]
        else:
            paths.append(path)
    return list(dict.fromkeys(paths))


def _inside(folder: Path, endings: frozenset[str]) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if _is_one(path, endings))
    if not found:
        raise UsageError(f"The folder {folder} holds no file that ends in {', '.join(sorted(endings))}.")
    return found


def _is_one(path: Path, endings: frozenset[str]) -> bool:
    if path.suffix.lower() not in endings or path.name.startswith("."):
        return False
    # A link to what is not there is an input that fails, and none that goes unnoticed.
    return path.is_file() or (path.is_symlink() and not path.exists())


def plan(inputs: Sequence[str | Path], folder: Path, ending: str) -> list[Item]:
    """Results are named FOLDER/STEM + ending; an ending "/x.json" gives each input a folder.

    inputs  paths and URLs

    Raises UsageError when two inputs would write the same file.
    """
    items: dict[str, Item] = {}
    for source in map(str, inputs):
        url = source if is_url(source) else ""
        item = Item(Path(name_of(url) if url else source), folder / (stem_of(source) + ending), url)
        # Folded: on some file systems A.srt and a.srt are one file.
        other = items.setdefault(str(item.output).casefold(), item)
        if other is not item:
            raise UsageError(
                f"{other.source} and {item.source} would both be written to {item.output}: "
                "rename one of them, or give them in two runs with different -o."
            )
    return list(items.values())


def run(
    items: Sequence[Item],
    work: Work,
    *,
    journal: Path,
    jobs: int = 1,
    resume: bool = False,
    cluster: str | None = None,
    settings: Mapping[str, Any] | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    progress: Told = lambda share: None,
) -> list[Outcome]:
    """Do all items, `jobs` at a time, and note each in the journal. One failure does not stop the others.

    resume      skip the items whose input, as it is now, is done according to the journal, with a result still there
    cluster     "local" or the address of a Ray cluster (ray://HOST:10001): work there; `jobs` is then the most that is
                under way at once. Inputs and outputs must be seen from its machines under the same names
    settings    of the work, JSON values that the journal notes: what was done with others is done again, also with `resume`
    on_outcome  called with each outcome as it comes, skipped ones first
    progress    called with the share of all items that is done, those under way included (on Ray: whole items alone)

    Raises OutputError when the journal cannot be written; the workers are then stopped. KeyboardInterrupt carries a note on
    each item whose worker had to be killed.
    """
    outcomes: list[Outcome] = []
    killed: list[Item] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)
        under_way(0.0)

    def under_way(share: float) -> None:
        progress((len(outcomes) + share) / len(items))

    with Journal(journal, settings) as book:
        left = []
        for item in items:
            if resume and book.holds(item):
                note(Outcome(item, "skipped"))
            else:
                left.append(item)
        try:
            # Closed here: the workers are stopped before anybody is told so, also if it is `note` that is interrupted.
            with closing(_anywhere(left, work, jobs, cluster, under_way, killed)) as done:
                for outcome in done:
                    book.write(outcome)
                    note(outcome)
        except KeyboardInterrupt as stop:
            for item in killed:
                stop.add_note(_left_behind(item, journal.parent))
            raise
    return outcomes


def _left_behind(item: Item, folder: Path) -> str:
    return (
        f"The work on {item.source} could not be ended gently and was killed: hidden files named .part-* may be left "
        f"in {folder}, which the next run on it replaces."
    )


def _anywhere(
    items: Sequence[Item], work: Work, jobs: int, cluster: str | None, under_way: Told, killed: list[Item]
) -> Generator[Outcome, None, None]:
    if cluster is None:
        return _outcomes(items, work, jobs, under_way, killed)
    from tamis.ray_workers import outcomes

    return outcomes(items, work, jobs, cluster)


class Journal:
    """OUT/journal.jsonl. Lines are appended and flushed to the disk; a line torn by a kill is ignored."""

    def __init__(self, path: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.settings = None if settings is None else dict(settings)
        self._attempts: dict[str, int] = {}
        self._done: dict[str, dict[str, Any]] = {}
        self._made_of: dict[str, str] = {}
        """Result -> the input it was last made of: a batch of a/s.svs and a later one of b/s.svs write the same."""
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            self._file.seek(0)
            content = self._file.read()
            if content and not content.endswith(b"\n"):
                self._file.write(b"\n")  # closes a torn line, so that the next one starts afresh
        except OSError as error:
            raise output_error(self.path, error) from error
        for line in content.splitlines():
            self._learn(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def holds(self, item: Item) -> bool:
        """Whether this input, unchanged since, is done with the same settings and its result is still there, and its own."""
        line = self._done.get(_key(item))
        output = str(item.output.absolute())
        if line is None or self._made_of.get(output) != _key(item) or not item.output.exists():
            return False
        noted = line.get("output"), line.get("input_state"), line.get("settings")
        return noted == (output, state_of(item), self.settings)

    def write(self, outcome: Outcome) -> None:
        key = _key(outcome.item)
        line = {
            "input": key,
            "output": str(outcome.item.output.absolute()),
            "attempt": self._attempts.get(key, 0) + 1,
            "status": outcome.status,
            "started": outcome.started,
            "seconds": round(outcome.seconds, 3),
            "error": outcome.error,
            "input_state": outcome.input_state or state_of(outcome.item),
            "settings": self.settings,
            "result": dict(outcome.result),
        }
        # File names need not be UTF-8; surrogateescape carries any bytes through and back.
        text = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
        assert self._file is not None, "the journal is not open"
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error
        self._learn(text)

    def _learn(self, text: bytes) -> None:
        try:
            line = json.loads(text.decode("utf-8", "surrogateescape"))
            key, status = line["input"], line["status"]
        except (json.JSONDecodeError, KeyError, TypeError):
            return
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if status == "done":
            self._done[key] = line
            self._made_of[str(line.get("output"))] = key
        else:
            self._done.pop(key, None)


def _key(item: Item) -> str:
    return item.url or str(item.input.absolute())


def state_of(item: Item) -> list[int] | None:
    """Size and time of change, by which a file that was replaced since is told; of a folder, over its files. JSON: a list.
    None for a URL."""
    if item.url:
        return None
    try:
        files = [p for p in item.input.iterdir() if p.is_file()] if item.input.is_dir() else [item.input]
        states = [path.stat() for path in files]
    except OSError:
        return None
    return [sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]


def _outcomes(
    items: Sequence[Item], work: Work, jobs: int, under_way: Told, killed: list[Item]
) -> Generator[Outcome, None, None]:
    """Outcomes as they come, from at most `jobs` workers; `under_way` is told the sum of their items' shares. When it is
    closed, or raises, `killed` gets the items whose workers could not clear up."""
    waiting = deque(items)
    workers = [_Worker(work) for _ in range(min(jobs, len(items)))]
    try:
        for worker in workers:
            worker.give(waiting.popleft())
        while busy := {worker.connection: worker for worker in workers if worker.item is not None}:
            for ready in connection.wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                outcome = worker.hear()
                if outcome is None:
                    under_way(sum(w.share for w in workers))
                    continue
                yield outcome
                if waiting:
                    worker.give(waiting.popleft())
    finally:
        for worker in workers:
            if not worker.stop() and worker.item is not None:
                killed.append(worker.item)


class _Worker:
    """One process that does one item after another, and is replaced if it dies."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.item: Item | None = None
        self.share = 0.0
        """Of the item that is done, as far as the worker has told."""
        self._start()

    def _start(self) -> None:
        # spawn: a forked copy of a process that runs decoder or inference threads can hang.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.work, theirs), daemon=True)
        with _deaf_to_ctrl_c():
            self.process.start()
        theirs.close()  # ours alone would keep the pipe open after the worker's death

    def give(self, item: Item) -> None:
        self.item = item
        self.started = now()
        self.clock = time.monotonic()
        self.input_state = state_of(item)
        self.connection.send(item)

    def hear(self) -> Outcome | None:
        """The outcome of the item that was given, or None for word of its progress. Blocks until there is one."""
        assert self.item is not None, "nothing was given to this worker"
        try:
            word = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            clear_copies(self.process.pid or 0)
            word = "failed", _death(self.item, self.process.exitcode), {}
            self._start()
        if isinstance(word, float):
            self.share = word
            return None
        status, error, result = word
        seconds = time.monotonic() - self.clock
        outcome = Outcome(self.item, status, error, self.started, seconds, result, self.input_state)
        self.item, self.share = None, 0.0
        return outcome

    def stop(self) -> bool:
        """Whether it could clear up before it ended: not amid a long computation, and not on Windows."""
        if self.item is not None:
            self.process.terminate()
        self.connection.close()  # an idle worker ends by itself
        self.process.join(timeout=PATIENCE_S)
        gently = not self.process.is_alive() and hasattr(signal, "pthread_sigmask")
        if not gently:
            self.process.kill()
            self.process.join()
            clear_copies(self.process.pid or 0)
        return gently


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """For a process that starts in the block. Ctrl-C reaches the whole process group, and what then happens is for the parent
    to decide: the worker inherits a mask that keeps the signal out from its first instant on. (The start of the resource
    tracker, which comes with the first worker, would lift the mask: so that goes before.)"""
    if not hasattr(
        signal, "pthread_sigmask"
    ):  # Windows has neither; there the worker shuts its ears in `_serve`
        yield
        return
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _death(item: Item, status: int | None) -> str:
    cause = f"with exit status {status}"
    if status is not None and status < 0:
        cause = f"by signal {-status} ({signal.Signals(-status).name})"
    return (
        f"{item.source}: the process at work on it was ended {cause}. "
        "The file may be damaged in an unforeseen way, or memory or the disk may have run out; try it alone with --debug."
    )


def _serve(work: Work, pipe: Connection) -> None:
    """The life of a worker process."""
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # so that unfinished files are removed
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionError):  # no more items; or the batch was stopped
            return
        try:
            pipe.send(attempt(work, item, _Teller(pipe)))
        except ConnectionError:  # the batch was stopped
            return


class _Teller:
    """Sends the share that is done, and not more often than somebody can look at it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._last = pipe, -math.inf

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._last >= TELL_S:
            self._last = now
            self._pipe.send(float(share))


def attempt(
    work: Work, item: Item, told: Told = lambda share: None
) -> tuple[Literal["done", "failed"], str, Result]:
    """Status, sentence and result of one item, whatever is wrong with it."""
    try:
        return "done", "", work(item, told)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one input must not reach the others
        if os.environ.get(DEBUG):
            traceback.print_exc()
        return "failed", str(error) if isinstance(error, TamisError) else _fault(item, error), {}


def _fault(item: Item, fault: Exception) -> str:
    return (
        f"{item.source}: an unexpected fault, {type(fault).__name__}: {fault}. "
        "Try it alone with --debug, and please report what that prints."
    )


def _die_with_parent() -> None:
    """A worker that outlived a killed batch would write beside the one that resumes it."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
