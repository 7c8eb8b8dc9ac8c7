"""Synthetic subtitle lines: text rendered as subtitles are really made, with the truth of every character's place.

A batch of lines is drawn on moving footage (fill, outline, shadow, box, neighbours), sent through one or two video
codec round trips, and its frames are merged and scaled exactly as the detector does at reading time. So the network
learns from what it will see. Training only: needs Pillow, fontTools and the font packages (`make fonts`).

    python -m tamis.subtitles.synthesis DATA OUT --shards 200 --seed 1
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tamis.subtitles.characters import KANA, encode
from tamis.subtitles.footage import DEV_FOOTAGE, TRAIN_FOOTAGE, Footage, codec_round_trip, pick
from tamis.subtitles.strip import EM, HEIGHT
from tamis.subtitles.typefaces import DEV_FACES, TEST_FACES, TRAIN_FACES, Face, find_faces

MARGIN_Y = 4  # rows above and below the strip that training crops away at random, so height is learnt loosely
WIDTH = 544  # stored width in px: 17 characters
LINES = 14  # lines on one video canvas
SPACE, OUTSIDE = -1, -2  # labels of a space and of a character that the vocabulary does not hold


class Texts:
    """Draws short pieces of text: natural ones per language, and uniform ones so that rare characters are seen too."""

    WEIGHTS: ClassVar[dict[str, float]] = {"zh_hans": 0.34, "zh_hant": 0.32, "ja": 0.16, "ko": 0.18}

    def __init__(self, data: Path, part: str = "train") -> None:
        self.pieces = {name: list(self._pieces(data, name, part)) for name in self.WEIGHTS}

    @staticmethod
    def _pieces(data: Path, name: str, part: str) -> Iterator[str]:
        remainders = {"train": range(2, 20), "dev": range(1, 2)}[part]
        with lzma.open(data / "subtitles" / "text" / f"{name}.txt.xz", "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                # Long lists of similar sentences follow each other: every third line is variety enough.
                if number % 20 in remainders and (part == "dev" or number % 3 == 0):
                    yield line.strip()[:200]

    def natural(self, rng: Generator, length: int) -> str:
        names = list(self.WEIGHTS)
        name = names[rng.choice(len(names), p=list(self.WEIGHTS.values()))]
        text = ""
        while len(text) < length:
            line = self.pieces[name][rng.integers(len(self.pieces[name]))]
            start = int(rng.integers(0, max(1, len(line) - 6)))
            text += line[start : start + length] + (" " if rng.random() < 0.5 else "")
        return text[:length]

    def uniform(self, rng: Generator, length: int, face: Face) -> str:
        kind = rng.random()
        latin = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:()&%/~"
        kana = KANA.translate(dict.fromkeys(map(ord, "ヽヾゝゞ〆〇")))
        marks = "，。、！？：；…—～·「」『』《》〈〉【】（）“”‘’♪"
        if kind < 0.08 or not (face.han or face.hangul):
            pool = latin
        elif kind < 0.14 and face.covers("の"):
            pool = kana
        elif face.hangul and (not face.han or kind < 0.26):
            pool = face.hangul
        else:
            pool = face.han or face.hangul
        main = [pool[i] for i in rng.integers(0, len(pool), length)]
        for i in range(length):
            chance = rng.random()
            if chance < 0.06:
                main[i] = marks[rng.integers(len(marks))]
            elif chance < 0.09:
                main[i] = " "
            elif chance < 0.12:
                main[i] = latin[rng.integers(len(latin))]
        return "".join(main)


@dataclass
class Drawn:
    """Glyph coverage of one line on its own canvas, and where each character is.

    coverage [h, w] uint8; spans [n, 3] float32: left and right of the advance box and ink centre, in canvas px
    """

    coverage: NDArray[np.uint8]
    labels: NDArray[np.int32]
    spans: NDArray[np.float32]
    top: float  # of the em box


def draw_line(rng: Generator, face: Face, text: str, size: int, limit: int) -> Drawn:
    """Draw text with one face at `size` px em, not wider than `limit`; labels are per folded character."""
    font = face.font(size)
    height = int(size * 1.9)
    canvas = np.zeros((height, limit), np.uint8)
    spacing = size * float(pick(rng, 0, 0, 0, rng.uniform(0, 0.15)))
    bold = int(rng.random() < 0.08)
    # The em box as a reader sees it: centred on the ink of full-size ideographs of this face, not on the font's metrics.
    probe = next((c for c in "国國永가Hx" if face.covers(c)), "H")
    box = font.getbbox(probe, anchor="ls")
    base = height / 2 - (box[1] + box[3]) / 2
    if probe == "H":
        base += size * 0.05
    pen = float(rng.uniform(0, 0.4 * size))
    labels: list[int] = []
    spans: list[tuple[float, float, float]] = []
    for character in text:
        if character == " ":
            advance = size * pick(rng, 0.25, 0.28, 0.33, 0.5, 1.0)
            labels.append(SPACE)
            spans.append((pen, pen + advance, pen + advance / 2))
            pen += advance
            continue
        if not face.covers(character):
            continue
        mask, (dx, dy) = font.getmask2(character, mode="L", anchor="ls", stroke_width=bold)
        w, h = mask.size
        advance = font.getlength(character) + spacing
        if pen + advance + size > limit:
            break
        x, y = round(pen + dx), round(base + dy)
        if w and h:
            glyph = np.frombuffer(bytes(mask), np.uint8).reshape(h, w)
            x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, limit), min(y + h, height)
            if x1 > x0 and y1 > y0:
                part = canvas[y0:y1, x0:x1]
                np.maximum(part, glyph[y0 - y : y1 - y, x0 - x : x1 - x], out=part)
                columns = np.flatnonzero(glyph.max(0) > 60)
                left, right = (x + columns[0], x + columns[-1] + 1) if len(columns) else (pen, pen + advance)
                numbers = encode(character)
                parts = len(numbers)  # an ellipsis folds into three dots
                dot = np.count_nonzero(glyph.max(1) > 60) if parts > 1 else right - left
                for i, number in enumerate(numbers):
                    centre = left + dot / 2 + i * (right - left - dot) / max(1, parts - 1)
                    spans.append((pen + advance * i / parts, pen + advance * (i + 1) / parts, centre))
                    labels.append(int(number))
        pen += advance
    return Drawn(
        canvas, np.array(labels, np.int32), np.array(spans, np.float32).reshape(-1, 3), height / 2 - size / 2
    )


@dataclass
class Style:
    """How a line looks, luma only: the reader never sees colour."""

    fill: float
    outline: float
    radius: float
    blur: float
    shadow: tuple[int, int]
    shadow_alpha: float
    box: float | None
    box_alpha: float
    slant: float
    dark: bool

    @classmethod
    def draw(cls, rng: Generator, size: int) -> Style:
        dark = rng.random() < 0.10
        if dark:
            fill, outline = rng.uniform(0, 50), rng.uniform(200, 255)
        else:
            fill = pick(rng, 255, 250, 235, 225, 210, rng.uniform(150, 255))
            outline = pick(rng, 0, 0, 16, rng.uniform(0, 120))
        radius = pick(rng, 0, 0.03, 0.05, 0.08, rng.uniform(0.02, 0.12)) * size
        boxed = rng.random() < (0.45 if dark else 0.10)
        box = (rng.uniform(190, 255) if dark else rng.uniform(0, 60)) if boxed else None
        offset = max(1, round(size * rng.uniform(0.02, 0.08)))
        return cls(
            fill=float(fill),
            outline=float(outline),
            radius=radius,
            blur=pick(rng, 0, 0, rng.uniform(0.3, 1.5)),
            shadow=(offset, offset),
            shadow_alpha=pick(rng, 0, 0, rng.uniform(0.3, 1.0)),
            box=box,
            box_alpha=pick(rng, 1.0, rng.uniform(0.4, 1.0)),
            slant=float(rng.uniform(0.1, 0.25)) if rng.random() < 0.08 else 0.0,
            dark=dark,
        )


def _grow(mask: NDArray[Any], radius: float) -> NDArray[Any]:
    """Dilate coverage by a fractional radius: mix of the two whole radii around it."""
    low = int(radius)
    grown = (
        mask
        if low == 0
        else cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * low + 1,) * 2))
    )
    rest = radius - low
    if rest > 0.05:
        more = cv2.dilate(grown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
        grown = grown * (1 - rest) + more * rest
    return grown


def compose(scene: NDArray[np.float32], coverage: NDArray[np.uint8], style: Style) -> None:
    """Paint one line over `scene` [frames, h, w], in place."""
    alpha = coverage.astype(np.float32) / np.float32(255)
    if style.box is not None:
        filled = cv2.boxFilter((alpha > 0.2).astype(np.float32), -1, (61, 31), normalize=False) > 0
        scene += filled * style.box_alpha * (style.box - scene)
    edge = _grow(alpha, style.radius) if style.radius > 0.3 else alpha
    if style.blur:
        edge = cv2.GaussianBlur(edge, (0, 0), style.blur)
    if style.shadow_alpha:
        dx, dy = style.shadow
        cast = cv2.warpAffine(edge, _matrix([[1, 0, dx], [0, 1, dy]]), edge.shape[::-1])
        scene += cast * style.shadow_alpha * (style.outline - scene)
    if style.radius > 0.3:
        scene += edge * (style.outline - scene)
    scene += alpha * (style.fill - scene)


class Renderer:
    """Makes batches of labelled strips.

    One batch: pixels [n, 2, HEIGHT + 2 MARGIN_Y, WIDTH] uint8 (mean, minimum), and per strip the labels and spans in
    strip px. A strip without text has no labels. `natural` is the share of lines that show sentences; the others show
    characters drawn evenly from the whole vocabulary.
    """

    def __init__(self, faces: Sequence[Face], texts: Texts, footage: Footage, natural: float = 0.5) -> None:
        self.texts, self.footage, self.natural = texts, footage, natural
        self.faces = list(faces)
        # Regional variants and weights multiply the Noto files; each design gets its share instead.
        counts: dict[str, int] = {}
        for face in self.faces:
            counts[Path(face.path).name.split("-")[0]] = counts.get(Path(face.path).name.split("-")[0], 0) + 1
        weight = []
        for face in self.faces:
            name = Path(face.path).name.split("-")[0]
            share = 6.0 if name.startswith("NotoS") else 1.0 if face.han else 0.35
            weight.append(share / counts[name] * (0.3 if "Thin" in face.path else 1.0))
        self.weight = np.array(weight) / sum(weight)

    def _line(self, rng: Generator, size: int, limit: int) -> tuple[Drawn, str]:
        face = self.faces[rng.choice(len(self.faces), p=self.weight)]
        length = int(rng.integers(1, 5)) if rng.random() < 0.12 else 22
        if rng.random() < self.natural:
            text = self.texts.natural(rng, length)
            for _ in range(12):  # a face that can draw the text
                if face.covers(text):
                    break
                face = self.faces[rng.choice(len(self.faces), p=self.weight)]
        else:
            text = self.texts.uniform(rng, length, face)
        return draw_line(rng, face, text, size, limit), text

    def batch(
        self, rng: Generator
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]]:
        """Yield (pixels [2, H, W], labels [m], spans [m, 3]) for the lines of one canvas."""
        size = int(np.exp(rng.uniform(np.log(15), np.log(60))))
        limit = 2 * int(size * 18.5 / 2)
        row = 2 * int(size * 1.9 / 2)
        frames = int(pick(rng, 1, 2, 4, 4))
        scene = self.footage.cut(rng, row * LINES, limit, frames)
        lines: list[tuple[Drawn, Style]] = []
        for i in range(LINES):
            drawn, _ = self._line(rng, size, limit)
            style = Style.draw(rng, size)
            band = scene[:, i * row : (i + 1) * row]
            if rng.random() < 0.5:  # own background for this row
                band[:] = self.footage.cut(rng, row, limit, frames)
            empty = rng.random() < 0.06
            if empty:
                drawn = Drawn(np.zeros_like(drawn.coverage), drawn.labels[:0], drawn.spans[:0], drawn.top)
            coverage = drawn.coverage[:row]
            if style.slant and not empty:
                coverage = _slant(coverage, style.slant)
            if rng.random() < 0.12 and not empty:  # a second line's edge above or below
                other, _ = self._line(rng, size, limit)
                shift = int(size * rng.uniform(1.08, 1.4)) * int(pick(rng, -1, 1))
                moved = cv2.warpAffine(
                    other.coverage[:row], _matrix([[1, 0, 0], [0, 1, shift]]), (limit, row)
                )
                coverage = np.maximum(coverage, moved)
            compose(band, coverage, style)
            lines.append((drawn, style))
        grey = scene.clip(0, 255).astype(np.uint8)
        scale = 1.0
        if rng.random() < 0.85:
            grey = codec_round_trip(grey, int(rng.integers(17, 34)))
        if rng.random() < 0.3:
            scale = float(rng.uniform(0.6, 1.3))
            if scale * size < 13:
                scale = 13 / size
            wide, high = 2 * int(limit * scale / 2), 2 * int(row * LINES * scale / 2)
            grey = np.stack([cv2.resize(f, (wide, high), interpolation=cv2.INTER_AREA) for f in grey])
            grey = codec_round_trip(grey, int(rng.integers(17, 32)))
        used = grey[rng.permutation(len(grey))[: int(rng.integers(1, len(grey) + 1))]]
        fx, fy = grey.shape[2] / limit, grey.shape[1] / (row * LINES)
        for i, (drawn, style) in enumerate(lines):
            yield self._strip(rng, used, drawn, style, (fx, fy), i * row, size)

    def _strip(
        self,
        rng: Generator,
        used: NDArray[np.uint8],
        drawn: Drawn,
        style: Style,
        factors: tuple[float, float],
        y0: int,
        size: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.float32]]:
        fx, fy = factors
        view = 255 - used if style.dark else used
        merged = np.stack([view.mean(0, dtype=np.float32).astype(np.uint8), view.min(0)])
        zoom = EM / size * float(np.exp(np.clip(rng.normal(0, 0.05), -0.13, 0.13)))
        high = HEIGHT + 2 * MARGIN_Y
        centre = (y0 + drawn.top + size / 2) * fy
        x0 = float(rng.uniform(-2.0, 1.0)) * size * fx if rng.random() < 0.7 else 0.0
        kx, ky = zoom / fx, zoom / fy
        # From strip to canvas: x = (u + 0.5) / kx + x0 - 0.5, so that pixel centres meet.
        matrix = _matrix(
            [[1 / kx, 0, 0.5 / kx + x0 - 0.5], [0, 1 / ky, (0.5 - high / 2) / ky + centre - 0.5]]
        )
        top, bottom = int(y0 * fy), int((y0 + size * 1.9) * fy)
        pixels = np.stack(
            [resample(m[max(0, top) : bottom], matrix, top, (WIDTH, high), 1 / ky) for m in merged]
        )
        spans = (drawn.spans * fx - x0) * kx
        inside = (spans[:, 1] > 0) & (spans[:, 0] < WIDTH)
        return pixels, drawn.labels[inside], spans[inside]


def _matrix(rows: list[list[Any]]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def _slant(coverage: NDArray[np.uint8], slant: float) -> NDArray[np.uint8]:
    h, w = coverage.shape
    return cv2.warpAffine(coverage, _matrix([[1, -slant, slant * h / 2], [0, 1, 0]]), (w, h))


def resample(
    image: NDArray[np.uint8], matrix: NDArray[np.float32], top: int, size: tuple[int, int], step: float
) -> NDArray[np.uint8]:
    """Affine resampling that averages when it shrinks (step > 1 source px per strip px)."""
    moved = matrix.copy()
    moved[1, 2] -= top
    if step > 1.3:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * step)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, moved, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def write_shard(renderer: Renderer, path: Path, seed: int, lines: int) -> None:
    """One file of `lines` strips: pixels, and labels and spans flattened with `offsets` [lines + 1]."""
    rng = np.random.default_rng(seed)
    pixels: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int32]] = []
    spans: list[NDArray[np.float32]] = []
    while len(pixels) < lines:
        for strip, label, span in renderer.batch(rng):
            pixels.append(strip)
            labels.append(label)
            spans.append(span)
    pixels, labels, spans = pixels[:lines], labels[:lines], spans[:lines]
    offsets = np.cumsum([0] + [len(label) for label in labels])
    draft = path.with_suffix(".part.npz")
    np.savez(
        draft,
        pixels=np.stack(pixels),
        labels=np.concatenate(labels),
        spans=np.concatenate(spans),
        offsets=offsets,
    )
    draft.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, default=200)  # as many as training takes
    parser.add_argument("--lines", type=int, default=560)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--natural", type=float, default=0.5, help="share of lines that show sentences")
    parser.add_argument("--part", choices=("train", "dev"), default="train")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    names, footage = (TRAIN_FACES, TRAIN_FOOTAGE) if arguments.part == "train" else (DEV_FACES, DEV_FOOTAGE)
    excluded = TEST_FACES + (DEV_FACES if arguments.part == "train" else ())
    faces = find_faces(names, excluded)
    texts = Texts(arguments.data, arguments.part)
    renderer = Renderer(faces, texts, Footage(arguments.data, footage), arguments.natural)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "faces.json").write_text(
        json.dumps([f"{Path(f.path).name}#{f.index}" for f in faces], indent=1)
    )
    for number in range(arguments.shards):
        path = arguments.out / f"shard-{number:04d}.npz"
        if (
            not path.exists()
        ):  # a shard is made from (seed, number) alone, so a broken run goes on where it was
            write_shard(renderer, path, arguments.seed * 100_003 + number, arguments.lines)
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
