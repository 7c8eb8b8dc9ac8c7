"""The whole reader on the bundled clip, and its smaller decisions on records made by hand."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from films import film

from tamis.errors import InputError, UsageError
from tamis.subtitles import read, reader
from tamis.subtitles.characters import encode
from tamis.subtitles.detect import detect
from tamis.subtitles.formats import on_grid, parse
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.layout import Sizes
from tamis.subtitles.published import default_recogniser
from tamis.subtitles.reader import (
    SeenLine,
    evidence,
    to_line,
)
from tamis.subtitles.recognise import Sighting
from tamis.subtitles.search import ReadCharacter, Reading
from tamis.subtitles.video import open_video

SAMPLES = Path(__file__).parents[2] / "src" / "tamis" / "subtitles" / "samples"


def test_the_bundled_clip_is_read_with_exact_times() -> None:
    told: list[float] = []
    cues = read(SAMPLES / "moonlight.mp4", pictures=True, progress=told.append)
    truth = parse(SAMPLES / "moonlight.srt")
    # Its texts are far from any doubt, so this holds with and without compiled kernels.
    assert [(*on_grid(c, 1000), c.text) for c in cues] == [(*on_grid(c, 1000), c.text) for c in truth]
    assert told == sorted(told) and told[0] >= 0 and told[-1] <= 1
    assert all(cue.picture.startswith(b"\x89PNG") for cue in cues)
    two_lines = [cue for cue in cues if len(cue.lines) == 2]
    assert len(two_lines) == 1 and two_lines[0].lines[0].box[1] < two_lines[0].lines[1].box[1]


def _one_after_the_other(path: Path) -> list[reader.SeenCue]:
    recogniser = default_recogniser()
    sizes = Sizes(recogniser)
    with open_video(path) as video:
        images = detect(video.frames(), known=sizes.known)
        looked = [reader.look(image, recogniser, sizes=sizes) for image in images]
    return sorted((cue for cue in looked if cue is not None), key=lambda cue: (cue.start, cue.end))


@pytest.mark.parametrize("first_guess", [1, 48, 10_000])
def test_reading_at_once_finds_what_reading_in_turn_finds(
    first_guess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FIRST_GUESS", first_guess)
    path, recogniser, settings = SAMPLES / "moonlight.mp4", default_recogniser(), reader.default_settings()
    seen = _one_after_the_other(path)
    language = reader.find_language(seen, recogniser)
    assert language == "zh-hans"
    wanted = reader.choose(reader.recognise(seen, language, recogniser, settings), settings)
    found = read(path)
    assert [(c.start, c.end, c.text) for c in found] == [(c.start, c.end, c.text) for c in wanted]
    assert [c.confidence for c in found] == pytest.approx([c.confidence for c in wanted], abs=1e-3)


def test_a_wrong_first_guess_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _one_after_the_other(SAMPLES / "moonlight.mp4")
    guesses, asked = iter(["ja", "zh-hans", "ko"]), []

    def guess(cues: Sequence[reader.SeenCue], recogniser: object) -> str:
        asked.append(len(cues))
        return next(guesses)

    monkeypatch.setattr(reader, "find_language", guess)
    monkeypatch.setattr(reader, "FIRST_GUESS", 1)
    texts = reader._Texts(default_recogniser(), reader.default_settings(), None)
    for cue in seen:
        texts.add(cue)
    cues = reader.choose(texts.finish(), reader.default_settings())
    assert asked == [1, len(seen)]  # a guess, and what is told in the end
    assert "月亮" in "".join(cue.text for cue in cues)


def test_what_fails_in_the_worker_fails_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(reader, "look", broken)
    with pytest.raises(OSError, match="no memory"):
        read(SAMPLES / "moonlight.mp4")
    assert not any("tamis-look" in thread.name for thread in threading.enumerate())


def test_what_showed_nothing_before_a_size_was_known_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: list[float] = []
    times: list[str] = []

    class Made:
        def __init__(self, name: str) -> None:
            self.name = name

        def image(self, widths: Sequence[float]) -> tuple[str, bool]:
            return self.name, bool(widths)

    def look(image: tuple[str, bool], *_: object, **__: object) -> SimpleNamespace | None:
        name, with_widths = image
        times.append(name)
        if name == "clear":
            known.append(30.0)
        if name == "small" and not with_widths:
            return None
        sure = np.full(3, 0.5 if name in ("faint", "scenery") else 0.9, np.float32)
        return SimpleNamespace(name=name, lines=[SimpleNamespace(sighting=SimpleNamespace(mass=sure))])

    monkeypatch.setattr(Sizes, "known", lambda self: list(known))
    monkeypatch.setattr(reader, "look", look)
    seen: list[SimpleNamespace] = []
    with reader.Looking(None, seen.append, False) as looking:  # type: ignore[arg-type]
        for name in ("small", "faint", "clear", "scenery"):
            looking.at([Made(name)])  # type: ignore[list-item]
    assert times == ["small", "faint", "clear", "scenery", "small", "faint"]
    assert [cue.name for cue in seen] == ["faint", "clear", "scenery", "small"]


def test_what_fails_while_decoding_stops_the_worker() -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(SAMPLES / "moonlight.mp4", progress=stop)
    assert not any("tamis-look" in thread.name for thread in threading.enumerate())


def test_a_region_without_subtitles_has_none() -> None:
    assert read(SAMPLES / "moonlight.mp4", region=(0, 0, 960, 250)) == []


@pytest.mark.parametrize(
    "region", [(960, 0, 970, 10), (0, 5000, 960, 6000), (-50, -50, -10, -10), (0, 0, 0, 0)]
)
def test_a_region_outside_of_the_picture_is_wrong_usage(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match=r"lies outside of the picture, which is 960 x \d+ px"):
        read(SAMPLES / "moonlight.mp4", region=region)


def test_the_function_is_what_the_package_exports() -> None:
    import tamis.subtitles as package

    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize(
    "region", [(0, 0, 1, 1), (10.4, 10, 20, 300), (950, 300, 2000, 540), (90, 90, 20, 20)]
)
def test_a_region_too_small_for_text_is_wrong_usage(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="is too small for text"):
        read(SAMPLES / "moonlight.mp4", region=region)


def test_a_region_may_reach_over_the_edges() -> None:
    assert reader._looked_at((-5, 300.2, 5000, 999), SimpleNamespace(width=960, height=540, path="f")) == (  # type: ignore[arg-type]
        0, 300, 960, 540,
    )  # fmt: skip


def test_a_picture_too_small_for_text_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dot.mkv: its picture of 8 x 2 px is too small for text"):
        read(film(tmp_path / "dot.mkv", range(3), size=(8, 2)))


SPOKEN = {
    "zh-hans": "我没时间跟你们说话",
    "zh-hant": "我沒時間跟你們說話",
    "ja": "遠い空に君の声が聞こえる",
}


@pytest.mark.parametrize(
    ("parts", "language"),
    [
        ([("ja", 20), ("zh-hans", 180)], "zh-hans"),
        ([("ja", 20), ("zh-hant", 180), ("ja", 10)], "zh-hant"),
        ([("zh-hans", 30), ("ja", 170)], "ja"),
        ([("zh-hant", 200)], "zh-hant"),
    ],
)
def test_a_song_in_another_language_does_not_decide_for_the_film(
    parts: list[tuple[str, int]], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sees:
        """Every character surely."""

        def lattices(self, sightings: Iterable[SimpleNamespace], **_: object) -> Iterator[Lattice]:
            for one in sightings:
                labels = encode(one.text)[:, None]
                n = len(labels)
                centre, space = np.full(n, -0.05, np.float32), np.full(n + 1, -5, np.float32)
                sure = np.full((n, 1), -0.05, np.float32)
                yield Lattice(np.arange(n, dtype=np.float32), centre, centre - 3, space, labels, sure)

    def recognise(seen: list[SimpleNamespace], language: str, *_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(start=cue.start, end=cue.end, language=language) for cue in seen]

    monkeypatch.setattr(reader, "recognise", recognise)
    texts = reader._Texts(Sees(), reader.Settings(), None)  # type: ignore[arg-type]
    spoken = [SPOKEN[part] for part, number in parts for _ in range(number)]
    for second, text in enumerate(spoken):
        sighting = SimpleNamespace(text=text, mass=np.full(len(text), 0.99, np.float32))
        line = SimpleNamespace(sighting=sighting)
        texts.add(SimpleNamespace(start=Fraction(second), end=Fraction(second + 1), lines=(line,)))  # type: ignore[arg-type]
    read_cues = texts.finish()
    assert [cue.start for cue in read_cues] == list(range(len(spoken)))
    assert {cue.language for cue in read_cues} == {language}  # type: ignore[attr-defined]


def test_an_unknown_language_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="zh-hans"):
        read(SAMPLES / "moonlight.mp4", language="klingon")


def test_a_text_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_text("not a film")
    with pytest.raises(InputError):
        read(path)


def _lattice(mass: list[float], p: list[float]) -> Lattice:
    n = len(mass)
    return Lattice(
        position=np.arange(n, dtype=np.float32) + 2,
        log_centre=np.log(np.array(mass, np.float32)),
        log_skip=np.log1p(-np.array(mass, np.float32)),
        log_space=np.full(n + 1, -9, np.float32),
        labels=np.zeros((n, 1), np.int32),
        log_class=np.log(np.array(p, np.float32))[:, None],
    )


def _reading(text: str) -> Reading:
    return Reading(tuple(ReadCharacter((i,), c, 0.9) for i, c in enumerate(text)), -0.1)


def test_evidence_is_where_and_which() -> None:
    assert evidence(_lattice([0.9] * 4, [0.8] * 4), _reading("四个字啊")) == pytest.approx((0.9, 0.72))
    assert evidence(_lattice([0.9] * 4, [0.8] * 4), Reading((), 0.0)) == (0, 0)


def test_characters_go_back_to_the_frame() -> None:
    sighting = Sighting(*(np.zeros(0, np.float32),) * 4)
    line = to_line(
        SeenLine(sighting, (100, 50, 400, 90), 30.0), _lattice([0.9] * 3, [0.9] * 3), _reading("好天气")
    )
    assert line.text == "好天气"
    assert line.characters[0].box == (145, 50, 175, 90)  # its centre is 2 SCW from the left edge of the strip
    assert line.box == (145, 50, 235, 90)
