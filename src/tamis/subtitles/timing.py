"""The first and the last visible frame of a text, from its contrast frame by frame.

A text counts as visible in a frame when its contrast is at least half of what it has when fully shown; so a fade
begins and ends at its middle, as an editor would set it, and a hard cut exactly where it is.
"""

from __future__ import annotations

from collections.abc import Sequence

VISIBLE = 0.5  # of the full contrast


def first_visible(contrast: Sequence[float], inside: int, full: float) -> int:
    """Index of the first visible frame of the run of visible frames around `inside`.

    >>> first_visible([0, 10, 40, 90, 100, 100], inside=4, full=100)
    3
    """
    while inside < len(contrast) - 1 and contrast[inside] < VISIBLE * full:
        inside += 1
    while inside > 0 and contrast[inside - 1] >= VISIBLE * full:
        inside -= 1
    return inside


def last_visible(contrast: Sequence[float], inside: int, full: float) -> int:
    """Index of the last visible frame of the run of visible frames around `inside`.

    >>> last_visible([100, 100, 60, 20, 0], inside=1, full=100)
    2
    """
    while inside > 0 and contrast[inside] < VISIBLE * full:
        inside -= 1
    while inside < len(contrast) - 1 and contrast[inside + 1] >= VISIBLE * full:
        inside += 1
    return inside
