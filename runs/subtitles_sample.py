"""Draw the clip of `tamis demo`: a boat on moonlit water, with subtitles. Run: python runs/subtitles_sample.py

The picture is drawn here; the letters are Noto Sans CJK (SIL Open Font License 1.1, Debian package fonts-noto-cjk). Writes
src/tamis/subtitles/samples/moonlight.mp4 and its truth, moonlight.srt, beside it. A demonstration, not a measurement: the
networks were trained on this face.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tamis.subtitles.cue import Character, Cue, Line
from tamis.subtitles.formats import write

FONT, FACE = "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc", 2
WIDTH, HEIGHT, RATE = 960, 540, 24
TARGET = Path(__file__).parent.parent / "src" / "tamis" / "subtitles" / "samples" / "moonlight.mp4"

# First frame, frame after the last, text. Two neighbours differ in one character; one cue has one, another two lines.
CUES = (
    (18, 66, "今晚的月亮真圆啊"),
    (66, 110, "你听，水里好像有声音"),
    (118, 130, "嘘！"),
    (134, 176, "是鱼吗？"),
    (176, 214, "是船吗？"),
    (226, 296, "不，那只是一只晚归的白鹭\n它每天这个时候回家"),
    (306, 360, "我们也该回去了……"),
)
FRAMES = 384


def picture(frame: int) -> NDArray[np.uint8]:
    """The scene at one frame, BGR [HEIGHT, WIDTH, 3]."""
    rows = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None]
    image = np.empty((HEIGHT, WIDTH, 3), np.float32)
    for channel, (top, bottom) in enumerate(((96, 150), (52, 96), (30, 70))):
        image[..., channel] = top + (bottom - top) * rows
    image = image.astype(np.uint8)
    cv2.circle(image, (700, 120), 52, (215, 240, 250), -1, cv2.LINE_AA)
    x = np.arange(WIDTH, dtype=np.float32)
    for number, (base, high, colour) in enumerate(((300, 60, (92, 66, 44)), (330, 34, (70, 48, 32)))):
        ridge = base - high * (np.sin(x / (130 + 50 * number) + number * 2) + 0.4 * np.sin(x / 37 + number))
        points = np.stack([x, ridge], 1).astype(np.int32)
        cv2.fillPoly(image, [np.vstack([points, [[WIDTH, 340], [0, 340]]])], colour, cv2.LINE_AA)
    image[340:] = (96, 68, 46)
    for row in range(350, HEIGHT, 16):  # the moon on the water, softly moving
        depth = (row - 340) / 200
        centre, length = (
            700 + 10 * np.sin(frame / 14 + row),
            16 + 60 * depth * (1 + 0.2 * np.sin(frame / 11 + 2 * row)),
        )
        start, end = (int(centre - length), row), (int(centre + length), row)
        cv2.line(image, start, end, (128, 116, 104), 2 + int(2 * depth), cv2.LINE_AA)
    place = np.array([40 + frame // 2, 372 + int(2 * np.sin(frame / 10))])
    boat = np.array([[0, 0], [110, 0], [92, 20], [18, 20]]) + place
    cv2.fillPoly(image, [boat.astype(np.int32)], (30, 26, 24), cv2.LINE_AA)
    mast = tuple(int(v) for v in boat[0] + [52, 0])
    cv2.line(image, mast, (mast[0], mast[1] - 70), (30, 26, 24), 3, cv2.LINE_AA)
    sail = np.array([[4, -66], [44, -14], [4, -10]]) + mast
    cv2.fillPoly(image, [sail.astype(np.int32)], (206, 214, 220), cv2.LINE_AA)
    return image


def main() -> None:
    font = ImageFont.truetype(FONT, 36, index=FACE)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(TARGET), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "27", "preset": "slow"}
        for number in range(FRAMES):
            image = Image.fromarray(cv2.cvtColor(picture(number), cv2.COLOR_BGR2RGB))
            for first, after, text in CUES:
                if first <= number < after:
                    place = (WIDTH / 2, HEIGHT - 26)
                    ImageDraw.Draw(image).multiline_text(
                        place,
                        text,
                        "white",
                        font,
                        anchor="md",
                        align="center",
                        stroke_width=2,
                        stroke_fill="black",
                        spacing=6,
                    )
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    cues = [
        Cue(
            Fraction(first, RATE),
            Fraction(after, RATE),
            tuple(
                Line(tuple(Character(c, 1.0, (0, 0, 0, 0)) for c in line), (0, 0, 0, 0))
                for line in text.split("\n")
            ),
            1.0,
        )
        for first, after, text in CUES
    ]
    write(cues, TARGET.with_suffix(".srt"))
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
