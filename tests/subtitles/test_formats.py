"""Subtitle files: what is written shows on the same frames; what is read is right or refused with its line.

pytest tests/subtitles/test_formats.py
"""

import json
import re
from fractions import Fraction
from math import floor

import pysubs2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tamis.errors import InputError, OutputError, TamisError, UsageError
from tamis.subtitles import formats
from tamis.subtitles.cue import Character, Cue, Line

RATES = [Fraction(r) for r in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")]
GRIDS = {".srt": 1000, ".vtt": 1000, ".ass": 100, ".json": None}
PICTURE = (1280, 720)


def line(text, box=(100, 600, 500, 640), confidence=0.9):
    return Line(tuple(Character(character, confidence, box) for character in text), box)


def cue(start, end, *texts, box=(100, 600, 500, 640)):
    return Cue(Fraction(start), Fraction(end), tuple(line(text, box) for text in texts), 0.75)


def written_and_read(cues, tmp_path, ending, **options):
    path = tmp_path / f"cues{ending}"
    formats.write(cues, path, **options)
    return formats.parse(path)


def parsed(tmp_path, ending, content):
    path = tmp_path / f"given{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(float(cue.start), float(cue.end), cue.text) for cue in formats.parse(path)]


# The same frames


def shown(start, end, frames):
    return [index for index, time in enumerate(frames) if start <= time < end]


def as_written(a_cue, ending):
    """Start and end that a player finds in the file, by another library's reading."""
    event = pysubs2.SSAFile.from_string(formats.dumps([a_cue], ending))[0]
    return Fraction(event.start, 1000), Fraction(event.end, 1000)


@pytest.mark.parametrize("ending", [".srt", ".vtt", ".ass"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_every_frame_of_a_constant_rate_is_kept(rate, ending):
    for first in (0, 1, 7, 1001, int(3599 * rate), int(7325 * rate) + 3):
        for count in (1, 2, 61):
            frames = [Fraction(n) / rate for n in range(max(first - 3, 0), first + count + 3)]
            start, end = Fraction(first) / rate, Fraction(first + count) / rate
            written = as_written(cue(start, end, "字"), ending)
            assert shown(*written, frames) == shown(start, end, frames)
            rounded = [
                Fraction(round(time * 1000), 1000) for time in frames
            ]  # players that count milliseconds
            truncated = [Fraction(floor(time * 1000), 1000) for time in frames]
            assert shown(*written, rounded) == shown(*written, truncated) == shown(start, end, frames)


@given(
    st.sampled_from([1000, 100]),
    st.lists(st.fractions(Fraction(1, 100), 3, max_denominator=90_000), min_size=3, max_size=20),
    st.fractions(0, 40_000, max_denominator=90_000),
    st.data(),
)
@settings(max_examples=50, deadline=None)
@example(100, [Fraction(1, 100)] * 9, Fraction(1, 3000), None)
def test_every_frame_of_a_variable_rate_is_kept(grid, gaps, begin, data):
    frames = [begin + sum(gaps[:n], Fraction(0)) for n in range(len(gaps))]
    first = data.draw(st.integers(0, len(frames) - 2)) if data else 3
    after = data.draw(st.integers(first + 1, len(frames) - 1)) if data else 5
    start, end = formats.on_grid(cue(frames[first], frames[after], "字"), grid)
    assert shown(Fraction(start, grid), Fraction(end, grid), frames) == list(range(first, after))


@given(st.fractions(0, 100_000), st.fractions(0, 10), st.fractions(0, 10), st.sampled_from([100, 1000]))
@settings(max_examples=50, deadline=None)
def test_cues_that_touch_still_touch(start, first, second, grid):
    one, two = cue(start, start + first, "一"), cue(start + first, start + first + second, "二")
    if floor(one.end * grid) > floor(one.start * grid):
        assert formats.on_grid(one, grid)[1] == formats.on_grid(two, grid)[0]
    assert formats.on_grid(one, grid)[0] < formats.on_grid(one, grid)[1]


@pytest.mark.parametrize(
    ("hours", "srt", "ass"), [(0, "00", "0"), (1, "01", "1"), (10, "10", "10"), (123, "123", "123")]
)
def test_hours(tmp_path, hours, srt, ass):
    late = cue(hours * 3600 + Fraction("5.25"), hours * 3600 + 61, "晚")
    assert f"{srt}:00:05,250 --> {srt}:01:01,000\n" in formats.dumps([late], ".srt")
    assert f"{srt}:00:05.250 --> {srt}:01:01.000\n" in formats.dumps([late], ".vtt")
    assert f"Dialogue: 0,{ass}:00:05.25,{ass}:01:01.00," in formats.dumps([late], ".ass")
    for ending in formats.ENDINGS:
        again = written_and_read([late], tmp_path, ending)[0]
        assert (again.start, again.end) == (late.start, late.end)


# Text


def test_srt_to_the_letter():
    cues = [cue(1, Fraction("2.5"), "第一行", "第二行"), cue(3, 4, "完")]
    assert formats.dumps(cues, ".srt") == (
        "1\n00:00:01,000 --> 00:00:02,500\n第一行\n第二行\n\n2\n00:00:03,000 --> 00:00:04,000\n完\n"
    )


def test_vtt_to_the_letter():
    cues = [cue(1, 2, "R&B <3 -->"), cue(3, 4, "上", box=(0, 20, 50, 70))]
    assert formats.dumps(cues, ".vtt", frame_size=PICTURE) == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nR&amp;B &lt;3 --&gt;\n\n"
        "00:00:03.000 --> 00:00:04.000 line:0\n上\n"
    )


def test_ass_keeps_two_lines_and_the_top(tmp_path):
    cues = [cue(1, 2, "上面", "下面"), cue(3, 4, "片名", box=(0, 20, 50, 70))]
    text = formats.dumps(cues, ".ass", source="影片 1.mkv", frame_size=PICTURE)
    assert "Title: 影片 1.mkv\n" in text and "PlayResX: 1280\nPlayResY: 720\n" in text
    assert text.endswith(
        "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,上面\\N下面\n"
        "Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\\an8}片名\n"
    )
    other = pysubs2.SSAFile.from_string(text)
    assert [event.plaintext for event in other] == ["上面\n下面", "片名"]
    assert other.styles["Default"].alignment == pysubs2.Alignment.BOTTOM_CENTER


@pytest.mark.parametrize("ending", [".srt", ".vtt"])
def test_another_library_reads_the_same(ending):
    cues = [cue(1, 2, "你好，世界！"), cue(Fraction(1001, 30), Fraction(2002, 30), "第一行", "第二行")]
    other = pysubs2.SSAFile.from_string(formats.dumps(cues, ending))
    assert [event.plaintext for event in other] == [cue.text for cue in cues]


@pytest.mark.parametrize("ending", formats.ENDINGS)
def test_no_cues_make_a_valid_empty_file(tmp_path, ending):
    assert written_and_read([], tmp_path, ending) == []
    if ending != ".json":
        assert len(pysubs2.SSAFile.from_string(formats.dumps([], ending) or "\n", format_=ending[1:])) == 0


@pytest.mark.parametrize("ending", formats.ENDINGS)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), min_size=1, max_size=8
        ).filter(lambda text: text.strip()),
        min_size=1,
        max_size=3,
    )
)
@example(["{\\an8}"])
@example(["\\N \\h \\{", "}"])
@example(["a --> b", "NOTE x", "1"])
@example(["1 ----> b", "1--->2"])
@example(["<\u2060\u2060i {\\x} a>{\u2060\\<b>}", "</FONT>", "<i", ">"])
@example(["<b>&amp;</b>", "&lt;"])
@settings(max_examples=30, deadline=None)
def test_any_text_survives(ending, texts):
    written = formats.dumps([cue(1, 2, *texts), cue(3, 4, "后")], ending)
    reader = {".srt": formats._parse_srt, ".vtt": formats._parse_vtt, ".ass": formats._parse_ass}
    again = reader.get(ending, formats.cue_json.loads)(written)
    if ending == ".srt":  # no escapes: arrows in the text itself are lost
        texts = [re.sub("-{2,}>", "->", text) for text in texts]
    if ending != ".json":
        texts = [text.strip(" \t") for text in texts]
    assert [cue.text for cue in again] == (["\n".join(texts)] if texts else []) + ["后"]


