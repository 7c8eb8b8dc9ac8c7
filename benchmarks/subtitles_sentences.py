"""Sentences and faces of the end-to-end subtitle clips: what is written, and in which letters.

Sentences, faces and footage each fall into three groups that never mix (train, dev, test), so that what is measured
was not trained on. Sentences are grouped by their line number in the data files, faces by name. "former", "previous" and
"third" are earlier test sets, which have been tuned on since: their sentences are not drawn again, and their faces only
where there are no others.
"""

from __future__ import annotations

import html
import lzma
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from fontTools.pens.boundsPen import BoundsPen
from fontTools.ttLib import TTFont
from opencc import OpenCC

# Line n of a text file belongs to the test group when n % 20 == 0, to dev when n % 20 == 1, else to training.
GROUP_REMAINDER = {"test": 0, "former": 0, "previous": 0, "third": 0, "dev": 1}
GROUP_PERIOD = 20
MAX_LINE = 18  # characters of one subtitle line

FONTS = Path("/usr/share/fonts")


@dataclass(frozen=True)
class Face:
    """One font face by the name that libass is asked for. Files are below /usr/share/fonts."""

    family: str
    file: str
    index: int = 0
    bold_file: str = ""

    @property
    def path(self) -> Path:
        return FONTS / self.file


MICRO_HEI = Face("WenQuanYi Micro Hei", "truetype/wqy/wqy-microhei.ttc")
KAITI_GB = Face("AR PL KaitiM GB", "truetype/arphic-gkai00mp/gkai00mp.ttf")
TW_SUNG = Face("TW-Sung", "truetype/cns11643/TW-Sung-98_1.ttf")
YEN = Face("cwTeXYen", "truetype/cwtex/cwyen.ttf")
UMING_CN = Face("AR PL UMing CN", "truetype/arphic/uming.ttc", 0)
UMING_TW = Face("AR PL UMing TW", "truetype/arphic/uming.ttc", 2)
BARUN = "truetype/nanum/NanumBarunGothic"
BIZ = "truetype/bizud-gothic/BIZUD"
CHINESE = {
    "zh-hans": (MICRO_HEI, KAITI_GB, TW_SUNG, MICRO_HEI),
    "zh-hant": (MICRO_HEI, YEN, TW_SUNG, YEN),
}
FACES: dict[str, dict[str, tuple[Face, ...]]] = {
    "test": {
        **CHINESE,
        "ja": (
            Face("Ume Mincho", "truetype/horai-umefont/ume-tmo3.ttf"),
            Face("Ume Hy Gothic", "truetype/horai-umefont/ume-hgo4.ttf"),
        ),
        "ko": (
            Face("Baekmuk Headline", "truetype/baekmuk/hline.ttf"),
            Face("BM HANNA Air", "truetype/woowa-bm/BMHANNAAir_ttf.ttf"),
        ),
    },
    "third": {
        **CHINESE,
        "ja": (
            Face("MotoyaLMaru", "truetype/motoya-l-maruberi/MTLmr3m.ttf"),
            Face("Ume Gothic", "truetype/horai-umefont/ume-tgo4.ttf"),
        ),
        "ko": (
            Face("Baekmuk Batang", "truetype/baekmuk/batang.ttf"),
            Face("BM JUA_TTF", "truetype/woowa-bm/BMJUA_ttf.ttf"),
        ),
    },
    "previous": {
        **CHINESE,
        "ja": (
            Face("MotoyaLCedar", "truetype/motoya-l-cedar/MTLc3m.ttf"),
            Face("Sawarabi Gothic", "truetype/sawarabi-gothic/sawarabi-gothic-medium.ttf"),
        ),
        "ko": (
            Face("LexiGulim", "truetype/lexi/LexiGulim.ttf"),
            Face("BM DoHyeon", "truetype/woowa-bm/BMDOHYEON_ttf.ttf"),
        ),
    },
    "former": {
        **CHINESE,
        "ja": (
            Face("IPAexGothic", "opentype/ipaexfont-gothic/ipaexg.ttf"),
            Face("BIZ UDGothic", BIZ + "Gothic-Regular.ttf", 0, BIZ + "Gothic-Bold.ttf"),
            Face("BIZ UDPGothic", BIZ + "PGothic-Regular.ttf", 0, BIZ + "PGothic-Bold.ttf"),
        ),
        "ko": (
            Face("UnDotum", "truetype/unfonts-core/UnDotum.ttf", 0, "truetype/unfonts-core/UnDotumBold.ttf"),
            Face("Baekmuk Dotum", "truetype/baekmuk/dotum.ttf"),
            Face("Baekmuk Gulim", "truetype/baekmuk/gulim.ttf"),
            MICRO_HEI,
        ),
    },
    "dev": {
        "zh-hans": (Face("Smiley Sans", "truetype/smiley-sans/SmileySans-Oblique.ttf"), UMING_CN),
        "zh-hant": (Face("cwTeXKai", "truetype/cwtex/cwkai.ttf"), UMING_TW),
        "ja": (
            Face("VL Gothic", "truetype/vlgothic/VL-Gothic-Regular.ttf"),
            Face("VL PGothic", "truetype/vlgothic/VL-PGothic-Regular.ttf"),
        ),
        "ko": (Face("NanumBarunGothic", BARUN + ".ttf", 0, BARUN + "Bold.ttf"),),
    },
}


