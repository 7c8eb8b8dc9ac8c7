"""Read the burnt-in subtitles of a video.

video -> frames -> candidate cues -> strips -> sightings of characters -> language -> lattice -> text -> cues

>>> from tamis.subtitles import read
>>> cues = read("film.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from types import TracebackType

import numpy as np

from tamis.errors import InputError, InputWarning, UsageError
from tamis.subtitles import punctuation, scripts
from tamis.subtitles.confidence import Calibration
from tamis.subtitles.cue import Box, Character, Cue, Line
from tamis.subtitles.detect import Candidate, CueImage, Detector
from tamis.subtitles.language import LANGUAGES, LanguageModel
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.layout import Sizes, arrange, characters, decided
from tamis.subtitles.pictures import png
from tamis.subtitles.pieces import whole
from tamis.subtitles.places import Places, Standing, Thresholds, body
from tamis.subtitles.published import default_recogniser, language_model, operating_point
from tamis.subtitles.recognise import AT_ONCE, Recogniser, Sighting
from tamis.subtitles.search import Reading, SearchWeights, decode
from tamis.subtitles.video import Frame, Video, open_video

# Candidates that wait to be looked at; decoding then waits, too. A clip's last ones come all at once.
MOST_WAITING = 64
MOST_AGAIN = 32  # candidates that are kept to be looked at again
CLEARLY = 0.8  # `decided` of lines that are surely text
# Characters, about, from which the language is guessed, and from which it is told: `find_language` wants 100 that are sure.
FIRST_GUESS, FINAL_GUESS = 48, 200
GOLDEN = (5**0.5 - 1) / 2
LEAST_PX = 16  # of a picture or region: no text is read below
SURE_LANGUAGE = 0.999  # posterior; nearly all clips have 1 - 1e-6 and more


@dataclass(frozen=True)
class SeenLine:
    """A line once looked at: its image is gone, what may stand in it is kept."""

    sighting: Sighting
    box: Box
    scw: float


@dataclass(frozen=True)
class SeenCue:
    start: Fraction
    end: Fraction
    lines: tuple[SeenLine, ...]
    picture: bytes
    width: int  # of the frame, px


@dataclass(frozen=True)
class ReadLine:
    line: Line
    standing: Standing
    log_probability: float


@dataclass(frozen=True)
class ReadCue:
    """A candidate once read: a subtitle, or scenery that was read all the same."""

    start: Fraction
    end: Fraction
    lines: tuple[ReadLine, ...]
    picture: bytes
    width: int


@dataclass(frozen=True)
class Settings:
    """The operating point of the reader; tuned on development clips only.

    least_evidence  mean probability of a line's characters below which it is scenery, not text; see `places`
    lonely          the same for a line of one or two characters
    at_home         the same for a line that stands where others of the clip stand
    temperature     softens the networks' class probabilities
    character_slope, character_offset, cue_slope, cue_offset  how the search's posteriors become confidences; see `confidence`
    language_models, merged_frames  switches for the ablation table: without, characters are judged by sight alone, and
                    lines are read from the middle frame of a cue
    """

    least_evidence: float = 0.5
    lonely: float = 0.7
    at_home: float = 0.3
    temperature: float = 1.0
    character_slope: float = 1.0
    character_offset: float = 0.0
    cue_slope: float = 1.0
    cue_offset: float = 0.0
    search: SearchWeights = field(default_factory=SearchWeights)
    language_models: bool = True
    merged_frames: bool = True


def read(
    path: str | os.PathLike[str],
    *,
    language: str = "auto",
    region: Box | None = None,
    pictures: bool = False,
    progress: Callable[[float], None] | None = None,
    threads: int | None = None,
    recogniser: Recogniser | None = None,
    settings: Settings | None = None,
) -> list[Cue]:
    """The subtitles of a video, in order of time.

    language  "auto", or one of "zh-hans", "zh-hant", "ja", "ko"; output never holds a character the script lacks
    region    (left, top, right, bottom) in px of the upright frame, outside of which nothing is looked at; it may reach
              over the edges
    pictures  keep a PNG of each cue's merged frames (for the review page)
    progress  called with the share of the video that is done, in [0, 1]
    threads   for decoding; None: one per processor, at most 8
    recogniser, settings  others than the published ones, for experiments

    Raises `InputError` when the file is no readable video, `UsageError` for a region outside of its picture or too
    small for text. Warns (`InputWarning`) when only a part of it could be read.
    """
    if language not in ("auto", *LANGUAGES):
        raise UsageError(f"language is {language!r}; it must be auto or one of {', '.join(LANGUAGES)}.")
    recogniser = recogniser or default_recogniser()
    settings = settings or default_settings()
    with open_video(path, threads=threads) as video:
        region = _looked_at(region, video)
        texts = _Texts(recogniser, settings, None if language == "auto" else language)
        with Looking(recogniser, texts.add, pictures) as looking:
            detector = Detector(region, merged=settings.merged_frames)
            for frame in _watched(video, progress):
                looking.at(detector.add(frame))
            looking.at(detector.finish())
        for sentence in video.warnings:
            warnings.warn(sentence, InputWarning, stacklevel=2)
    return choose(texts.finish(), settings)


def _looked_at(region: Box | None, video: Video) -> Box | None:
    """The region within the picture."""
    size = f"{video.width} x {video.height} px"
    if min(video.width, video.height) < LEAST_PX:
        raise InputError(f"{video.path}: its picture of {size} is too small for text.")
    if region is None:
        return None
    left, top, right, bottom = (round(edge) for edge in region)
    shown = f"{video.path}: the region {left},{top},{right},{bottom}"
    if left >= video.width or top >= video.height or right <= 0 or bottom <= 0:
        raise UsageError(f"{shown} lies outside of the picture, which is {size}.")
    left, top, right, bottom = max(0, left), max(0, top), min(right, video.width), min(bottom, video.height)
    if min(right - left, bottom - top) < LEAST_PX:
        raise UsageError(f"{shown} is too small for text: give {LEAST_PX} px of the picture and more.")
    return left, top, right, bottom


class Looking:
    """Looks at candidates in a thread of its own, for the networks take about as long as all else but decoding, and hands the
    results on in this one, in order. A context manager: it ends when all is looked at, or at once when something fails."""

    def __init__(self, recogniser: Recogniser, take: Callable[[SeenCue], None], pictures: bool) -> None:
        self._recogniser, self._take, self._pictures = recogniser, take, pictures
        self._sizes = Sizes(recogniser)
        self._known: Sequence[float] = ()
        self._worker = ThreadPoolExecutor(1, "tamis-look")
        self._waiting: deque[Future[SeenCue | None]] = deque()
        # Those that showed little before any size was known: they are looked at again when one is.
        self._again: deque[Candidate] = deque(maxlen=MOST_AGAIN)

    def __enter__(self) -> Looking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and (self._waiting or self._look_again()):
                self._next()
        finally:
            self._worker.shutdown(cancel_futures=True)

    def at(self, candidates: Sequence[Candidate]) -> None:
        """Takes candidates that were found at once."""
        for number, candidate in enumerate(candidates):
            self._waiting.append(self._worker.submit(self._look, candidate, number == 0))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > MOST_WAITING):
            self._next()

    def _next(self) -> None:
        seen = self._waiting.popleft().result()
        if seen is not None:
            self._take(seen)

    def _look(self, candidate: Candidate, first: bool) -> SeenCue | None:
        """In the worker. All that were found at once are cut out by what was known before, as in `detect`."""
        if first:
            self._known = self._sizes.known()
        seen = look(
            candidate.image(self._known), self._recogniser, sizes=self._sizes, pictures=self._pictures
        )
        if not self._known and not _clear(seen):
            self._again.append(candidate)
        return seen

    def _look_again(self) -> bool:
        """In the end, when nothing waits: whether there is something to be looked at again."""
        self._known = self._sizes.known()
        again = list(self._again) if self._known else []
        self._again.clear()
        self._waiting.extend(self._worker.submit(self._look_once_more, candidate) for candidate in again)
        return bool(again)

    def _look_once_more(self, candidate: Candidate) -> SeenCue | None:
        """In the worker. What shows no text now, either, was handed on before."""
        seen = self._look(candidate, False)
        return seen if _clear(seen) else None


def _clear(seen: SeenCue | None) -> bool:
    """Whether a line is surely text."""
    return seen is not None and any(decided(line.sighting) >= CLEARLY for line in seen.lines)


class _Texts:
    """Reads what was looked at as soon as its language is known: from the film's first characters, where it was not told.

    A guess from fewer is made sooner, so that short films need not wait for it at their end; when it proves wrong, what was
    read is read again. In the end the whole film is asked: many begin with a song in another language.
    """

    def __init__(self, recogniser: Recogniser, settings: Settings, language: str | None) -> None:
        self._recogniser, self._settings = recogniser, settings
        self._language, self._auto, self._told = language, language is None, language is not None
        self._seen: list[SeenCue] = []
        self._read: list[ReadCue] = []
        self._characters = 0.0
        self._ask_at: float = FIRST_GUESS

    def add(self, cue: SeenCue) -> None:
        self._seen.append(cue)
        self._characters += sum(characters(line.sighting) for line in cue.lines)
        if not self._told and self._characters >= self._ask_at:
            self._told = self._ask_at > FIRST_GUESS
            self._ask_at = FINAL_GUESS
            self._find()
        waiting = self._seen[len(self._read) :]
        if (
            self._language
            and sum(len(line.sighting.mass) for cue in waiting for line in cue.lines) >= AT_ONCE
        ):
            self._recognise()

    def finish(self) -> list[ReadCue]:
        """All that was read, in order of time."""
        if self._auto:
            self._find()
        self._recognise()
        return sorted(self._read, key=lambda cue: (cue.start, cue.end))

    def _find(self) -> None:
        language = find_language(_spread(self._seen), self._recogniser)
        if language != self._language:
            self._language, self._read = language, []

    def _recognise(self) -> None:
        assert self._language is not None
        waiting = self._seen[len(self._read) :]
        self._read += recognise(waiting, self._language, self._recogniser, self._settings)


def _spread(seen: Sequence[SeenCue]) -> list[SeenCue]:
    """In an order of which every beginning is spread over all of their time."""
    in_time = sorted(seen, key=lambda cue: (cue.start, cue.end))
    # Multiples of an irrational number: those whose fraction is small come at nearly equal distances.
    return [in_time[i] for i in sorted(range(len(in_time)), key=lambda i: i * GOLDEN % 1)]


@cache
def default_settings() -> Settings:
    """The operating point published with the weights."""
    return operating_point(Settings)


def _watched(video: Video, progress: Callable[[float], None] | None) -> Iterator[Frame]:
    for frame in video.frames():
        if progress is not None and video.duration and frame.index % 32 == 0:
            progress(min(1.0, float(frame.time / video.duration)))
        yield frame


def look(
    image: CueImage, recogniser: Recogniser, *, sizes: Sizes | None = None, pictures: bool = False
) -> SeenCue | None:
    """Run the networks over a candidate cue's lines; None when none of them looks like text at all.

    sizes: what the clip's cues before tell of the size of its letters.
    """
    looked = arrange(image.lines, image.others, recogniser, sizes)
    lines = tuple(SeenLine(line.sighting, line.image.box, line.image.scw) for line in looked)
    if not lines:
        return None
    picture = png(image.picture) if pictures else b""
    return SeenCue(image.start, image.end, lines, picture, image.width)


def find_language(seen: Sequence[SeenCue], recogniser: Recogniser, enough: int = 100) -> str:
    """The language of a video from the first `enough` characters of these cues, read without any model of language.

    The commoner characters of all scripts tell as a rule, at a third of the cost of all.
    """
    for allowed in (scripts.common(), None):
        lattices: list[Lattice] = []
        characters = 0
        for lattice in recogniser.lattices(
            (line.sighting for cue in seen for line in cue.lines), allowed=allowed
        ):
            there = lattice.log_centre > np.log(0.5)
            sure = there & (lattice.log_class[:, 0] > np.log(0.5))
            if (
                np.count_nonzero(sure) >= 0.6 * np.count_nonzero(there) > 0
            ):  # scenery is seldom sure of itself
                lattices.append(lattice)
                characters += int(np.count_nonzero(sure))
            if characters >= enough:
                break
        language, posterior = scripts.detect_language(lattices)
        if posterior >= SURE_LANGUAGE:
            break
    return language


def recognise(
    seen: Sequence[SeenCue], language: str, recogniser: Recogniser, settings: Settings
) -> list[ReadCue]:
    """The text of candidate cues, whatever they show. Cheaper for many at once than for one after the other."""
    sightings = (line.sighting for cue in seen for line in cue.lines)
    lattices = recogniser.lattices(
        sightings, allowed=scripts.allowed(language), temperature=settings.temperature
    )
    return [_recognise(cue, lattices, language, settings) for cue in seen]


def _recognise(cue: SeenCue, lattices: Iterator[Lattice], language: str, settings: Settings) -> ReadCue:
    """One cue, whose lines' lattices come next."""
    model: LanguageModel | None = language_model(language) if settings.language_models else None
    lines = []
    for line in cue.lines:
        lattice = next(lattices)
        reading = decode(lattice, model, weights=settings.search)
        reading = without_scenery(lattice, reading)
        if all(character.text.isspace() for character in reading.characters):
            continue
        spelt = replace(reading, characters=punctuation.restore(reading.characters, language))
        calibrated = _calibrated(spelt, settings)
        calibrated = replace(calibrated, characters=punctuation.without_doubtful_ends(calibrated.characters))
        shown = to_line(line, lattice, calibrated)
        text = "".join(shown.text.split())
        centred, sure = evidence(lattice, reading)
        standing = Standing(
            text, cue.start, cue.end, shown.box, line.scw, centred, sure, decided(line.sighting)
        )
        lines.append(ReadLine(shown, standing, reading.log_probability))
    return ReadCue(cue.start, cue.end, tuple(lines), cue.picture, cue.width)


