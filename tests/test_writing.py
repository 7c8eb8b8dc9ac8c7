"""python -m pytest tests/test_writing.py"""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from tamis.errors import OutputError
from tamis.writing import check_writable, readable, replacing, reserve, scratch


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "film.srt"
    with replacing(target) as beside:
        beside.write_text("half")
        assert not target.exists() and beside.suffix == ".srt" and beside.parent == target.parent
    assert target.read_text() == "half"
    assert [path.name for path in target.parent.iterdir()] == ["film.srt"]


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "film.srt"
    target.write_text("before")
    with pytest.raises(KeyError), replacing(target) as beside:
        beside.write_text("half")
        raise KeyError
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["film.srt"]


def test_two_targets_in_a_folder_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.srt") as a, replacing(tmp_path / "b.srt") as b:
        a.write_text("a")
        b.write_text("b")
    assert (tmp_path / "a.srt").read_text() + (tmp_path / "b.srt").read_text() == "ab"


def test_a_scratch_folder_is_gone_afterwards_and_so_is_what_a_killed_run_left(tmp_path: Path) -> None:
    with scratch(tmp_path / "new" / "slide") as first:
        (first / "map").write_text("large")
        assert first.name.startswith(".part-")
    with pytest.raises(KeyError), scratch(tmp_path / "new" / "slide") as second:
        raise KeyError
    assert not list((tmp_path / "new").iterdir())
    second.mkdir()
    (second / "map").write_text("of a run that was killed")
    with scratch(tmp_path / "new" / "slide") as third, scratch(tmp_path / "new" / "other") as other:
        assert third == second != other and not list(third.iterdir())
    with pytest.raises(OutputError, match="a part of its path is a file"):
        (tmp_path / "file").touch()
        with scratch(tmp_path / "file" / "slide"):
            pass


def test_names_that_are_no_utf_8_do_not_meet(tmp_path: Path) -> None:
    one, other = (tmp_path / os.fsdecode(b"caf" + last) for last in (b"\xe9", b"\xe8"))
    with scratch(one) as a, scratch(other) as b:
        assert a != b and a.is_dir()
    with replacing(one) as a, replacing(other) as b:
        a.write_text("a")
        b.write_text("b")
    assert (one.read_text(), other.read_text()) == ("a", "b")
    assert readable(one.name) == "caf\\xe9" and readable(Path("字.tif")) == "字.tif"


def test_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    target = tmp_path / ("字" * 83 + ".srt")  # 253 of the 255 bytes that a name may have
    with replacing(target) as beside:
        beside.write_text("x")
    assert target.exists()


def test_a_full_disk_is_a_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(OutputError, match=r"film\.srt was not written: the disk is full; free some space"),
        replacing(Path("film.srt").absolute()),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")


def test_a_file_too_large_is_a_sentence(tmp_path: Path) -> None:
    """A real failure in the middle of writing, by a limit on file sizes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with (
            pytest.raises(OutputError, match="larger than this system allows"),
            replacing(tmp_path / "a.srt") as beside,
        ):
            beside.write_bytes(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a part of its path is a file"):
        check_writable(tmp_path / "file" / "film.srt")
    with pytest.raises(OutputError, match="it is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="the name is too long"):
        check_writable(tmp_path / ("字" * 90 + ".srt") / "x.srt")
    with pytest.raises(OutputError, match="a part of its path is a file"):
        check_writable(tmp_path / "file" / "new" / "film.srt")
    check_writable(tmp_path / "film.srt")
    check_writable(tmp_path / "new" / "folders" / "film.srt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "film.srt"
    for target in (tmp_path / "there.srt", tmp_path / "new" / "film.srt"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        check_writable(link)
        with replacing(link) as beside:
            beside.write_text("x")
        assert link.is_symlink() and not target.is_symlink() and target.read_text() == "x"
    link.unlink()
    link.symlink_to(link)  # to itself: there is nothing behind it
    with replacing(link) as beside:
        beside.write_text("y")
    assert link.read_text() == "y"


def test_a_folder_is_no_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path("/"), tmp_path):
        with pytest.raises(OutputError, match="it is a folder"):
            check_writable(place)
        with pytest.raises(OutputError, match="it is a folder"), replacing(place):
            pass


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """For root a rename over /dev/null succeeds, too, and the device is gone."""
    pipe = tmp_path / "pipe.srt"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="a device or a pipe"):
        check_writable(pipe)
    with pytest.raises(OutputError, match="a device or a pipe"), replacing(pipe) as beside:
        beside.touch()
    assert pipe.is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_what_is_reserved_is_on_the_disk(tmp_path: Path) -> None:
    place = tmp_path / "map"
    place.write_bytes(b"head")
    reserve(place, 1 << 20)
    assert place.read_bytes() == b"head" + bytes((1 << 20) - 4)
    if hasattr(os, "posix_fallocate"):
        assert place.stat().st_blocks * 512 >= 1 << 20
    reserve(place, 0)
    assert place.stat().st_size == 1 << 20


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_a_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match="no permission to write there; choose another place with -o"):
        check_writable(tmp_path / "film.srt")