def test_what_looks_like_markup_is_dropped_by_no_reader():
    text = "<i>x</i> y <font color=red>"
    srt = formats.dumps([cue(1, 2, text)], ".srt")
    assert pysubs2.SSAFile.from_string(srt)[0].plaintext.replace("\u2060", "") == text
    assert "{\u2060\\an8}" in formats.dumps([cue(1, 2, "{\\an8}")], ".srt")


# JSON

boxes = st.tuples(*[st.integers(-10, 9000)] * 4)
characters = st.builds(Character, st.characters(exclude_categories=["Cs"]), st.floats(0, 1), boxes)
lines = st.builds(Line, st.lists(characters, max_size=4).map(tuple), boxes)
times = st.fractions(0, 10**6, max_denominator=10**9)
any_cues = st.builds(
    lambda start, length, lines, confidence: Cue(start, start + length, tuple(lines), confidence),
    times,
    times,
    st.lists(lines, max_size=3),
    st.floats(0, 1),
)


@given(st.lists(any_cues, max_size=4))
@settings(max_examples=30, deadline=None)
def test_json_gives_equal_cues(cues):
    assert formats.cue_json.loads(formats.dumps(cues, ".json")) == cues


def test_json_says_what_it_is():
    document = json.loads(
        formats.dumps([cue("1001/24", "1001/12", "好")], ".json", source="f.mp4", frame_size=PICTURE)
    )
    assert document["format"] == "tamis-subtitles" and document["version"] == 1 and document["tamis"]
    assert document["video"] == {"name": "f.mp4", "width": 1280, "height": 720}
    (only,) = document["cues"]
    assert (only["start"], only["start_s"], only["text"]) == ("1001/24", 41.708333, "好")
    assert only["lines"][0]["characters"] == [{"text": "好", "confidence": 0.9, "box": [100, 600, 500, 640]}]