def _calibrated(reading: Reading, settings: Settings) -> Reading:
    """The reading with confidences for posteriors."""
    right = Calibration(settings.character_slope, settings.character_offset)
    confidences = right([character.confidence for character in reading.characters]).tolist()
    characters = zip(reading.characters, confidences, strict=True)
    return replace(reading, characters=tuple(replace(c, confidence=p) for c, p in characters))


def choose(candidates: Sequence[ReadCue], settings: Settings) -> list[Cue]:
    """The cues among the candidates, in order of time: without scenery, logos, fragments; torn ones joined."""
    lines = [line.standing for cue in candidates for line in cue.lines]
    places = Places(lines, max((cue.width for cue in candidates), default=1))
    least = Thresholds(settings.least_evidence, settings.lonely, settings.at_home)
    cues = []
    for cue in candidates:
        are_text = places.are_subtitles([line.standing for line in cue.lines], least)
        kept = [line for line, is_text in zip(cue.lines, are_text, strict=True) if is_text]
        if kept:
            posterior = float(np.exp(sum(line.log_probability for line in kept)))
            confidence = float(Calibration(settings.cue_slope, settings.cue_offset)(posterior))
            cues.append(Cue(cue.start, cue.end, tuple(line.line for line in kept), confidence, cue.picture))
    return whole(cues)


