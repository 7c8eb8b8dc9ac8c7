"""python -m pytest tests/test_processors.py"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tamis.processors import processors

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "tamis"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell")
def test_those_that_this_process_may_run_on() -> None:
    allowed = os.sched_getaffinity(0)
    assert processors() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("count", "expected"), [(6, 6), (None, 1)])
def test_on_systems_without_affinity_all_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, count: int | None, expected: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert processors() == expected


def test_nobody_asks_such_a_system_unguarded() -> None:
    """A call without the guard ends the command there, and no test on Linux would show it."""
    asks = [
        path for path in PACKAGE.rglob("*.py") if "sched_getaffinity(" in path.read_text(encoding="utf-8")
    ]
    assert [path.name for path in asks if 'hasattr(os, "sched_getaffinity")' not in path.read_text()] == []
