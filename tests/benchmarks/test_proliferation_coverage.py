"""python -m pytest tests/benchmarks/test_proliferation_coverage.py"""

from __future__ import annotations

import math

import pytest
from proliferation_coverage import report

from tamis.agreement import Estimate

NONE = Estimate(0.5, math.nan, math.nan, 2)


def test_a_draw_without_an_interval_is_none_that_holds_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    held, above = Estimate(0.5, 0.4, 0.6, 9), Estimate(0.5, 0.8, 0.9, 9)
    report(
        "F1",
        9,
        0.5,
        {"some": lambda sample: sample, "none at all": lambda _: NONE},
        [held, above, NONE, NONE],
    )
    some, none = capsys.readouterr().out.splitlines()
    assert some.split()[-4:] == ["50.0%", "50.0%", "0.0%", "50.0%"]
    assert none.split()[-4:] == ["-", "-", "-", "100.0%"]
