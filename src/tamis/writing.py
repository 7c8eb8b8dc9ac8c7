"""Files that appear whole or not at all: written beside their final name, then renamed.

with replacing(path) as beside:
    beside.write_text(...)
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tamis.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "there is no permission to write there; choose another place with -o, or change the permission",
    errno.EPERM: "there is no permission to write there; choose another place with -o, or change the permission",
    errno.EROFS: "that place is read-only; choose another with -o",
    errno.ENOTDIR: "a part of its path is a file and not a folder; choose another place with -o",
    errno.EISDIR: "it is a folder; name a file inside it with -o",
    errno.EEXIST: "a part of its path is a file and not a folder; choose another place with -o",
    errno.ENODEV: "it is a device or a pipe, and results are renamed into their place; name a file with -o",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one with -o",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`, with the same ending, that takes its name when the block has ended well.

    Missing folders are made. Whatever goes wrong, `path` holds what it held before, and nothing is left beside it.
    The block must only write: every OSError in it is taken for a failure to write, and raised as `OutputError`.
    """
    try:
        _make_way(path)
        if path.is_symlink():  # the file behind it is replaced, and the link stays
            path = Path(os.path.realpath(path))  # `resolve` raises for a link to itself
            _make_way(path)
        # A fixed name per target, so that what a killed run leaves is overwritten by the next and does not pile up.
        beside = path.with_name(f".part-{zlib.crc32(os.fsencode(path.name)):08x}{path.suffix}")
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder beside `path`, for what is needed while its content is made. It is gone when the block has ended.

    Raises OutputError when it cannot be made.
    """
    # A fixed name here, too: what a killed run left is as large as a slide's map, and hidden.
    folder = path.with_name(f".part-{zlib.crc32(os.fsencode(path.name)):08x}.scratch")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise output_error(path, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reserve(path: Path, size_bytes: int) -> None:
    """A file of at least this size that has its room on the disk, zeros where nothing was written.

    For files that are mapped into memory: in a mapped file that only claims its size, the first page for which the disk has
    no room ends the process (SIGBUS). Raises OSError where there is too little.
    """
    path.touch()
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) < size_bytes:
            file.truncate(size_bytes)
        if size_bytes and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            except OSError as error:
                if error.errno not in (
                    errno.EOPNOTSUPP,
                    errno.EINVAL,
                ):  # such file systems can promise nothing
                    raise


def readable(name: str | Path) -> str:
    """A file's name as text that can be written anywhere: names need not be UTF-8, and such bytes become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _make_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_what_is_no_file(path)


def _refuse_what_is_no_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.ENODEV, "it is a device or a pipe", str(path))


def check_writable(path: Path) -> None:
    """Raise `OutputError` now if `path` cannot be written, and not after an hour of work. Leaves nothing behind."""
    try:
        path = Path(os.path.realpath(path)) if path.is_symlink() else path
        _refuse_what_is_no_file(path)
        # Missing folders are not made to be taken away again: with several workers one would take away another's.
        folder = next(parent for parent in path.parents if parent.exists())
        probe = folder / f".probe-{zlib.crc32(os.fsencode(path.name)):08x}{path.suffix}"
        try:
            probe.touch()
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """The sentence for a failure to write `path`."""
    reason = _REASONS.get(error.errno or 0) or f"the system says: {error.strerror or error}"
    return OutputError(f"{path} was not written: {reason}.")
