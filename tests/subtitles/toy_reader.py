"""A reader that needs no video, no network and no weights, for tests of what surrounds it.

A "video" is a text file: each line is a cue of one second. A line `bad` makes it unreadable, `damaged` readable with
a warning, `crash` kills the process, `slow` takes a while.

    python tests/subtitles/toy_reader.py subtitles read ...    the `tamis` command with this reader
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from tamis.errors import InputError, InputWarning
from tamis.subtitles.cue import Box, Character, Cue, Line


def read(
    path: Path,
    *,
    language: str = "auto",
    region: Box | None = None,
    pictures: bool = False,
    progress: Callable[[float], None] | None = None,
    threads: int | None = None,
) -> list[Cue]:
    if not path.exists():
        raise InputError(f"{path}: there is no such file.")
    texts = path.read_text(encoding="utf-8").split()
    if "bad" in texts:
        raise InputError(f"{path} is no video.")
    if "crash" in texts:
        os.kill(os.getpid(), signal.SIGKILL)
    if "damaged" in texts:
        warnings.warn("The file breaks off. What is there was read.", InputWarning, stacklevel=2)
    if "slow" in texts:
        time.sleep(0.5)
    if progress is not None:
        progress(1.0)
    return [cue(number, text) for number, text in enumerate(texts)]


def cue(second: int, text: str) -> Cue:
    characters = tuple(Character(c, 0.9, (10 * i, 0, 10 * i + 10, 10)) for i, c in enumerate(text))
    return Cue(Fraction(second), Fraction(second + 1), (Line(characters, (0, 0, 10 * len(text), 10)),), 0.9)


class Video:
    """What is asked of a video that was read before."""

    width, height = 640, 360

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def modules() -> dict[str, types.ModuleType]:
    """Stand-ins for the modules of the real reader, by name."""
    reader, video = types.ModuleType("tamis.subtitles.reader"), types.ModuleType("tamis.subtitles.video")
    reader.read = read  # type: ignore[attr-defined]
    video.open_video = Video  # type: ignore[attr-defined]
    return {module.__name__: module for module in (reader, video)}


# Not only when run: a worker process imports this file by another name, and must have the toy as well.
if __name__ in ("__main__", "__mp_main__"):
    sys.modules.update(modules())

if __name__ == "__main__":
    from tamis.cli import main

    sys.exit(main())