# Reading what others wrote

NEAT = "1\n00:00:01,000 --> 00:00:02,500\n你好\n第二行\n\n2\n00:00:03,000 --> 00:00:04,000\n再见\n"
NEAT_CUES = [(1.0, 2.5, "你好\n第二行"), (3.0, 4.0, "再见")]


@pytest.mark.parametrize(
    "content",
    [
        NEAT,
        NEAT.encode("utf-8-sig"),
        NEAT.encode("utf-16"),
        NEAT.encode("utf-16-le"),
        NEAT.encode("utf-16-be"),
        NEAT.encode("gb18030"),
        NEAT.replace("\n", "\r\n"),
        NEAT.replace("\n", "\r"),
        "\n\n\n" + NEAT + "\n\n\n",
        NEAT.rstrip("\n"),
        NEAT.replace("1\n", "", 1).replace("\n2\n", "\n"),  # no numbers
        NEAT.replace("\n2\n", "\n77\n"),
        NEAT.replace("\n\n", "\n"),  # no empty line between
        NEAT.replace(",", "."),
        NEAT.replace("00:00", "0:0").replace("04,000", "4,000"),
        NEAT.replace("02,500", "02,500 X1:40 X2:600 Y1:20 Y2:50"),
        NEAT.replace("你好", "<i>{\\an8}你好</i>").replace("再见", '<font color="#fff">再见</font>'),
        NEAT + "\n3\n00:00:05,000 --> 00:00:06,000\n\n",  # a cue without text
        NEAT.replace("第二行", "\n\n第二行"),  # empty lines within a text
        NEAT.replace("第二行\n", "\n第二行"),  # and none behind it
    ],
)
def test_srt_in_the_wild(tmp_path, content):
    assert parsed(tmp_path, ".srt", content) == NEAT_CUES


@pytest.mark.parametrize("paragraph", ["1984", "1984\n是一本书", "（3）", "1984\n\n7"])
def test_a_paragraph_may_be_a_number(tmp_path, paragraph):
    content = NEAT.replace("第二行\n", f"\n{paragraph}\n")
    text = "你好\n" + paragraph.replace("\n\n", "\n")
    assert parsed(tmp_path, ".srt", content) == [(1.0, 2.5, text), NEAT_CUES[1]]
    last = NEAT + f"\n{paragraph}\n"
    assert parsed(tmp_path, ".srt", last)[1][2] == text.replace("你好", "再见")


