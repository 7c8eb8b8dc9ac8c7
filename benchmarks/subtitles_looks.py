"""How the subtitles of the end-to-end clips look, and the ASS file that says so to libass.

A theme is one difficulty (thin outlines, white on white, back-to-back cues, ...). Every clip has one, in turn, so that
each difficulty occurs in every language; smaller ones are added at random.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from subtitles_sentences import Face, em_ratio

Colour = tuple[int, int, int]  # red, green, blue

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Look:
    """One ASS style. Outline, shadow and blur are pixels at 720 lines; `box` draws BorderStyle 3.

    `back_alpha` 0 is opaque, 255 invisible.
    """

    fill: Colour = WHITE
    line: Colour = BLACK
    outline: float = 2.0
    shadow: float = 0.0
    box: bool = False
    back_alpha: int = 0
    bold: bool = False
    italic: bool = False
    blur: float = 0.0
    spacing_em: float = 0.0


@dataclass(frozen=True)
class Theme:
    """A difficulty: its look, the kinds of footage it stands on, where and how its cues come."""

    name: str
    look: Look = field(default_factory=Look)
    footage: tuple[str, ...] = ("live", "live", "live", "texture", "blurred", "dark", "line-art", "white")
    alignment: int = 2  # as on the numeric keypad: 2 bottom centre, 8 top centre, 1 bottom left, 7 top left
    timing: str = "normal"  # normal, back-to-back, neighbours, short, long, fade
    two_lines: float = 0.12  # share of cues
    logo: float = 0.15  # probability
    signs: float = 0.08  # probability
    cuts: str = "random"  # random, at-cues, inside-cues
    size: tuple[int, int] | None = None
    quality: tuple[int, int] = (20, 31)  # CRF, low to high
    round_trip: float = 0.15  # probability
    rare: float = 0.03  # share of cues
    numbers: bool = False


THIN = Look(outline=1.0)
THEMES: tuple[Theme, ...] = (
    Theme("plain"),
    Theme("white-on-white", Look(outline=1.6), ("white", "bright", "line-art", "bright")),
    Theme("fade", timing="fade"),
    Theme("back-to-back", timing="back-to-back"),
    Theme("short-cues", timing="short"),
    Theme("thin-outline", THIN, ("live", "bright", "white", "line-art", "dark")),
    Theme("two-lines", two_lines=0.7),
    Theme("yellow-on-yellow", Look(fill=(255, 230, 40)), ("yellow", "yellow", "live", "white")),
    Theme("neighbours", timing="neighbours"),
    Theme("dark-on-light", Look(fill=(18, 18, 24), line=WHITE, outline=0.0), ("pale", "pale", "pale")),
    Theme("semi-box", Look(outline=6.0, box=True, back_alpha=0x80)),
    Theme("top", alignment=8),
    Theme("signs", signs=1.0, logo=0.4),
    Theme("line-art", Look(outline=2.5), ("line-art",)),
    Theme("long-cues", timing="long", cuts="inside-cues"),
    Theme("logo", logo=1.0),
    Theme("opaque-box", Look(outline=5.0, box=True)),
    Theme("shadow", Look(outline=0.0, shadow=2.5), ("live", "dark", "blurred", "texture")),
    Theme("cuts-at-cues", Look(line=(60, 30, 10)), cuts="at-cues"),
    Theme("left", alignment=1),
    Theme("italic", Look(italic=True)),
    Theme("low-quality", quality=(30, 33), size=(640, 360)),
    Theme("bold", Look(bold=True, outline=3.0), ("texture", "live", "white", "line-art")),
    Theme("rare", rare=0.4, numbers=True),
    Theme("light-box", Look(fill=(20, 20, 20), line=(240, 240, 235), outline=5.0, box=True)),
    Theme("round-trip", Look(blur=0.6), round_trip=1.0),
    Theme("spaced", Look(spacing_em=0.14)),
    Theme("coloured-outline", Look(line=(30, 60, 160), outline=2.2)),
)


def vary(look: Look, rng: np.random.Generator) -> Look:
    """The look with small random differences, so that two clips of one theme are not the same."""
    if look.fill == WHITE and not look.box and rng.random() < 0.15:
        look = replace(look, fill=(255, 236, 90) if rng.random() < 0.5 else (235, 235, 235))
    if look.outline > 1.5 and not look.box:
        look = replace(look, outline=look.outline * float(rng.uniform(0.75, 1.4)))
    if look.shadow == 0 and look.outline > 1 and not look.box and rng.random() < 0.3:
        look = replace(look, shadow=float(rng.uniform(0.8, 1.6)))
    if not look.bold and rng.random() < 0.1:
        look = replace(look, bold=True)
    return look


def centiseconds(value: int) -> str:
    """ASS time: H:MM:SS.cc"""
    return f"{value // 360000}:{value // 6000 % 60:02d}:{value // 100 % 60:02d}.{value % 100:02d}"


def _colour(colour: Colour, alpha: int = 0) -> str:
    red, green, blue = colour
    return f"&H{alpha:02X}{blue:02X}{green:02X}{red:02X}"


STYLE_FORMAT = (
    "Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline,"
    " StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV,"
    " Encoding"
)


@dataclass(frozen=True)
class Event:
    """One line of the ASS file: exact times in centiseconds, fade in and out in ms, text with \\n between lines."""

    start_cs: int
    end_cs: int
    text: str
    fade_in_ms: int = 0
    fade_out_ms: int = 0
    alignment: int = 2


def ass_file(
    size: tuple[int, int], face: Face, em_px: float, look: Look, margin_px: int, events: list[Event]
) -> str:
    """The ASS script in the pixels of the video, so that nothing is scaled."""
    scale = min(size) / 720
    style = [
        "Default", face.family, f"{em_px * em_ratio(face):.2f}", _colour(look.fill), _colour(look.fill),
        _colour(look.line, look.back_alpha), _colour(BLACK, 0x60 if look.outline else 0), str(-int(look.bold)),
        str(-int(look.italic)), "0", "0", "100", "100", f"{look.spacing_em * em_px:.2f}", "0",
        "3" if look.box else "1", f"{look.outline * scale:.2f}", f"{look.shadow * scale:.2f}", "2", str(margin_px),
        str(margin_px), str(margin_px), "1",
    ]  # fmt: skip
    lines = [
        "[Script Info]", "ScriptType: v4.00+", f"PlayResX: {size[0]}", f"PlayResY: {size[1]}", "WrapStyle: 2",
        "ScaledBorderAndShadow: yes", "", "[V4+ Styles]", f"Format: {STYLE_FORMAT}", "Style: " + ",".join(style), "",
        "[Events]", "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
    ]  # fmt: skip
    for event in events:
        tags = f"\\an{event.alignment}"
        if event.fade_in_ms or event.fade_out_ms:
            tags += f"\\fad({event.fade_in_ms},{event.fade_out_ms})"
        if look.blur:
            tags += f"\\blur{look.blur * scale:.2f}"
        times = f"{centiseconds(event.start_cs)},{centiseconds(event.end_cs)}"
        text = event.text.replace("\n", "\\N")
        lines.append(f"Dialogue: 0,{times},Default,,0,0,0,,{{{tags}}}{text}")
    return "\n".join(lines) + "\n"
