"""Cues as JSON: everything that a `Cue` knows but its picture, for programs.

    {"format": "tamis-subtitles", "version": 1, "tamis": "0.1.0",
     "video": {"name": "film.mp4", "width": 1280, "height": 720},
     "cues": [
      {"start": "1001/24", "end": "1001/12", "start_s": 41.708333, "end_s": 83.416667,
       "text": "...", "confidence": 0.98,
       "lines": [{"text": "...", "box": [left, top, right, bottom],
                  "characters": [{"text": "...", "confidence": 0.99, "box": [...]}]}]}]}

`start` and `end` are exact fractions of a second; `start_s` and `end_s` repeat them for those who do not need that.
Version 1 may gain fields; a change of meaning makes a version 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import tamis
from tamis.subtitles.cue import Box, Character, Cue, Line

FORMAT, VERSION = "tamis-subtitles", 1


class MalformedError(ValueError):
    """Where in the file what was found in place of what."""


def dumps(cues: Sequence[Cue], source: str, frame_size: tuple[int, int] | None) -> str:
    """One cue a line, so that line tools and diffs work."""
    width, height = frame_size or (None, None)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "tamis": tamis.__version__,
        "video": {"name": source or None, "width": width, "height": height},
    }
    lines = ",\n".join(json.dumps(_plain(cue), ensure_ascii=False) for cue in cues)
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "cues": [\n{lines}\n]}}\n'


def loads(text: str) -> list[Cue]:
    """The cues that `dumps` wrote, equal to them but for pictures. Raises `MalformedError`."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise MalformedError(f"line {error.lineno}: not JSON ({error.msg})") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, numbers of thousands of digits
        raise MalformedError("line 1: not JSON of this kind") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise MalformedError(f'line 1: no "format": "{FORMAT}"')
    if document.get("version") != VERSION:
        raise MalformedError(f"line 1: version {document.get('version')!r}, expected {VERSION}")
    return [_cue(entry, f"cues[{index}]") for index, entry in enumerate(_get(document, "cues", list, ""))]


def _plain(cue: Cue) -> dict[str, Any]:
    return {
        "start": f"{cue.start.numerator}/{cue.start.denominator}",
        "end": f"{cue.end.numerator}/{cue.end.denominator}",
        "start_s": round(float(cue.start), 6),
        "end_s": round(float(cue.end), 6),
        "text": cue.text,
        "confidence": float(cue.confidence),
        "lines": [
            {
                "text": line.text,
                "box": _edges(line.box),
                "characters": [
                    {"text": each.text, "confidence": float(each.confidence), "box": _edges(each.box)}
                    for each in line.characters
                ],
            }
            for line in cue.lines
        ],
    }


def _edges(box: Box) -> list[int]:
    return [int(edge) for edge in box]  # NumPy's integers are none to `json`


def _cue(entry: Any, place: str) -> Cue:
    start, end = _time(entry, "start", place), _time(entry, "end", place)
    if end < start:
        raise MalformedError(f"{place}: the end is before the start")
    lines = tuple(
        _line(line, f"{place}.lines[{n}]") for n, line in enumerate(_get(entry, "lines", list, place))
    )
    return Cue(start, end, lines, _probability(entry, place))


def _line(entry: Any, place: str) -> Line:
    characters = _get(entry, "characters", list, place)
    return Line(
        tuple(_character(character, f"{place}.characters[{n}]") for n, character in enumerate(characters)),
        _box(entry, place),
    )


def _character(entry: Any, place: str) -> Character:
    return Character(_get(entry, "text", str, place), _probability(entry, place), _box(entry, place))


def _get(entry: Any, key: str, kind: type, place: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        where = f"{place}.{key}" if place else key
        raise MalformedError(f"{where}: found {str(value)[:40]!r}, expected {kind.__name__}")
    return value


def _time(entry: Any, key: str, place: str) -> Fraction:
    text = _get(entry, key, str, place)
    found = re.fullmatch(r"(-?[0-9]{1,60})/([0-9]{1,60})", text)
    if not found or int(found[2]) == 0:
        raise MalformedError(f'{place}.{key}: found {text[:40]!r}, expected a fraction such as "1001/24000"')
    return Fraction(int(found[1]), int(found[2]))


def _probability(entry: Any, place: str) -> float:
    value = entry.get("confidence") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise MalformedError(f"{place}.confidence: found {str(value)[:40]!r}, expected a number from 0 to 1")
    return float(value)


def _box(entry: Any, place: str) -> Box:
    box = _get(entry, "box", list, place)
    if len(box) != 4 or not all(isinstance(edge, int) and not isinstance(edge, bool) for edge in box):
        raise MalformedError(f"{place}.box: found {str(box)[:40]!r}, expected four whole numbers")
    left, top, right, bottom = box
    return left, top, right, bottom