def test_vtt_in_the_wild(tmp_path):
    content = (
        "\ufeffWEBVTT - 片名\nKind: captions\n\nSTYLE\n::cue { color: white }\n\nNOTE\na note\nof two lines\n\n"
        "intro\n00:01.000 --> 00:02.500 line:0 align:left\n<v 张三>你好</v> &amp; <00:01.500>再见\n\n"
        "1:00:03.000 --> 1:00:04.000\nno name\n\nNOTE-1\n1:00:05.000 --> 1:00:06.000\na name\n"
    )
    assert parsed(tmp_path, ".vtt", content) == [
        (1.0, 2.5, "你好 & 再见"),
        (3603.0, 3604.0, "no name"),
        (3605.0, 3606.0, "a name"),
    ]


def test_ass_in_the_wild(tmp_path):
    content = (
        "[Script Info]\n; comment\n[V4+ Styles]\nFormat: Name\nStyle: x\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Actor, MarginL, MarginR, MarginV, Effect, Text\n"
        "Comment: 0,0:00:00.00,0:00:09.00,x,,0,0,0,,not shown\n"
        "Dialogue: 0,0:00:03.00,0:00:04.50,x,,0,0,0,,{\\fad(100,100)\\pos(1,2)}二, 逗号\\N下\\h行\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,x,,0,0,0,,一\n[Fonts]\n"
    )
    assert parsed(tmp_path, ".ass", content) == [(1.0, 2.0, "一"), (3.0, 4.5, "二, 逗号\n下\u00a0行")]
    content = content.replace("Format: L", "format: L").replace("Dialogue", "dialogue")
    content = content.replace("二", "{\\p1\\pos(1,2)}m 0 0 l 9 9{\\p0}二") + "[events]\n"
    content += "Dialogue: 0,0:00:07.00,0:00:08.00,x,,0,0,0,,{\\p2}m 0 0 l 9 9\n"
    assert parsed(tmp_path, ".ass", content) == [(1.0, 2.0, "一"), (3.0, 4.5, "二, 逗号\n下\u00a0行")]


def test_ass_names_a_face_with_the_glyphs_of_the_language():
    for language, region in {"": "SC", "zh-hans": "SC", "zh-hant": "TC", "ja": "JP", "ko": "KR"}.items():
        assert f"Default,Noto Sans CJK {region}," in formats.dumps([], ".ass", language=language)


def test_overlapping_and_unordered_cues_are_read(tmp_path):
    content = "1\n00:00:03,000 --> 00:00:09,000\nb\n\n2\n00:00:01,000 --> 00:00:05,000\na\n"
    assert parsed(tmp_path, ".srt", content) == [(1.0, 5.0, "a"), (3.0, 9.0, "b")]


