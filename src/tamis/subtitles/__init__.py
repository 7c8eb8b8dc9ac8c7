"""Burnt-in East-Asian subtitles read from video: `read("film.mp4")` gives a list of `Cue`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tamis.subtitles.cue import Character, Cue, Line
    from tamis.subtitles.reader import read

__all__ = ["Character", "Cue", "Line", "read"]


def __getattr__(name: str) -> Any:
    # Decoders and networks are loaded when something is read, not when the package is named.
    if name == "read":
        from tamis.subtitles.reader import read

        return read
    if name in ("Character", "Cue", "Line"):
        from tamis.subtitles import cue

        return getattr(cue, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