@cache
def _font(path: Path, index: int) -> TTFont:
    return TTFont(path, fontNumber=index)


@cache
def drawn(face: Face, character: str) -> bool:
    """Whether the face has the character with ink in it (some fonts map characters to empty glyphs)."""
    font = _font(face.path, face.index)
    name = font.getBestCmap().get(ord(character))
    if name is None:
        return False
    if character in " \u3000":
        return True
    glyphs = font.getGlyphSet()
    pen = BoundsPen(glyphs)
    glyphs[name].draw(pen)
    return pen.bounds is not None


def em_ratio(face: Face) -> float:
    """ASS font size of one em: libass takes the size as ascent plus descent of the OS/2 table's Windows metrics."""
    font = _font(face.path, face.index)
    os2 = font["OS/2"]
    return float((os2.usWinAscent + os2.usWinDescent) / font["head"].unitsPerEm)


def width_em(face: Face, text: str) -> float:
    """Width of one line in em, the sum of its advances."""
    font = _font(face.path, face.index)
    cmap, advances = font.getBestCmap(), font["hmtx"]
    return float(sum(advances[cmap[ord(c)]][0] for c in text) / font["head"].unitsPerEm)


HAN_LISTS = {
    "zh-hans": ("gb2312_hanzi_6763.txt", "tgscc_8105.txt"),
    "zh-hant": ("big5_hanzi.txt",),
    "ja": ("jisx0208_kanji.txt",),
    "ko": (),
}
# Where the less common half of each list starts: GB 2312 and Big5 are ordered by level, as is JIS X 0208.
RARE_FROM = {"zh-hans": 3755, "zh-hant": 5401, "ja": 2965}
PUNCTUATION = set("，。！？、；：…—“”‘’《》「」『』（）·・～％ \u3000") | set("!?,.:;%'\"-()+/&")
LATIN = {chr(c) for c in range(0x21, 0x7F)} - set("{}\\<>*#|~^_`[]@$=")
KANA = {chr(c) for c in range(0x3041, 0x30FD)} | set("々〇")
SYLLABLES = {chr(c) for c in range(0xAC00, 0xD7A4)}
# zh: cut before and after clauses; ko: words.
CLAUSE = re.compile(r"[^，。！？；：、…\s]+[，。！？；：、…」』”）]*\s*")
WORD = re.compile(r"\S+\s*")


def han(data: Path, name: str) -> str:
    return "".join((data / "charlists" / name).read_text(encoding="utf-8").split())


def alphabet(data: Path, language: str) -> set[str]:
    """Every character that a subtitle of this language may contain."""
    letters = PUNCTUATION | LATIN
    for name in HAN_LISTS[language]:
        letters |= set(han(data, name))
    if language == "ja":
        letters |= KANA
    if language == "ko":
        letters |= SYLLABLES
    return letters


PAIRS = ("“”", "‘’", "《》", "「」", "『』", "（）", "()")


def _balanced(line: str) -> bool:
    """Quotes and brackets that open also close: half a quotation looks like no subtitle."""
    return (
        all(line.count(opening) == line.count(closing) for opening, closing in PAIRS)
        and line.count('"') % 2 == 0
    )


TEXT_FILES = {"zh-hans": "zh_hans", "zh-hant": "zh_hant", "ja": "ja", "ko": "ko"}


def _tatoeba(data: Path, language: str) -> list[str]:
    """The Chinese column; lines of the other script are emptied so that line numbers keep their meaning."""
    simplified = set(han(data, "gb2312_hanzi_6763.txt")) | set(han(data, "tgscc_8105.txt"))
    traditional = set(han(data, "big5_hanzi.txt"))
    lines = []
    for row in (data / "text" / "tatoeba_cmn_eng.txt").read_text(encoding="utf-8").splitlines():
        text = row.split("\t")[1]
        letters = {c for c in text if "\u4e00" <= c <= "\u9fff"}
        if language == "zh-hans":
            keep = letters <= simplified
        else:
            keep = letters <= traditional and not letters <= simplified
        lines.append(text if keep else "")
    return lines


def read_lines(data: Path, language: str) -> list[list[str]]:
    """The text files of a language, each a list of its lines."""
    path = data / "text" / f"{TEXT_FILES[language]}.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8") as file:
        files = [[html.unescape(line.strip()) for line in file]]
    if language.startswith("zh"):
        files.append(_tatoeba(data, language))
    return files


