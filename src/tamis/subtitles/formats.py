"""Subtitle files: SubRip (.srt), WebVTT (.vtt), Advanced SubStation Alpha (.ass) and Tamis's own .json.

Rounding. A player shows a cue on a frame when start <= time of the frame < end. These files store time on a grid,
of milliseconds or (.ass) hundredths of a second, so `write` replaces each time by the last grid point not after it.
That is the only choice that never moves a cue by a frame: a written start has to lie in (time of the frame before,
start], a written end in (time of the last visible frame, end], and if any grid point lies in such an interval, the
last one does. One always does while frames last longer than a grid step, that is below 100 frames/s in .ass and below
1000 in the others. Cues that touch still touch. Rounding to the nearest point, as converters do, shows a frame late
when it rounds up, and truncating milliseconds that were rounded up loses one more.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from math import floor
from pathlib import Path

from tamis.errors import InputError, UsageError
from tamis.subtitles import cue_json
from tamis.subtitles.cue import Character, Cue, Line
from tamis.subtitles.encodings import encoding_of
from tamis.writing import replacing

ENDINGS = (".srt", ".vtt", ".ass", ".json")

_NO_BOX = (0, 0, 0, 0)
_TIME_EXAMPLE = "00:00:01,000 --> 00:00:02,500"


def write(
    cues: Sequence[Cue],
    path: str | os.PathLike[str],
    *,
    source: str = "",
    frame_size: tuple[int, int] | None = None,
    language: str = "",
) -> None:
    """Writes a subtitle file in UTF-8, in the format that the ending of `path` names; whole or not at all.

    source      name of the video, kept in .json and as the title of .ass
    frame_size  (width, height) of the upright frame; with it, .vtt and .ass put cues back at the top that stood there
    language    such as "zh-hant", for the face that .ass names: each has the glyphs of one region

    Raises `UsageError` for another ending, `OutputError` when the file cannot be written.
    """
    target = Path(path)
    text = dumps(cues, target.suffix, source=source, frame_size=frame_size, language=language)
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def dumps(
    cues: Sequence[Cue],
    ending: str,
    *,
    source: str = "",
    frame_size: tuple[int, int] | None = None,
    language: str = "",
) -> str:
    """What `write` would write. `ending` is one of `ENDINGS`."""
    source = source.encode("utf-8", "replace").decode()  # file names may hold bytes that are no text
    match ending.lower():
        case ".srt":
            return _srt(cues)
        case ".vtt":
            return _vtt(cues, frame_size)
        case ".ass":
            return _ass(cues, source, frame_size, language)
        case ".json":
            return cue_json.dumps(cues, source, frame_size)
    raise UsageError(f"The ending {ending!r} names no known subtitle format: use {', '.join(ENDINGS)}.")


def parse(path: str | os.PathLike[str]) -> list[Cue]:
    """Reads a subtitle file, in order of time.

    UTF-8, UTF-16, GB 18030 (and GBK), Big5, Shift JIS or EUC-KR, any line ends. Numbers may be missing or wrong, cues may
    overlap; formatting is dropped. Files other than .json know neither boxes nor confidence: boxes are then all zero,
    confidence 1.

    Raises `InputError` naming the line when the file is malformed, `UsageError` for another ending.
    """
    source = Path(path)
    readers: dict[str, Callable[[str], list[Cue]]] = {
        ".srt": _parse_srt,
        ".vtt": _parse_vtt,
        ".ass": _parse_ass,
        ".json": cue_json.loads,
    }
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise UsageError(f"{source} has no known ending: subtitle files end in {', '.join(ENDINGS)}.")
    try:
        return sorted(reader(_text(source)), key=lambda cue: (cue.start, cue.end))
    except _Malformed as error:
        raise InputError(f"{source}, {error}; correct it in a text editor.") from error
    except cue_json.MalformedError as error:
        raise InputError(f"{source}, {error}; write it again with Tamis.") from error


class _Malformed(ValueError):
    """`line n: found ..., expected ...`"""

    def __init__(self, line: int, found: str, expected: str) -> None:
        shown = found.strip()
        super().__init__(f"line {line}: found {shown[:60]!r}, expected {expected}")


# Time


def on_grid(cue: Cue, per_second: int) -> tuple[int, int]:
    """Start and end of a cue in steps of 1 / per_second, rounded so that no frame is won or lost (see above)."""
    start = max(floor(cue.start * per_second), 0)
    return start, max(floor(cue.end * per_second), start + 1)


def _clock(milliseconds: int, point: str) -> str:
    seconds, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{thousandths:03d}"


# SubRip and WebVTT


def _srt(cues: Sequence[Cue]) -> str:
    blocks = []
    for number, cue in enumerate(cues, 1):
        start, end = (_clock(time, ",") for time in on_grid(cue, 1000))
        blocks.append(f"{number}\n{start} --> {end}\n{_srt_escape(plain_text(cue))}\n")
    return "\n".join(blocks)


def _vtt(cues: Sequence[Cue], frame_size: tuple[int, int] | None) -> str:
    blocks = ["WEBVTT\n"]
    for cue in cues:
        start, end = (_clock(time, ".") for time in on_grid(cue, 1000))
        place = " line:0" if at_top(cue, frame_size) else ""
        blocks.append(f"{start} --> {end}{place}\n{_vtt_escape(plain_text(cue))}\n")
    return "\n".join(blocks)


def _srt_escape(text: str) -> str:
    """The format has no escapes: readers take arrows for times, and drop what looks like markup. A word joiner, which is
    not visible, breaks that up; `_srt_plain` takes it out again."""
    return _SRT_LIKE_MARKUP.sub(r"\g<0>" + _WORD_JOINER, re.sub("-{2,}>", "->", text))


def _srt_plain(line: str) -> str:
    return _SRT_BROKEN_MARKUP.sub(r"\1", _SRT_MARKUP.sub("", line))


def _vtt_escape(text: str) -> str:
    return html.escape(text, quote=False)


def plain_text(cue: Cue) -> str:
    """The lines of a cue, none of them empty, for an empty line would end the cue in .srt and .vtt."""
    texts = (re.sub(r"[\r\n]+", " ", line.text) for line in cue.lines)
    return "\n".join(text for text in texts if text.strip())


def at_top(cue: Cue, frame_size: tuple[int, int] | None) -> bool:
    """Whether a cue stands in the upper half of the frame; not, when either is unknown."""
    if frame_size is None or not cue.lines:
        return False
    return max(line.box[3] for line in cue.lines) <= frame_size[1] / 2


_TIME = r"(?:([0-9]{1,6}):)?([0-9]{1,2}):([0-9]{1,2})(?:[,.]([0-9]{1,9}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_NUMBER = re.compile(r"\W*[0-9]+\W*")
_WORD_JOINER = "\u2060"
_SRT_TAG, _SRT_OVERRIDE = r"/?(?:i|b|u|s|font|ruby|rt)\b[^<>\n]*>", r"\\[^{}\n]*\}"
_SRT_MARKUP = re.compile(rf"<{_SRT_TAG}|\{{{_SRT_OVERRIDE}", re.IGNORECASE)
# With joiners that the text itself has there, so that one is put in and one taken out, whatever stands in it.
_SRT_LIKE_MARKUP = re.compile(
    rf"<(?={_WORD_JOINER}*{_SRT_TAG})|\{{(?={_WORD_JOINER}*{_SRT_OVERRIDE})", re.IGNORECASE
)
_SRT_BROKEN_MARKUP = re.compile(rf"({_SRT_LIKE_MARKUP.pattern}){_WORD_JOINER}", re.IGNORECASE)
_VTT_MARKUP = re.compile(r"<[^<>]*>")


def _parse_srt(text: str) -> list[Cue]:
    blocks: list[tuple[int, list[str]]] = []
    given = list(_blocks(text))
    for (first, block), (_, following) in zip(given, [*given[1:], (0, [""])], strict=False):
        if _is_times(block[0], first) or (
            _NUMBER.fullmatch(block[0]) and not _is_text(block, following, blocks)
        ):
            blocks.append((first, block))
        elif not blocks or (len(block) > 1 and _is_times(block[1], first + 1)):
            raise _Malformed(first, block[0], f"a number or times such as {_TIME_EXAMPLE}")
        else:  # an empty line within a text
            begin, before = blocks[-1]
            before += [""] * (first - begin - len(before)) + block
    return list(_timed_blocks(blocks, _srt_plain))


def _is_text(block: list[str], following: list[str], before: Sequence[object]) -> bool:
    """Whether a block whose first line is a number goes on with the text before: "1984", or "1984" and a line below.

    A number alone above times, and one above what may be meant as times, are no text: better refused than read as such.
    """
    if len(block) == 1:
        return bool(before) and not _TIMES.fullmatch(following[0])
    return bool(before) and not re.search("[0-9] *:|-->", block[1])


def _parse_vtt(text: str) -> list[Cue]:
    blocks = _blocks(text)
    first, header = next(blocks, (1, [""]))
    if first != 1 or not re.fullmatch(r"WEBVTT(?:[ \t].*)?", header[0]):
        raise _Malformed(first, header[0], "WEBVTT in the first line")
    cues = (block for block in blocks if not re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", block[1][0]))
    return list(_timed_blocks(cues, lambda line: html.unescape(_VTT_MARKUP.sub("", line))))


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines that are not empty, each with the number of its first line."""
    block: list[str] = []
    number = 0
    for number, line in enumerate(_split(text), 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []
    if block:
        yield number - len(block) + 1, block


def _split(text: str) -> list[str]:
    return re.split(
        r"\r\n|\r|\n", text
    )  # not `splitlines`, which also splits at characters that stand in text


def _timed_blocks(blocks: Iterable[tuple[int, list[str]]], plain: Callable[[str], str]) -> Iterator[Cue]:
    for first, block in blocks:
        timed = [index for index, line in enumerate(block) if _is_times(line, first + index)]
        if not timed or timed[0] > 1:
            raise _Malformed(first, block[0], f"a number or times such as {_TIME_EXAMPLE}")
        # Without the empty line between them, several cues stand in one block.
        for index, following in zip(timed, [*timed[1:], len(block) + 1], strict=True):
            start, end = _times(block[index], first + index)
            lines = block[index + 1 : following]
            if following < len(block) and lines and lines[-1].strip().isdecimal():
                lines.pop()  # the number of the next cue
            yield from _cue(start, end, [plain(line) for line in lines])


def _is_times(line: str, number: int) -> bool:
    if _TIMES.fullmatch(line):
        return True
    if "-->" in line and line.lstrip()[:1].isdigit():  # meant as times; an arrow in text is text
        raise _Malformed(number, line, f"times such as {_TIME_EXAMPLE}")
    return False


def _times(line: str, number: int) -> tuple[Fraction, Fraction]:
    found = _TIMES.fullmatch(line)
    assert found is not None
    start, end = _seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])
    if end < start:
        raise _Malformed(number, line, "an end that is not before the start")
    return start, end


