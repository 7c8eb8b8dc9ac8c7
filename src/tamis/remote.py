"""Inputs behind URLs (s3://, gs://, https://, ...), through fsspec: which they are, and a copy on this machine.

A slide is read in thousands of small pieces all over the file, so it is fetched whole; the copy is deleted when its
results are written. Each protocol raises its own errors, which have nothing in common: hence the two broad excepts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from tamis.errors import InputError, MissingExtraError, TamisError, UsageError

URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z].*)?://", re.IGNORECASE)


def is_url(argument: str) -> bool:
    return URL.match(argument) is not None


def name_of(url: str) -> str:
    """The file name at the end of a URL, without a query."""
    return PurePosixPath(url.split("://", 1)[1].split("?")[0]).name


def stem_of(source: str) -> str:
    """What results are named after: a file's name without its ending, whether a path or a URL; of a folder the whole name."""
    if is_url(source):
        return PurePosixPath(name_of(source)).stem
    path = Path(source)
    return path.name if path.is_dir() else path.stem


def local(source: str) -> AbstractContextManager[Path]:
    """A path as it is, or a URL's copy on this machine for as long as the block runs."""
    return fetched(source) if is_url(source) else nullcontext(Path(source))


def expand_url(url: str, endings: frozenset[str]) -> list[str]:
    """The files that a URL names: itself, what a pattern matches, or what a folder holds with one of `endings`, sorted.

    Raises InputError when the place cannot be looked at, and UsageError where nothing is found.
    """
    pattern = re.search(r"[*?\[]", url.split("://", 1)[1].split("?")[0]) is not None
    if not pattern and PurePosixPath(name_of(url)).suffix.lower() in endings:
        return [url]
    try:
        system, path = _open(url)
        if not pattern and not system.isdir(path):
            return [url]  # a file of another name: whether it can be read shows when it is
        names = system.glob(path if pattern else path.rstrip("/") + "/*")
        names = [system.unstrip_protocol(name) for name in sorted(names)]
    except TamisError:
        raise
    except Exception as fault:  # noqa: BLE001
        raise InputError(f"{url} cannot be looked at ({type(fault).__name__}: {fault}).") from None
    found = [name for name in names if PurePosixPath(name).suffix.lower() in endings]
    if not found:
        raise UsageError(f"{url} holds no file that ends in {', '.join(sorted(endings))}.")
    return found


def clear_copies(process: int) -> None:
    """Delete what a process had fetched that was killed: a copy may be gigabytes, and nobody else knows of it."""
    for folder in Path(gettempdir()).glob(f"tamis-{process}-*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A copy of the file on this machine, for as long as the block runs. Raises InputError when it cannot be had."""
    with TemporaryDirectory(prefix=f"tamis-{os.getpid()}-") as folder:
        path = Path(folder) / name_of(url)
        try:
            system, remote = _open(url)
            system.get_file(remote, str(path))
        except TamisError:
            raise
        except Exception as fault:  # noqa: BLE001
            raise InputError(f"{url} cannot be fetched ({type(fault).__name__}: {fault}).") from None
        try:
            yield path
        except InputError as error:  # of a copy whose name nobody knows
            error.args = (str(error).replace(str(path), url),)
            raise


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it."""
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fsspec", "slides") from None
    except ImportError as error:  # fsspec names the package that a protocol needs
        raise InputError(f"{url} cannot be fetched: {str(error).rstrip('.')}.") from None