class Sentences:
    """Subtitle lines of one language and group, drawn at random.

    A line of `min_unique` characters or more is only drawn when it stands nowhere in the other groups' text.
    """

    min_unique = 6

    def __init__(self, data: Path, language: str, group: str, used: Iterable[str] = ()) -> None:
        """used: lines that shall not be drawn again."""
        remainder = GROUP_REMAINDER[group]
        files = read_lines(data, language)
        self.language = language
        self.letters = alphabet(data, language)
        self.own = [line for lines in files for line in lines[remainder::GROUP_PERIOD] if line]
        others = (line for lines in files for n, line in enumerate(lines) if n % GROUP_PERIOD != remainder)
        self.elsewhere = "\n".join([*others, *used])
        self.simplify = OpenCC("t2s")
        level = RARE_FROM.get(language)
        self.rare = sorted(han(data, HAN_LISTS[language][0])[level:]) if level else []
        self.short = self._short(min(len(self.own), 20_000))

    def _cut(self, sentence: str, limit: int) -> list[str]:
        """The sentence in lines of at most `limit` characters, broken at punctuation (at words in Korean)."""
        pattern = WORD if self.language == "ko" else CLAUSE
        lines: list[str] = []
        line = ""
        for part in pattern.findall(sentence):
            if len((line + part).strip()) <= limit:
                line += part
                continue
            lines.append(line.strip())
            line = part if len(part.strip()) <= limit else ""
        return [piece for piece in [*lines, line.strip()] if piece]

    def _short(self, count: int) -> list[str]:
        """One- and two-character clauses, which sentences rarely are and subtitles often."""
        found = set()
        for sentence in self.own[:count]:
            for clause in CLAUSE.findall(sentence):
                core = clause.strip("，。！？；：、…」』”） ")
                if (
                    1 <= len(core) <= 2
                    and set(core) <= self.letters
                    and core.isalpha()
                    and not core.isascii()
                ):
                    found.add(core)
        return sorted(found)

    def draw(self, rng: np.random.Generator, face: Face, limit: int, style: str, rare: bool = False) -> str:
        """One line of at most `limit` characters that the face can draw. `style`: film, wide or full punctuation."""
        while True:
            pieces = self._cut(str(rng.choice(self.own)), limit)
            if not pieces:
                continue
            line = self._punctuate(str(rng.choice(pieces)), rng, style)
            if self.language == "zh-hans" and self.simplify.convert(line) != line:
                continue  # a Traditional line, or a slip such as 接著
            if rare and self.rare:
                line = self._with_rare(line, rng)
            if self._usable(line, face):
                return line

    def draw_short(self, rng: np.random.Generator, face: Face) -> str:
        """One or two characters, sometimes with a mark behind."""
        while True:
            marks = ["", "", "", "!", "?", "..."] if self.language == "ko" else ["", "", "", "！", "？", "…"]
            line = str(rng.choice(self.short)) + str(rng.choice(marks))
            if self._usable(line, face):
                return line

    def _usable(self, line: str, face: Face) -> bool:
        if not line or not set(line) <= self.letters or not all(drawn(face, c) for c in line):
            return False
        if line[0] in "，。！？、；：…,.!?;:)」』”）'’" or line.isascii() or not _balanced(line):
            return False
        return len(line) < self.min_unique or line.strip("，。！？…!?. ") not in self.elsewhere

    def _punctuate(self, line: str, rng: np.random.Generator, style: str) -> str:
        if rng.random() < 0.06:
            line = line.rstrip("，。、；：,. ") + str(rng.choice(["…", "……", "...", "！", "？！"]))
        if self.language == "ko" or style == "full":
            return line.strip()
        gap = "\u3000" if style == "wide" else " "
        line = re.sub(r"[，。；：]+", gap, line.rstrip("，。、；： "))
        return re.sub(r"[ \u3000]+", gap, line).strip()

    def _with_rare(self, line: str, rng: np.random.Generator) -> str:
        places = [i for i, c in enumerate(line) if "\u4e00" <= c <= "\u9fff"]
        if not places:
            return line
        at = int(rng.choice(places))
        return line[:at] + str(rng.choice(self.rare)) + line[at + 1 :]

    def neighbour(self, rng: np.random.Generator, face: Face, line: str) -> str:
        """The same line with one letter changed."""
        places = [i for i, c in enumerate(line) if c.isalpha() and not c.isascii()]
        if not places:
            return self.draw(rng, face, MAX_LINE, "film")
        while True:
            at = int(rng.choice(places))
            other = str(rng.choice(list(str(rng.choice(self.own)))))
            if other.isalpha() and not other.isascii() and other != line[at] and self._usable(other, face):
                return line[:at] + other + line[at + 1 :]
