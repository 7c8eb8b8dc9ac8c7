"""Files in the national encodings are told apart, and from damaged UTF-8."""

import pytest

from tamis.subtitles.encodings import encoding_of

LINES = {
    "zh-hans": ["今天的天气真好，我们去公园走走吧。", "你说什么？我没听清楚！"],
    "zh-hant": ["今天的天氣真好，我們去公園走走吧。", "你說什麼？我沒聽清楚！"],
    "ja": ["今日は天気がいいから、公園を散歩しよう。", "何だって？もう一度言ってくれ！"],
    "ko": ["오늘은 날씨가 좋으니까 공원에 가자.", "뭐라고? 잘 안 들려!"],
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        ("zh-hans", "gb18030"), ("zh-hans", "gb2312"), ("zh-hant", "gbk"), ("zh-hant", "big5"), ("ja", "cp932"),
        ("ja", "shift_jis"), ("ko", "euc_kr"),
        *((language, unicode) for language in LINES for unicode in ("utf-8", "utf-16", "utf-16-le", "utf-16-be")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("number", [1, 2])
def test_a_file_of_a_line_or_two_is_read_as_it_was_written(language, encoding, number):
    text = "".join(
        f"{n}\r\n00:00:0{n},000 --> 00:00:0{n},900\r\n{line}\r\n\r\n"
        for n, line in enumerate(LINES[language][:number], 1)
    )
    data = text.encode(encoding)
    assert data.decode(encoding_of(data)).removeprefix("\ufeff") == text


@pytest.mark.parametrize("language", LINES)
def test_utf_8_that_lost_a_byte_is_not_taken_for_another_encoding(language):
    data = "\n".join(LINES[language]).encode()
    inner = [place for place, byte in enumerate(data) if byte > 0x7F]
    assert {encoding_of(data[:place] + data[place + 1 :]) for place in inner} == {"utf-8"}


@pytest.mark.parametrize("data", [b"", b"1\n", b"\xff", b"\x80\x81\xff\xfe\xfa", bytes(range(1, 256))])
def test_what_is_no_text_stays_utf_8_to_be_refused_as_such(data):
    assert encoding_of(data) == "utf-8"
