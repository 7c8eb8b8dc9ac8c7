"""Rendered lines: the truth says where the ink is."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib brings the typeface of this test")

from tamis.subtitles.characters import index  # noqa: E402
from tamis.subtitles.footage import codec_round_trip  # noqa: E402
from tamis.subtitles.strip import EM, HEIGHT  # noqa: E402
from tamis.subtitles.synthesis import (  # noqa: E402
    MARGIN_Y,
    SPACE,
    WIDTH,
    Drawn,
    Renderer,
    Style,
    compose,
    draw_line,
)
from tamis.subtitles.typefaces import Face, find_faces  # noqa: E402


@pytest.fixture(scope="module")
def face() -> Face:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    coverage = np.zeros(0x40000, bool)
    coverage[list(map(ord, " Hello,Wrdx1lI…"))] = True
    return Face(str(path), 0, coverage)


def test_centres_lie_on_the_ink(face: Face) -> None:
    drawn = draw_line(np.random.default_rng(1), face, "Hello Wxrd", 32, 600)
    assert [SPACE if n == SPACE else n for n in drawn.labels] == [
        SPACE if c == " " else index()[c] for c in "Hello Wxrd"
    ]
    for label, (left, right, centre) in zip(drawn.labels, drawn.spans, strict=True):
        assert left < centre < right
        inked = drawn.coverage[:, int(left) + 1 : int(right)].max() > 100
        assert inked == (label != SPACE)


def test_an_ellipsis_is_three_dots(face: Face) -> None:
    drawn = draw_line(np.random.default_rng(2), face, "x…", 40, 400)
    assert drawn.labels.tolist() == [index()["x"], *[index()["."]] * 3]
    centres = drawn.spans[1:, 2].round().astype(int)
    rows = drawn.coverage.max(0)
    assert (rows[centres] > 100).all() and (np.diff(centres) > 4).all()


def test_what_a_face_cannot_draw_is_left_out(face: Face) -> None:
    assert len(draw_line(np.random.default_rng(3), face, "H中e", 30, 400).labels) == 2


def test_text_is_brighter_than_its_outline() -> None:
    scene: NDArray[np.float32] = np.full((2, 40, 60), 128, np.float32)
    coverage = np.zeros((40, 60), np.uint8)
    coverage[15:25, 28:32] = 255
    style = Style(
        fill=250,
        outline=10,
        radius=3,
        blur=0,
        shadow=(1, 1),
        shadow_alpha=0,
        box=None,
        box_alpha=1,
        slant=0,
        dark=False,
    )
    compose(scene, coverage, style)
    assert scene[:, 20, 30].min() == 250 and scene[:, 20, 26].max() < 20 and scene[0, 20, 5] == 128


def test_codec_keeps_size_and_loses_little_when_asked_nicely() -> None:
    ramp = np.tile(np.linspace(20, 230, 64, dtype=np.float32), (3, 48, 1)).astype(np.uint8)
    soft, hard = codec_round_trip(ramp, 10), codec_round_trip(ramp, 40)
    assert soft.shape == hard.shape == ramp.shape

    def loss(frames: NDArray[np.uint8]) -> float:
        return float(np.abs(frames.astype(float) - ramp).mean())

    assert loss(soft) < loss(hard) and loss(soft) < 3


class _Texts:
    def natural(self, rng: np.random.Generator, length: int) -> str:
        return "Hello Wxrd Hello Wxrd"[:length]

    def uniform(self, rng: np.random.Generator, length: int, face: Face) -> str:
        return "Hello"


class _Footage:
    def cut(self, rng: np.random.Generator, height: int, width: int, frames: int) -> NDArray[np.float32]:
        return np.full((frames, height, width), 40, np.float32)


def test_strips_have_the_detectors_form(face: Face) -> None:
    renderer = Renderer([face], _Texts(), _Footage())  # type: ignore[arg-type]
    strips = list(renderer.batch(np.random.default_rng(4)))
    assert len(strips) > 4
    for pixels, labels, spans in strips:
        assert pixels.shape == (2, HEIGHT + 2 * MARGIN_Y, WIDTH) and pixels.dtype == np.uint8
        assert (pixels[1] <= pixels[0].astype(int) + 1).all()  # the minimum is never above the mean
        assert len(labels) == len(spans)
        assert (spans[:, 1] - spans[:, 0] < 2 * EM).all()


def test_the_same_seed_gives_the_same_strips(face: Face) -> None:
    renderer = Renderer([face], _Texts(), _Footage())  # type: ignore[arg-type]
    first, second = (next(renderer.batch(np.random.default_rng(5)))[0] for _ in range(2))
    assert (first == second).all()


def test_no_face_is_a_sentence() -> None:
    with pytest.raises(FileNotFoundError, match="make fonts"):
        find_faces(["no such face"], [])


def test_empty_coverage_draws_nothing() -> None:
    drawn = Drawn(np.zeros((4, 4), np.uint8), np.zeros(0, np.int32), np.zeros((0, 3), np.float32), 0)
    scene = np.full((1, 4, 4), 7, np.float32)
    compose(scene, drawn.coverage, Style(255, 0, 0, 0, (1, 1), 0, None, 1, 0, False))
    assert (scene == 7).all()