@pytest.mark.parametrize(
    ("ending", "content", "words"),
    [
        (".srt", "1\n00:00:01,000 -> 00:00:02,000\nx\n", "line 1: found '1'"),
        (".srt", "1\n00:00:01,000 --> soon\nx\n", "line 2: found '00:00:01,000 --> soon', expected times such as"),
        (".srt", "lost words\n\n" + NEAT, "line 1: found 'lost words', expected a number or times"),
        (".srt", NEAT + "\nwords\n00:00:05,000 --> 00:00:06,000\nx\n", "line 10: found 'words', expected a number"),
        (".srt", NEAT + "\nwords\n\nmore\n00:00:05,000 --> soon\n", "line 13: found '00:00:05,000 --> soon'"),
        (".srt", NEAT + "\n3\n00:00:05,000 -> 00:00:06,000\nx\n", "line 10: found '3', expected a number or times"),
        (".srt", NEAT + "\n3\n\n00:00:05,000 --> 00:00:06,000\nx\n", "line 10: found '3', expected a number or times"),
        (".srt", "words\n00:00:01,000 --> 00:00:02,000\nx\n", "line 1: found 'words'"),
        (".srt", "1\n00:00:03,000 --> 00:00:02,000\nx\n", "line 2: found '00:00:03,000 --> 00:00:02,000', expected an end"),
        (".vtt", NEAT, "line 1: found '1', expected WEBVTT"),
        (".vtt", "", "line 1: found '', expected WEBVTT"),
        (".vtt", "WEBVTT\n\nhello\nyou\n", "line 3: found 'hello'"),
        (".ass", "hello\n", "line 1: found 'hello', expected a file with a section [Events]"),
        (".ass", "[Events]\nFormat: Start, End, Text\nDialogue: 0:00:01.00,never,x\n", "line 3: found 'Dialogue"),
        (".ass", "[Events]\nFormat: Start, Text\n", "line 2: found 'Format: Start, Text'"),
        (".ass", "[Events]\nDialogue: 0:00:01.00,0:00:02.00,x\n", "line 2: found 'Dialogue"),
        (".json", "{", "line 1: not JSON"),
        (".json", '{\n"a": }', "line 2: not JSON"),
        (".json", "[" * 100_000, "line 1: not JSON of this kind"),
        (".json", "{}", 'no "format": "tamis-subtitles"'),
        (".json", '{"format": "tamis-subtitles", "version": 2}', "version 2, expected 1"),
        (".json", '{"format": "tamis-subtitles", "version": 1}', "cues: found 'None', expected list"),
        (
            ".json",
            '{"format": "tamis-subtitles", "version": 1, "cues": [{"start": "1/0", "end": "2/1"}]}',
            "cues[0].start: found '1/0', expected a fraction",
        ),
        (".srt", b"\x31\n\xff\xfe\xfa\n", "is not UTF-8 text from byte 2 on: save it as UTF-8"),
        (".srt", "1\n你好，再见".encode()[:-1], "is not UTF-8 text from byte 14 on"),
        (".srt", "字幕".encode("utf-16")[:-1], "is not UTF-16 text from byte"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_with_their_line(tmp_path, ending, content, words):
    with pytest.raises(InputError) as caught:
        parsed(tmp_path, ending, content)
    sentence = str(caught.value)
    assert words in sentence
    assert (
        sentence.startswith(str(tmp_path / f"given{ending}"))
        and sentence.endswith(".")
        and "\n" not in sentence
    )


def test_other_files_and_endings(tmp_path):
    with pytest.raises(InputError, match=r"missing.srt cannot be read: No such file"):
        formats.parse(tmp_path / "missing.srt")
    with pytest.raises(UsageError, match=r"no known ending"):
        formats.parse(tmp_path / "film.sub")
    with pytest.raises(UsageError, match=r"'.sub' names no known subtitle format"):
        formats.write([], tmp_path / "film.sub")
    assert list(tmp_path.iterdir()) == []


def test_names_with_spaces_and_characters(tmp_path):
    folder = tmp_path / "第 一 季"
    formats.write([cue(1, 2, "好")], folder / "第 1 集 «é».SRT")
    assert formats.parse(folder / "第 1 集 «é».SRT")[0].text == "好"
    assert '"caf?.mp4"' in formats.dumps([], ".json", source="caf\udce9.mp4")  # a name in another encoding


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "film.srt"
    formats.write([cue(1, 2, "好")], target)
    with pytest.raises(UnicodeEncodeError):
        formats.write([cue(1, 2, "\ud800")], target)
    assert formats.parse(target)[0].text == "好"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(OutputError):
        formats.write([], target / "film.srt")


# Fuzz

SEEDS = {
    ending: formats.dumps([cue(1, "5/2", "你好 {x} & <b>", "第二行"), cue(3, 4, "再见")], ending).encode()
    for ending in formats.ENDINGS
}
edits = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from(
                [b"\n", b"\r\n", b"-->", b"9" * 5000, b"[", b"{", b"\\", b'"', b"\0", b"\xff\xfe", b",", b":"]
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("ending", formats.ENDINGS)
@given(edits=edits)
@settings(max_examples=50, deadline=None)
def test_damaged_files_give_cues_or_a_sentence(tmp_path_factory, ending, edits):
    data = bytearray(SEEDS[ending])
    for place, length, new in edits:
        at = int(place * len(data))
        data[at : at + length] = new
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}"
    path.write_bytes(data)
    try:
        for a_cue in formats.parse(path):
            assert a_cue.end >= a_cue.start
    except TamisError as error:
        assert str(error).endswith(".")
