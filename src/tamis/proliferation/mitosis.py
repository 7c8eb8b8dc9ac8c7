"""The record between finding mitoses and counting them: a detector's, or a pathologist's own clicks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mitosis:
    """One mitotic figure: its centre in um from the slide's upper left corner, and how likely it is one (NaN where whoever
    marked it did not say)."""

    x_um: float
    y_um: float
    probability: float
