"""python -m pytest tests/proliferation/test_grading.py"""

from __future__ import annotations

import pytest

from tamis.errors import UsageError
from tamis.proliferation.grading import NOTTINGHAM, TUPAC, count_interval, grading, nottingham


def test_tupac_scores_begin_at_six_and_eleven() -> None:
    assert [TUPAC.score(count) for count in (0, 5, 6, 10, 11, 99)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("field_mm", sorted(NOTTINGHAM))
def test_the_nottingham_table_is_kept(field_mm: float) -> None:
    last, first = NOTTINGHAM[field_mm]
    found = nottingham(field_mm)
    assert (found.last_of_one, found.first_of_three) == (last, first)
    assert [found.score(count) for count in (last, last + 1, first - 1, first)] == [1, 2, 2, 3]


def test_nottingham_at_two_square_millimetres() -> None:
    """A field of 0.505 mm: ten make 2 mm2, whose borders are 7 and 14 up to one."""
    found = nottingham(0.505)
    assert found.area_mm2 == pytest.approx(2.0, abs=0.005)
    assert (found.last_of_one, found.first_of_three) == (7, 15)


def test_presets_by_name() -> None:
    assert grading("tupac") == TUPAC
    assert grading("nottingham(0.55)") == grading("nottingham:0.55") == nottingham(0.55)
    for wrong in ("elston", "nottingham", "nottingham(x)", "nottingham(1.2.3)"):
        with pytest.raises(UsageError, match="is no preset"):
            grading(wrong)
    with pytest.raises(UsageError, match=r"outside the Nottingham table, which goes from 0\.40 to 0\.63"):
        grading("nottingham:0.9")


def test_the_count_interval_is_garwoods() -> None:
    """Tabled values; and both ends leave 2.5 % beyond."""
    stats = pytest.importorskip("scipy.stats")
    assert count_interval(0) == pytest.approx((0, 3.689), abs=0.001)
    assert count_interval(10) == pytest.approx((4.795, 18.39), abs=0.005)
    low, high = count_interval(7)
    assert stats.poisson.sf(6, low) == pytest.approx(0.025)
    assert stats.poisson.cdf(7, high) == pytest.approx(0.025)
