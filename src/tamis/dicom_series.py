"""Whether all of a DICOM slide is there. It comes as a series of instances, one or more for each level of the pyramid.

openslide takes the largest level it finds for the whole slide and white for tiles that no instance holds, so an instance
lost on the way shows nowhere. What betrays it: frames of a fully tiled level that are not there; parts of a concatenation;
a largest level that calls itself resampled; or a step of the pyramid too large, where a number of the series is left out.
(Either alone means nothing: labels are taken out to hide names, and pyramids have steps of 2 and of 4 side by side.) A
smallest level that was lost leaves no trace, and nothing reads it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tamis.errors import InputError

USUAL_STEP = 4.0  # of a pyramid, where it has too few levels to tell
LEAST_PX = 64  # in width: below, rounding makes a step of 3 out of 2
TOO_LARGE_STEP = 1.5  # times the largest other step: a lost level makes it twice or four times as large


@dataclass(slots=True)
class _Level:
    frames: int = 0
    needed: int = 0
    """Frames of the whole level; 0 where it is sparse, so that nobody can tell."""
    numbers: list[int] = field(default_factory=list)
    """InstanceNumber of its instances."""


def refuse_incomplete_series(path: Path, *, alone: bool = False) -> None:
    """Raise InputError when the series that the instance `path` belongs to misses one beside it in the folder; and, where it
    should be `alone` there, when another slide's is."""
    levels: dict[tuple[int, int], _Level] = defaultdict(_Level)
    parts: dict[str, tuple[set[int], int]] = {}
    numbers: set[int] = set()
    original = False
    for data in series_of(path, alone=alone):
        numbers.add(_number(data))
        kind = [str(value) for value in data.get("ImageType", [])]
        if "VOLUME" not in kind:
            continue
        original = original or "RESAMPLED" not in kind
        width, height = int(data.TotalPixelMatrixColumns), int(data.TotalPixelMatrixRows)
        level = levels[width, height]
        level.frames += int(data.get("NumberOfFrames", 1))
        level.numbers.append(_number(data))
        if str(data.get("DimensionOrganizationType", "")) == "TILED_FULL":
            level.needed = math.ceil(width / int(data.Columns)) * math.ceil(height / int(data.Rows))
        if whole := data.get("ConcatenationUID"):
            there, _ = parts.setdefault(str(whole), (set(), int(data.get("InConcatenationTotalNumber") or 0)))
            there.add(int(data.get("InConcatenationNumber") or 0))
    lost = _lost(levels, parts, numbers, original)
    if lost:
        raise InputError(f"{path.parent}: the DICOM series misses {lost}; fetch the whole series.")


def series_of(path: Path, *, alone: bool = False) -> Iterator[Any]:
    """The headers of the instances in the folder of `path` that belong to its series, its own first.

    Raises InputError where `path` cannot be read, or where it should be `alone` and there is another slide.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    series = None
    for instance in [path, *(p for p in sorted(path.parent.glob("*.dcm")) if p != path)]:
        try:
            data = pydicom.dcmread(instance, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError) as error:
            if instance == path:
                raise InputError(f"{path} is no readable DICOM instance ({error}).") from error
            continue
        series = series or data.get("SeriesInstanceUID")
        if data.get("SeriesInstanceUID") == series:
            yield data
        elif alone and "VOLUME" in [str(value) for value in data.get("ImageType", [])]:
            raise InputError(
                f"{path.parent} holds more than one DICOM slide: {instance.name} belongs to another series than {path.name}. "
                "Put each series into a folder of its own, or name one file of each."
            )


def series_uid(path: Path) -> str:
    """Which series an instance belongs to; empty where its header cannot be read."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError):
        return ""
    return str(data.get("SeriesInstanceUID") or "")


def _lost(
    levels: Mapping[tuple[int, int], _Level],
    parts: Mapping[str, tuple[set[int], int]],
    numbers: set[int],
    original: bool,
) -> str:
    """What is missing, in words; empty where nothing is."""
    for (width, height), level in levels.items():
        if level.frames < level.needed:
            have = f"{level.frames} of {level.needed} frames"
            return f"an instance: its level of {width} x {height} px has {have}"
    for there, total in parts.values():
        if len(there) < total:
            return f"an instance: {len(there)} of the {total} parts of a level are there"
    if levels and not original:
        return "the instance with the full resolution: only reduced levels are there"
    widths = sorted((width for width, _ in levels if width >= LEAST_PX), reverse=True)
    steps = [fine / coarse for fine, coarse in pairwise(widths)]
    by_width = {width: level for (width, _), level in levels.items()}
    for i, step in enumerate(steps):
        largest_other = max(steps[:i] + steps[i + 1 :], default=USUAL_STEP)
        ends = sorted(max(by_width[width].numbers) for width in widths[i : i + 2])
        left_out = sorted(set(range(ends[0] + 1, ends[1])) - numbers)
        if left_out and step >= TOO_LARGE_STEP * largest_other:
            return (
                f"a level between those of {widths[i]} and {widths[i + 1]} px width, and the instance with the number "
                f"{left_out[0]}"
            )
    return ""


def _number(data: Any) -> int:
    return int(data.get("InstanceNumber") or 0)
