"""The encoding of a subtitle file: Unicode, or the national one that older files of its country are written in.

Every national encoding reads nearly every file of the others, as characters that nobody writes. So what tells is how common
the characters are, in the languages that an encoding was made for, by the same counts as `scripts.detect_language`.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from tamis.subtitles import scripts
from tamis.subtitles.characters import PUNCTUATION

# What each encoding was made for; GB 18030 holds GB 2312 and GBK, code page 932 Shift JIS, 949 EUC-KR.
NATIONAL = {"gb18030": ("zh-hans", "zh-hant"), "big5hkscs": ("zh-hant",), "cp932": ("ja",), "cp949": ("ko",)}

MARK_SHARE = 0.01  # of one punctuation mark among a text's characters
# Mean log share of a text's characters: from -7.9 up in 1,600 files of 1 to 100 lines, each read in its own encoding (1,598 were
# told right); -9.1 and less in what UTF-8 is that has lost a byte, if any encoding reads it at all.
PLAUSIBLE = -8.5


def encoding_of(data: bytes) -> str:
    """The name under which Python knows the encoding; "utf-8" where nothing better is found, or nothing at all fits.

    UTF-16 shows by its byte order mark or, since subtitle files begin with ASCII, by a zero among the first two bytes.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if data[:1] == b"\0":
        return "utf-16-be"
    if data[1:2] == b"\0":
        return "utf-16-le"
    if _decoded(data, "utf-8") is not None:
        return "utf-8"
    likely, encoding = max((_likelihood(data, encoding), encoding) for encoding in NATIONAL)
    return encoding if likely > PLAUSIBLE else "utf-8"


def _likelihood(data: bytes, encoding: str) -> float:
    """Mean log share of the characters that are not ASCII, in that language of the encoding that makes it largest."""
    text = _decoded(data, encoding)
    if text is None:
        return -math.inf
    written = [character for character in text if not character.isascii()]
    tables = [_log_shares(language) for language in NATIONAL[encoding]]
    unknown = math.log(scripts.FOREIGN)
    return max(sum(table.get(c, unknown) for c in written) / len(written) for table in tables)


@cache
def _log_shares(language: str) -> dict[str, float]:
    script = scripts.script(language)
    full_width = map(chr, range(0xFF01, 0xFF5F))  # but no half-width kana: bytes of any kind look like them
    marks = dict.fromkeys((*PUNCTUATION, *full_width, *"\u3000…‥～〜・"), math.log(MARK_SHARE))
    return marks | dict(zip(script, np.log(scripts.zipf(len(script))).tolist(), strict=True))


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None
