"""Typefaces for rendering: which there are, what each can draw, and which of them only tests may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTCollection, TTFont
from numpy.typing import NDArray
from PIL import ImageFont

from tamis.subtitles.characters import HANGUL_COUNT, HANGUL_FIRST, hanzi

# Faces by the part of the file name. TEST and DEV faces never train anything; Droid Sans Fallback is left out because
# WenQuanYi Micro Hei, a test face, derives from it.
TEST_FACES = (
    "wqy-microhei", "cwyen", "gkai00mp", "TW-Sung", "ipaexg", "UnDotum", "DroidSansFallback", "BIZUD", "baekmuk",
    "gothic.ttf", "mincho.ttf", "MTLc3m", "sawarabi", "LexiGulim", "BMDOHYEON",
    "MTLmr3m", "ume-", "BMJUA", "BMHANNA",
)  # fmt: skip
DEV_FACES = ("SmileySans", "cwkai", "uming", "VL-", "NanumBarunGothic")
FOLDERS = ("/usr/share/fonts/opentype", "/usr/share/fonts/truetype")
TRAIN_FACES = (
    "NotoSansCJK", "NotoSerifCJK", "wqy-zenhei", "LXGWWenKai-", "ukai", "TW-Kai-98", "gbsn00lp", "bsmi00lp", "bkai00mp",
    "cwming", "cwfs", "cwheib", "HanaMinA", "NanumGothic.", "NanumGothicBold", "NanumMyeongjo", "NanumSquare", "UnBatang",
    "UnDinaru", "UnGraphic", "UnGungseo", "UnPilgi", "fonts-japanese-gothic",
)  # fmt: skip


@dataclass(eq=False)
class Face:
    """One face of a font file. `coverage[code]` is true for the code points that it can draw."""

    path: str
    index: int
    coverage: NDArray[np.bool_] = field(repr=False)

    def font(self, size: int) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(self.path, size, index=self.index, layout_engine=ImageFont.Layout.BASIC)

    def covers(self, text: str) -> bool:
        return all(self.coverage[ord(c)] for c in text)

    @cached_property
    def han(self) -> str:
        return "".join(c for c in hanzi() if self.coverage[ord(c)])

    @cached_property
    def hangul(self) -> str:
        return "".join(
            chr(HANGUL_FIRST + i) for i in np.flatnonzero(self.coverage[HANGUL_FIRST:][:HANGUL_COUNT])
        )


def find_faces(names: Sequence[str], excluded: Sequence[str]) -> list[Face]:
    """Faces whose file name contains one of `names` and none of `excluded`, each file's regional variants included."""
    faces: list[Face] = []
    paths = sorted({p for folder in FOLDERS for p in Path(folder).rglob("*.tt[fc]")})
    for path in paths:
        if not any(name in path.name for name in names) or any(name in path.name for name in excluded):
            continue
        fonts = (
            TTCollection(str(path), lazy=True).fonts
            if path.suffix == ".ttc"
            else [TTFont(str(path), lazy=True)]
        )
        for index, font in enumerate(fonts[:5]):  # from 5 on Noto repeats itself with monospaced Latin
            coverage = np.zeros(0x110000 >> 2, bool)  # up to plane 3: no Han character lies beyond
            coverage[[code for code in font.getBestCmap() if code < len(coverage)]] = True
            coverage[ord(" ")] = True
            faces.append(Face(str(path), index, coverage))
    if not faces:
        raise FileNotFoundError(f"no font file matching {', '.join(names[:3])} ... found; run `make fonts`")
    return faces
