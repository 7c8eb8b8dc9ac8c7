"""python -m pytest tests/test_native.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis import native
from tamis.errors import UsageError

needs_library = pytest.mark.skipif(native.load() is None, reason="installed without a compiler")


@needs_library
def test_the_portable_path_is_always_there() -> None:
    assert native.instruction_sets()["portable"]
    assert native.chosen("portable") == 0


@needs_library
def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.VARIABLE, "portable")
    assert native.chosen() == 0
    assert "portable runs (by TAMIS_ISA)" in native.description()
    monkeypatch.setenv(native.VARIABLE, native.NONE)
    assert native.chosen() is None
    assert native.description().startswith("absent")


@needs_library
def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'mmx' is unknown; this processor runs portable"):
        native.chosen("mmx")


def test_no_library_is_no_error(tmp_path: Path) -> None:
    assert native.load(tmp_path / "absent.so") is None
    (tmp_path / "broken.so").write_bytes(b"not a library")
    assert native.load(tmp_path / "broken.so") is None


def test_without_the_library_a_named_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: None)
    monkeypatch.setattr(native, "PATH", Path("nowhere"))
    monkeypatch.delenv(native.VARIABLE, raising=False)
    assert native.chosen() is None
    assert "without a C++ compiler" in native.description()
    with pytest.raises(UsageError, match="compiled kernels are absent"):
        native.chosen("avx2")
