"""python -m pytest tests/proliferation/test_grounds.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tamis.proliferation import grounds


def test_what_came_with_a_mitosis_is_no_negative_of_the_ground(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted mitosis brings 12 um of its neighbourhood, in which its own daughters may lie."""
    known = [(100.0, 100.0, "mitosis"), (300.0, 300.0, "mined")]
    monkeypatch.setattr(grounds, "_slide", lambda *_: (np.zeros((8, 8, 3), np.uint8), known))
    found = np.array([[150.0, 100.0], [160.0, 100.0], [330.0, 300.0], [350.0, 300.0]])
    fields, nuclei = grounds.composed_nuclei(Path(), 7, lambda pixels: found, Path(), slides=1)
    assert fields[0].mitoses == ((100.0, 100.0),)
    assert [(n.field, n.x, n.label) for n in nuclei] == [
        (7, 100.0, 1),
        (7, 300.0, 0),
        (7, 160.0, 0),
        (7, 350.0, 0),
    ]
