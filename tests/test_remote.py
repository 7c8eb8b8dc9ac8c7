"""python -m pytest tests/test_remote.py

On fsspec's file system in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tamis.errors import InputError, UsageError
from tamis.remote import clear_copies, expand_url, fetched, is_url, name_of

fsspec = pytest.importorskip("fsspec")
ENDINGS = frozenset({".svs", ".tif"})


@pytest.fixture
def store() -> Iterator[None]:
    memory = fsspec.filesystem("memory")
    for name in ("b.svs", "a.tif", "notes.txt", "odd"):
        memory.pipe(f"/slides/{name}", name.encode())
    yield
    memory.rm("/slides", recursive=True)


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/a.svs") and is_url("simplecache::https://host/a.svs")
    assert not is_url("C:/slides/a.svs") and not is_url("slides/a.svs")
    assert name_of("https://host/a.svs?key=1") == "a.svs"


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("memory://slides/b.svs", ["b.svs"]),
        ("memory://slides/absent.svs", ["absent.svs"]),
        ("memory://slides/*.tif", ["a.tif"]),
        ("memory://slides/[ab].*", ["a.tif", "b.svs"]),
        ("memory://slides", ["a.tif", "b.svs"]),
        ("memory://slides/", ["a.tif", "b.svs"]),
        ("memory://slides/odd", ["odd"]),
    ],
)
def test_files_patterns_and_folders(store: None, url: str, names: list[str]) -> None:
    assert [name_of(found) for found in expand_url(url, ENDINGS)] == names


def test_nothing_found_is_wrong_usage(store: None) -> None:
    with pytest.raises(UsageError, match="holds no file that ends in"):
        expand_url("memory://slides/*.txt", ENDINGS)


def test_a_copy_lives_as_long_as_the_block(store: None) -> None:
    with fetched("memory://slides/a.tif") as path:
        assert (path.name, path.read_bytes()) == ("a.tif", b"a.tif")
    assert not path.exists()


def test_what_a_killed_process_had_fetched_is_cleared(store: None) -> None:
    with fetched("memory://slides/a.tif") as path:
        clear_copies(os.getpid() + 1)
        assert path.exists(), "of another process"
        clear_copies(os.getpid())
        assert not path.parent.exists()


@pytest.mark.parametrize("url", ["memory://slides/absent.svs", "nosuch://slides/a.svs"])
def test_what_cannot_be_had_is_a_sentence(store: None, url: str) -> None:
    with pytest.raises(InputError, match="cannot be fetched"), fetched(url):
        pass


def test_what_is_wrong_with_a_copy_is_told_of_the_url(store: None) -> None:
    url = "memory://slides/a.tif"
    with pytest.raises(InputError, match=f"^{url} is broken: {url} ends early"), fetched(url) as path:
        raise InputError(f"{path} is broken: {path} ends early.")


def test_a_fault_of_the_block_is_not_taken_for_one_of_the_url(store: None) -> None:
    with pytest.raises(ZeroDivisionError), fetched("memory://slides/a.tif"):
        raise ZeroDivisionError
