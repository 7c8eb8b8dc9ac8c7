"""The proof-reading page: sound, safe, and what leaves it is right.

    pytest tests/subtitles/test_review.py

The page's own functions run under node, the page itself in Chromium; both are skipped where these are not installed.
"""

import base64
import html
import json
import os
import re
import shutil
import subprocess
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis.errors import OutputError
from tamis.subtitles import formats, review
from tamis.subtitles.cue import Character, Cue, Line

HOSTILE = "</script><script>bad()</script><!-- {{data}} & \" ' \\u003c \u2028"
BOX = (0, 600, 40, 640)


def cue(start, end, *texts, sure=0.97, picture=b"", box=BOX):
    lines = tuple(Line(tuple(Character(c, sure, box) for c in text), box) for text in texts)
    return Cue(Fraction(start), Fraction(end), lines, sure, picture)


def png(width, height):
    return cv2.imencode(".png", np.full((height, width), 90, np.uint8))[1].tobytes()


CUES = [
    cue(1, Fraction("2.5"), "第一行", "第二行", picture=png(1280, 90)),
    cue(Fraction(1001, 240), Fraction(1501, 240), "R&B <i> --> 好", sure=0.4, picture=png(300, 40)),
    cue(3700, 3702, "片名", sure=0.7, box=(0, 10, 40, 60)),
]


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


# The page


def test_it_needs_nothing_else():
    page = review.page(CUES, "影片")
    elements = Elements(page).found
    assert not re.search(r"https?:|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|\beval\(|innerHTML", page)
    for tag, attributes in elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "data:,") == "data:,"
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for tag, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_no_text_can_become_markup():
    page = review.page([cue(1, 2, HOSTILE)], HOSTILE, language=HOSTILE)
    plain = review.page([cue(1, 2, "x")], "x")
    tags = [tag for tag, _ in Elements(page).found]
    assert tags == [tag for tag, _ in Elements(plain).found]
    data = data_of(page)
    assert data["title"] == data["language"] == data["cues"][0]["text"] == HOSTILE
    assert "{{" not in page.replace("{{data}} &", "")  # every part of the template is filled in


def test_cues_come_with_times_confidence_and_place():
    first, second, third = data_of(review.page(CUES, "影片", (1280, 720)))["cues"]
    assert (first["start"], first["end"], first["text"]) == (1000, 2500, "第一行\n第二行")
    assert first["sure"] == [97, 97, 97, 100, 97, 97, 97]
    assert (second["start"], second["end"], second["confidence"]) == (4170, 6254, 40)
    assert (second["top"], third["top"]) == (False, True)


def test_pictures_are_shrunk_to_the_page():
    first, second, third = data_of(review.page(CUES, "影片"))["cues"]
    sizes = []
    for shown in (first, second):
        kind, data = shown["picture"].split(",")
        assert kind == "data:image/webp;base64"
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert abs(int(image.mean()) - 90) <= 2
        sizes.append(image.shape)
    assert sizes == [(68, 960), (40, 300)]
    assert third["picture"] == ""
    assert data_of(review.page([cue(1, 2, "x", picture=b"no picture")], "x"))["cues"][0]["picture"] == ""


def test_the_browser_finds_work_on_the_same_result_only():
    keys = [
        data_of(review.page(cues, title))["key"]
        for cues, title in [(CUES, "a"), (CUES, "a"), (CUES, "b"), (CUES[:2], "a")]
    ]
    assert keys[0] == keys[1] and len(set(keys)) == 3


def test_it_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "第 1 页.html"
    review.write(CUES, target, title="caf\udce9")
    assert "<title>caf? ·" in target.read_text(encoding="utf-8")
    with pytest.raises(OutputError):
        review.write(CUES, target / "page.html", title="x")
    assert list(tmp_path.iterdir()) == [target]


# Its functions, under node

node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
PROGRAM = Path(review.__file__).with_name("review_cues.js")


def run(expression, **values):
    """The value of a JavaScript expression over the page's functions `r` and `v`."""
    program = f"const r = require({json.dumps(str(PROGRAM))}); const v = {json.dumps(values)};"
    program += f"console.log(JSON.stringify({expression}) ?? 'null')"
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def on_page(cues, frame_size=None):
    shown = data_of(review.page(cues, "x", frame_size))["cues"]
    return [one | {"from": [n], "read": one["text"], "reviewed": False} for n, one in enumerate(shown)]


@node
def test_saving_unchanged_gives_the_reader_s_own_files():
    cues = on_page(CUES, (1280, 720))
    assert run("r.toSrt(v.cues)", cues=cues) == formats.dumps(CUES, ".srt")
    assert run("r.toVtt(v.cues)", cues=cues) == formats.dumps(CUES, ".vtt", frame_size=(1280, 720))
    assert run("r.toSrt([]) + r.toVtt([])") == formats.dumps([], ".srt") + formats.dumps([], ".vtt")