def _seconds(hours: str | None, minutes: str, seconds: str, decimals: str | None) -> Fraction:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + (Fraction(int(decimals), 10 ** len(decimals)) if decimals else Fraction(0))


def _cue(start: Fraction, end: Fraction, texts: Sequence[str]) -> Iterator[Cue]:
    """The cue with these lines; nothing when they are empty."""
    lines = tuple(
        Line(tuple(Character(text, 1.0, _NO_BOX) for text in line.strip(" \t")), _NO_BOX)
        for line in texts
        if line.strip()
    )
    if lines:
        yield Cue(start, end, lines, 1.0)


# Advanced SubStation Alpha

# A word joiner after a backslash keeps it from joining the next letter into a command such as \N; it is not visible.
_ASS_ESCAPES = {"\\": "\\" + _WORD_JOINER, "{": r"\{", "}": r"\}"}
_ASS_HEADER = """\
[Script Info]
Title: {title}
ScriptType: v4.00+
WrapStyle: 2
ScaledBorderAndShadow: yes
PlayResX: {width}
PlayResY: {height}

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Noto Sans CJK {region},{size},&H00FFFFFF,&H00FFFFFF,&H00000000,&H80000000,0,0,0,\
0,100,100,0,0,1,{outline},0,2,{margin},{margin},{margin},1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


_ASS_REGIONS = {"zh-hant": "TC", "ja": "JP", "ko": "KR"}


def _ass(cues: Sequence[Cue], source: str, frame_size: tuple[int, int] | None, language: str) -> str:
    width, height = frame_size or (1920, 1080)
    title = re.sub(r"\s+", " ", source) or "Subtitles"
    # The size counts ascent and descent: a glyph is about 0.69 of it, here 1/19 of the picture's height.
    size, outline, margin = round(height / 13), max(1, round(height / 360)), round(height / 27)
    out = [
        _ASS_HEADER.format(
            title=title,
            width=width,
            height=height,
            region=_ASS_REGIONS.get(language, "SC"),
            size=size,
            outline=outline,
            margin=margin,
        )
    ]
    for cue in cues:
        start, end = (_ass_clock(time) for time in on_grid(cue, 100))
        place = r"{\an8}" if at_top(cue, frame_size) else ""
        text = _ass_escape(plain_text(cue)).replace("\n", r"\N")
        out.append(f"Dialogue: 0,{start},{end},Default,,0,0,0,,{place}{text}\n")
    return "".join(out)


def _ass_escape(text: str) -> str:
    return "".join(_ASS_ESCAPES.get(character, character) for character in text)


def _ass_clock(hundredths: int) -> str:
    return _clock(hundredths * 10, ".")[:-1].removeprefix("0")  # 0:00:01.23, 10:00:00.00


_ASS_MARKUP = re.compile(rf"\\{_WORD_JOINER}|\\[{{}}Nnh]|\{{[^}}]*\}}")
_ASS_PLAIN = {"\\" + _WORD_JOINER: "\\", r"\{": "{", r"\}": "}", r"\N": "\n", r"\n": "\n", r"\h": "\u00a0"}


def _parse_ass(text: str) -> list[Cue]:
    cues: list[Cue] = []
    section, fields = "", [""]
    for number, line in enumerate(_split(text), 1):
        if line.startswith("["):
            section = line.strip().lower()
            continue
        kind, _, values = line.partition(":")
        kind = kind.strip().lower() if section == "[events]" else ""
        if kind == "format":
            fields = [field.strip().lower() for field in values.split(",")]
            if not {"start", "end"} <= set(fields) or fields[-1] != "text":
                raise _Malformed(number, line, "a Format with Start and End whose last field is Text")
        elif kind == "dialogue":
            cues.extend(_ass_event(line, values, number, fields))
    if not re.search(r"^\[events\]", text, re.IGNORECASE | re.MULTILINE):
        raise _Malformed(1, _split(text)[0], "a file with a section [Events]")
    return cues


def _ass_event(line: str, event_text: str, number: int, fields: list[str]) -> Iterator[Cue]:
    values = event_text.split(",", len(fields) - 1)
    event = dict(zip(fields, values, strict=False))
    times = [re.fullmatch(_TIME, event.get(field, "").strip()) for field in ("start", "end")]
    if len(values) != len(fields) or None in times:
        raise _Malformed(number, line, "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,text")
    start, end = (_seconds(*found.groups()) for found in times if found)
    if end < start:
        raise _Malformed(number, line, "an end that is not before the start")
    yield from _cue(start, end, _ass_plain(event["text"]).split("\n"))


def _ass_plain(text: str) -> str:
    """Without markup, and without what {\\p1} makes the commands of a drawing."""
    out, place, drawing = [], 0, False
    for found in _ASS_MARKUP.finditer(text):
        if not drawing:
            out += [text[place : found.start()], _ASS_PLAIN.get(found[0], "")]
        place = found.end()
        if modes := re.findall(r"\\p([0-9]+)", found[0]):
            drawing = int(modes[-1]) > 0
    return "".join(out if drawing else [*out, text[place:]])


# Files


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    encoding = encoding_of(data)
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not {encoding.upper()} text from byte {error.start} on: save it as UTF-8 in a text editor."
        ) from error
