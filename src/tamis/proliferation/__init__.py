"""Tumour proliferation on whole-slide images: `score_slide("breast.svs")` gives a `SlideScore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tamis.proliferation.mitosis import Mitosis
    from tamis.proliferation.score import Settings, SlideScore, score_slide

__all__ = ["Mitosis", "Settings", "SlideScore", "score_slide"]


def __getattr__(name: str) -> Any:
    # Readers and networks are loaded when something is scored, not when the package is named.
    if name == "Mitosis":
        from tamis.proliferation.mitosis import Mitosis

        return Mitosis
    if name in ("Settings", "SlideScore", "score_slide"):
        from tamis.proliferation import score

        return getattr(score, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
