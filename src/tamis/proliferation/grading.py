"""From a count of mitoses in an area to the mitotic score 1, 2 or 3, and how sure the count is.

tupac               per 2 mm2: 1 up to 5, 2 from 6 to 10, 3 from 11 on (Veta et al. 2019: ten high-power fields)
nottingham(field)   per ten fields of a microscope, whose diameter decides (Elston & Ellis 1991; Royal College tables)

Laboratories disagree by one at some borders: at 0.59 mm one published text calls a count of 20 a 2, the table a 3. The
density in mitoses per mm2 needs no such choice, and is always reported beside the score.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from scipy.stats import chi2

from tamis.errors import UsageError

# Field diameter in mm: (highest count of score 1, lowest count of score 3) in ten fields.
NOTTINGHAM = {0.40: (4, 10), 0.44: (5, 12), 0.50: (7, 14), 0.55: (8, 17), 0.59: (9, 20), 0.63: (11, 22)}


@dataclass(frozen=True, slots=True)
class Grading:
    """Where the scores begin, for a count in `area_mm2`."""

    name: str
    area_mm2: float
    last_of_one: int
    first_of_three: int

    def score(self, count: float) -> int:
        return 1 if count <= self.last_of_one else 3 if count >= self.first_of_three else 2


TUPAC = Grading("tupac", 2.0, 5, 11)


def nottingham(field_mm: float) -> Grading:
    """The thresholds of ten fields of this diameter, between the table's rows linear in the field's area.

    Raises UsageError outside the table.
    """
    known = sorted(NOTTINGHAM)
    if not known[0] <= field_mm <= known[-1]:
        raise UsageError(
            f"A field of {field_mm} mm is outside the Nottingham table, which goes from {known[0]:.2f} to "
            f"{known[-1]:.2f} mm; use the preset tupac, or the density per mm2."
        )
    above = next(d for d in known if d >= field_mm)
    below = next(d for d in reversed(known) if d <= field_mm)
    share = 0.0 if above == below else (field_mm**2 - below**2) / (above**2 - below**2)
    one, three = (
        (1 - share) * a + share * b for a, b in zip(NOTTINGHAM[below], NOTTINGHAM[above], strict=True)
    )
    area_mm2 = 10 * math.pi * field_mm**2 / 4
    return Grading(f"nottingham({field_mm:g})", area_mm2, math.floor(one + 1e-9), math.ceil(three - 1e-9))


def grading(name: str) -> Grading:
    """`tupac`, or `nottingham(0.55)`; `nottingham:0.55` spares the shell's quotes. Raises UsageError otherwise."""
    if name == TUPAC.name:
        return TUPAC
    if match := re.fullmatch(r"nottingham[(:]([0-9.]+)\)?", name):
        try:
            return nottingham(float(match[1]))
        except ValueError:
            pass
    raise UsageError(
        f"{name!r} is no preset: use tupac, or nottingham:DIAMETER with the field's diameter in mm, such as 0.55."
    )


def count_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """The exact Poisson interval of an expected count (Garwood 1936).

    It is that of a window fixed beforehand: what another section of the same place might have given. That a hot spot is chosen
    for its count is not in it, which makes both ends too high; nor is what the detector misses or invents.
    """
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(chi2.ppf(tail, 2 * count)) / 2
    return low, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2