@node
def test_what_looks_like_times_or_markup_is_saved_as_by_the_reader():
    texts = ["1 ---> 2 -->", "a --------> b", "<I>x</i> <b你> {\\an8}{x} <font size=1>"]
    cues = [cue(n, n + 1, text) for n, text in enumerate(texts)]
    assert run("r.toSrt(v.cues)", cues=on_page(cues)) == formats.dumps(cues, ".srt")


@node
def test_saving_puts_cues_in_time_and_leaves_empty_ones_out(tmp_path):
    cues = on_page(CUES)
    cues[0] |= {"text": "改\n\n好了 \n", "start": 36_000_500, "end": 36_001_000}
    cues[2] |= {"text": "  "}
    path = tmp_path / "corrected.srt"
    path.write_text(run("r.toSrt(v.cues)", cues=cues), encoding="utf-8")
    found = formats.parse(path)
    assert [one.text for one in found] == ["R&B <i> -> 好", "改\n好了"]
    assert found[1].start == Fraction("36000.5")


@node
def test_times_are_read_as_people_write_them():
    times = ["00:01:02,345", "1:02.5", "7", "100:00:00.000", "1:02:03", " 5,05 "]
    assert run("v.times.map(r.parseClock)", times=times) == [62345, 62500, 7000, 360_000_000, 3_723_000, 5050]
    bad = ["", "abc", "1:60", "1:99:00", "1:2:3:4", "-5", "1,2345", "1:-2"]
    assert run("v.bad.map(r.parseClock)", bad=bad) == [None] * len(bad)
    moments = [0, 999, 3_599_999, 36_000_000, 360_061_007]
    assert run("v.moments.map((t) => r.parseClock(r.clock(t, ',')))", moments=moments) == moments


@node
def test_confidence_stays_with_what_was_read():
    sure = [10, 20, 30, 40]
    cases = {
        "甲乙丙丁": sure,
        "甲改丙丁": [10, None, 30, 40],
        "甲乙丁": [10, 20, 40],
        "新甲乙丙丁": [None, *sure],
    }
    cases |= {"甲乙": [10, 20], "丙丁": [30, 40], "": [], "甲甲乙丙丁": [10, None, 20, 30, 40]}
    found = run("v.texts.map((t) => r.confidences('甲乙丙丁', v.sure, t))", texts=list(cases), sure=sure)
    assert found == list(cases.values())
    assert run("r.confidences('𠮷野', [5, 6], '𠮷家')") == [5, None]


@node
def test_split_shares_text_and_time():
    whole = on_page([cue(10, 20, "一二三四五六七八九十")])[0]
    first, second = run("r.splitCue(v.whole, 3)", whole=whole)
    assert (first["text"], first["start"], first["end"]) == ("一二三", 10_000, 13_000)
    assert (second["text"], second["start"], second["end"]) == ("四五六七八九十", 13_000, 20_000)
    assert run("[r.splitCue(v.whole, 0), r.splitCue(v.whole, 10)]", whole=whole) == [None, None]
    assert run("r.confidences(v.s.read, v.s.sure, v.s.text)", s=second) == [97] * 7


@node
def test_merge_joins_lines_but_does_not_say_twice():
    a, b, c = on_page([cue(1, 2, "前"), cue(2, 3, "后", sure=0.3), cue(3, 4, "后")])
    joined = run("r.mergeCues(v.a, v.b)", a=a, b=b)
    assert (joined["text"], joined["start"], joined["end"]) == ("前\n后", 1000, 3000)
    assert (joined["confidence"], joined["sure"], joined["from"]) == (30, [97, 100, 30], [0, 1])
    assert run("r.mergeCues(v.b, v.c)", b=b, c=c)["text"] == "后"


@node
def test_a_damaged_record_of_the_browser_s_is_none():
    known = on_page([cue(1, 2, "前"), cue(2, 3, "后")])
    kept = {"start": 5, "end": 9, "text": "改", "reviewed": True}
    record = json.dumps({"version": 1, "cues": [kept | {"from": [0, 1]}]})
    (restored,) = run("r.restoreCues(v.record, v.known)", record=record, known=known)
    assert (restored["text"], restored["read"], restored["end"]) == ("改", "前\n后", 9)
    damaged = [
        {"version": 1},
        {"version": 2},
        *({"version": 1, "cues": [c]} for c in (kept, {"from": []}, 3)),
    ]
    tries = "v.records.map((one) => { try { return r.restoreCues(one, v.known); } catch { return null; } })"
    records = ["null", "no JSON", *map(json.dumps, damaged)]
    assert run(tries, records=records, known=known) == [None] * len(records)


@node
def test_doubtful_cues_come_first():
    cues = on_page([cue(n, n + 1, str(n), sure=s) for n, s in enumerate([0.9, 0.5, 0.99, 0.2])])
    cues[3]["reviewed"] = True
    shown = run(
        "v.views.map(([o, s]) => r.arranged(v.cues, o, 80, s).map(([h, some]) => some.map((c) => c.text)))",
        cues=cues,
        views=[["doubt", "all"], ["time", "all"], ["doubt", "open"], ["time", "doubtful"]],
    )
    assert shown == [[["3", "1"], ["0", "2"]], [["0", "1", "2", "3"]], [["1"], ["0", "2"]], [["1", "3"]]]


