"""A page to proof-read subtitles on: one HTML file that needs nothing else, neither network nor server.

Every cue's picture stands beside its text, the doubtful ones first. Corrections are kept by the browser while one
works and leave the page as a corrected .srt or .vtt. The page itself is review.html, review.css, review_cues.js
(what happens to cues) and review.js (what happens on the page); this file puts them together.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tamis.subtitles import raster
from tamis.subtitles.cue import Cue
from tamis.subtitles.formats import at_top, on_grid, plain_text
from tamis.subtitles.pictures import for_page, grey
from tamis.writing import replacing

# Pictures are shrunk to what a page shows; with WebP, 1500 cues make a page of about 10 MB.
WIDEST, TALLEST, QUALITY = 960, 240, 60


def write(
    cues: Sequence[Cue],
    path: str | os.PathLike[str],
    *,
    title: str,
    frame_size: tuple[int, int] | None = None,
    language: str = "",
) -> None:
    """Writes the page, whole or not at all.

    cues        with pictures where there are any (`read(..., pictures=True)`)
    title       name of the film: heading of the page, and name of the files it saves
    frame_size  (width, height) of the upright frame, so that cues at the top stay there in .vtt
    language    BCP 47 tag such as "zh-hant", which makes browsers pick that region's glyphs

    Raises `OutputError` when the file cannot be written.
    """
    with replacing(Path(path)) as beside:
        beside.write_text(page(cues, title, frame_size, language), encoding="utf-8", newline="\n")


def page(
    cues: Sequence[Cue], title: str, frame_size: tuple[int, int] | None = None, language: str = ""
) -> str:
    """The HTML text of the page."""
    title = title.encode("utf-8", "replace").decode()  # file names may hold bytes that are no text
    shown = [_shown(cue, frame_size) for cue in cues]
    data = {"title": title, "key": _key(title, shown), "language": language, "cues": shown}
    parts = {
        "title": html.escape(title),
        "style": _part("review.css"),
        "program": _part("review_cues.js") + _part("review.js"),
        "data": _inert(data),
    }
    # One pass over the template alone: no text of a cue can stand for another part.
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _part("review.html"))


def _part(name: str) -> str:
    return files("tamis.subtitles").joinpath(name).read_text(encoding="utf-8")


def _inert(data: dict[str, Any]) -> str:
    """JSON that no HTML parser can take for markup: without `<` there is neither `</script` nor `<!--`."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _key(title: str, shown: Sequence[dict[str, Any]]) -> str:
    """Names the reader's result, so that a browser finds a proof-reader's work on just this result again."""
    result = [[cue["start"], cue["end"], cue["text"]] for cue in shown]
    return hashlib.sha256(json.dumps([title, result]).encode()).hexdigest()[:16]


def _shown(cue: Cue, frame_size: tuple[int, int] | None) -> dict[str, Any]:
    start, end = on_grid(cue, 1000)
    return {
        "start": start,  # milliseconds, rounded as in .srt
        "end": end,
        "text": plain_text(cue),
        "sure": _sure(cue),
        "confidence": round(100 * float(cue.confidence)),
        "top": at_top(cue, frame_size),
        "picture": _picture(cue.picture),
    }


def _sure(cue: Cue) -> list[int]:
    """Confidence in percent of every code point of the text; a line break is certain."""
    sure: list[int] = []
    for line in cue.lines:
        if not line.text.strip():
            continue
        if sure:
            sure.append(100)
        for character in line.characters:
            sure.extend([round(100 * float(character.confidence))] * len(character.text))
    return sure


def _picture(picture: bytes) -> str:
    """The picture as a data URL; empty when there is none."""
    image = grey(picture) if picture else None
    if image is None:
        return ""
    height, width = image.shape
    scale = min(1.0, WIDEST / width, TALLEST / height)
    if scale < 1:
        image = raster.shrink(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    kind, stored = for_page(image, QUALITY)
    return f"data:image/{kind};base64," + base64.b64encode(stored).decode()