def without_scenery(lattice: Lattice, reading: Reading) -> Reading:
    """The reading without what scenery at the line's ends was read as; see `places.body`."""
    characters = [c for c in reading.characters if c.candidates and not c.text.isspace()]
    chosen = [list(c.candidates) for c in characters]
    part = body(
        [c.text for c in characters],
        [float(np.mean(lattice.position[i])) for i in chosen],
        [float(np.mean(np.exp(lattice.log_centre[i]))) for i in chosen],
        [float(np.mean(np.exp(lattice.log_centre[i] + lattice.log_class[i, 0]))) for i in chosen],
    )
    if part == slice(0, len(characters)):
        return reading
    kept = characters[part]
    first, last = reading.characters.index(kept[0]), reading.characters.index(kept[-1])
    return replace(reading, characters=reading.characters[first : last + 1])


def evidence(lattice: Lattice, reading: Reading) -> tuple[float, float]:
    """Mean probability, by sight alone, that characters are centred where they were read, and that they are the ones read."""
    chosen = [i for character in reading.characters for i in character.candidates]
    if not chosen:
        return 0.0, 0.0
    centre, best = lattice.log_centre[chosen], lattice.log_class[chosen, 0]
    return float(np.mean(np.exp(centre))), float(np.mean(np.exp(centre + best)))


def to_line(line: SeenLine, lattice: Lattice, reading: Reading) -> Line:
    """Put the characters back into the frame; one character is at most one SCW wide."""
    left, top, _, bottom = line.box
    centres = [
        float(np.mean(lattice.position[list(c.candidates)])) if c.candidates else None
        for c in reading.characters
    ]
    known = [c for c in centres if c is not None]
    characters = []
    before = known[0] if known else 0.0
    for character, centre in zip(reading.characters, centres, strict=True):
        middle = before + 0.5 if centre is None else centre  # a space follows what stands before it
        before = middle
        others = [abs(middle - other) for other in known if abs(middle - other) > 1e-3]
        half = 0.5 * min([1.0, *others]) * line.scw
        x = left + middle * line.scw
        box = (round(x - half), top, round(x + half), bottom)
        characters.append(Character(character.text, character.confidence, box))
    inked = [c.box for c in characters if not c.text.isspace()]
    box = (min(b[0] for b in inked), top, max(b[2] for b in inked), bottom)
    return Line(tuple(characters), box)