# The page in a browser

CHROMIUM = shutil.which("chromium")
QUIET = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"""
PROOF_READER = """
addEventListener("load", async () => {
  const files = [];
  URL.createObjectURL = (blob) => (files.push(blob), "blob:kept");
  const cards = () => [...document.querySelectorAll(".card")];
  const fire = (element, type, more) => element.dispatchEvent(Object.assign(new Event(type, { bubbles: true }), more));
  const field = cards()[0].querySelector("textarea");
  field.focus();
  field.value = "改好了";
  fire(field, "input");
  fire(field, "keydown", { key: "Enter", ctrlKey: true });
  const time = cards()[2].querySelector(".end");
  time.value = "0:00:03";
  fire(time, "input");
  document.getElementById("save-srt").click();
  const count = document.getElementById("count").textContent;
  const told = { srt: await files[0].text(), count, next: document.activeElement.value };
  document.title = JSON.stringify(told);
});
"""


SCEPTIC = """
addEventListener("load", async () => {
  const told = {};
  const $ = (id) => document.getElementById(id);
  const cards = () => [...document.querySelectorAll(".card")];
  const fire = (element, type, more) => element.dispatchEvent(Object.assign(new Event(type, { bubbles: true }), more));
  const type = (element, value) => { element.focus(); element.value = value; fire(element, "input"); };
  const field = (n) => cards()[n].querySelector("textarea");
  const saved = [];
  URL.createObjectURL = (blob) => (saved.push(blob), "blob:kept");
  told.language = [cards()[0].querySelector(".words").lang, document.querySelector(".stub").lang];
  told.faces = getComputedStyle(field(0)).fontFamily;

  type(field(0), "天行");
  fire(field(0), "keydown", { key: "S", ctrlKey: true });
  told.saved = saved.length;
  const key = Object.keys(localStorage)[0];
  told.kept = JSON.parse(localStorage.getItem(key)).cues[0].text;
  localStorage.setItem(key, "of another tab");
  dispatchEvent(new Event("pagehide"));
  told.idle = localStorage.getItem(key);

  $("find").value = "行";
  $("replacement").value = "列";
  $("replace-all").click();
  told.replaced = [field(0).value, field(1).value];
  type(field(0), "天列了");
  $("undo").click();
  told.undone = [field(0).value, field(1).value];

  field(2).focus();
  fire(field(2), "keydown", { key: "p", altKey: true });
  told.play = $("status").textContent;
  $("show").value = "doubtful";
  fire($("show"), "change");
  fire(document.body, "keydown", { key: "Enter", ctrlKey: true });
  told.hidden = $("count").textContent;
  $("show").value = "all";
  fire($("show"), "change");

  CSS.supports = () => false;
  const style = document.head.appendChild(document.createElement("style"));
  style.textContent = "textarea { field-sizing: fixed !important }";
  type(field(3), "长".repeat(200));
  told.cut = field(3).scrollHeight - field(3).clientHeight;

  type(cards()[0].querySelector(".start"), "1:75");
  $("save-srt").click();
  told.time = $("status").textContent;
  document.activeElement.blur();
  scrollTo(0, document.body.scrollHeight);
  await new Promise((done) => setTimeout(done, 1000));
  told.scrolled = [cards()[0].childElementCount > 1, cards()[1].childElementCount > 1];
  document.title = JSON.stringify(told);
});
"""


def played(page, program, tmp_path):
    """What a program on the page tells in its title."""
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", f"<script>{program}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, *QUIET.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))


browser = pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="Chromium is not installed")


@browser
def test_a_proof_reader_s_work_leaves_as_srt(tmp_path):
    told = played(review.page(CUES, "影片"), PROOF_READER, tmp_path)
    assert told["count"] == "1 of 3 reviewed, 1 doubtful left"
    assert told["next"] == "片名"  # the next doubtful one
    assert told["srt"] == (
        "1\n00:00:01,000 --> 00:00:03,000\n第一行\n第二行\n\n"
        "2\n00:00:04,170 --> 00:00:06,254\n改好了\n\n3\n01:01:40,000 --> 01:01:42,000\n片名\n"
    )


@browser
def test_no_work_is_lost_and_none_changes_unseen(tmp_path):
    cues = [cue(n, n + 1, f"第{n}行", sure=0.99) for n in range(60)]
    told = played(review.page(cues, "影片", language="ja"), SCEPTIC, tmp_path)
    assert told == {
        "language": ["ja", "ja"],
        "faces": "system-ui, sans-serif",
        "saved": 1,
        "kept": "天行",
        "idle": "of another tab",
        "replaced": ["天列", "第1列"],
        "undone": ["天列了", "第1行"],
        "play": "Open the film first.",
        "hidden": "0 of 60 reviewed, 0 doubtful left",
        "cut": 0,
        "time": "Saved, but 1 of the times typed could not be read.",
        "scrolled": [True, False],
    }
