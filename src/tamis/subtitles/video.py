"""Frames of a video file: brightness and exact presentation time, in constant memory.

    with open_video("film.mkv") as video:
        for frame in video.frames():
            frame.index, frame.time, frame.luma

Decoding is libavcodec's, through PyAV. What a player does to show a file is done here once, so that the rest of
the reader sees one kind of picture: upright, progressive, square pixels, 8 bits, constant size, times from zero.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from tamis.errors import InputError
from tamis.subtitles import raster
from tamis.subtitles.container import Container, Picture
from tamis.subtitles.luma import Luma, luma_plane
from tamis.subtitles.timestamps import Timeline

# Pixels nearer to square than this are left alone: a stretch would blur strokes to no use.
SQUARE_TOLERANCE = 0.03
# Sample aspect ratios beyond this are damage, not anamorphic film.
STRANGEST_ASPECT = 4
# A file is reported as cut off when its pictures end this much before the length its header states: seconds
# where the header speaks of the pictures, and where it speaks of the whole file, whose sound often runs on.
MISSING_S, SILENT_TAIL_S = Fraction(1, 2), Fraction(5)


@dataclass(frozen=True, slots=True)
class Frame:
    """One shown picture.

    index     0, 1, 2 ... in order of presentation
    time      seconds from the moment a player calls zero; strictly increasing
    duration  seconds until the next frame (of the last one: as the file says)
    luma      [height, width] uint8, read-only, rows may be padded (strides). Usually a view of the decoder's
              memory, valid as long as it is referenced; copy what is kept long, for a view holds a whole frame.
    """

    index: int
    time: Fraction
    duration: Fraction
    luma: Luma


def open_video(path: str | os.PathLike[str], *, threads: int | None = None) -> Video:
    """Opens the main video stream of a file and decodes its first frame.

    threads: decoding threads; None = one per processor, at most 8.
    Raises `InputError` when there is no such file, it is no video, or not one frame of it can be decoded.
    Only local files are opened, whatever the name looks like; playlists cannot make it fetch anything.
    """
    return Video(Path(path), threads)


class Video:
    """A video file open for reading. Made by `open_video`; use it as a context manager.

    width, height  of the upright frame with square pixels: the size of every `Frame.luma`
    rate           frames per second, a hint (None: unknown); times never come from it
    duration       seconds, a hint from the header (None: unknown)
    rotation       degrees clockwise by which stored frames are turned: 0, 90, 180 or 270
    sample_aspect  width / height of a stored pixel; frames are resized in width where it is not about 1
    warnings       sentences on what was damaged, complete when `frames()` has ended
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        self.path = path
        self.name = path.name
        self.warnings: list[str] = []
        self._threads = threads
        self._closed = False
        self._container, self._pictures = self._start()
        first = next(self._pictures, None)
        if first is None:
            self.close()
            raise InputError(
                f"{path} holds video, but not one frame can be decoded: it is damaged or encrypted."
            )
        self._pictures = chain([first], self._pictures)
        self._begun = False
        self.rate = self._container.rate
        self.duration = self._container.stated_duration or self._container.file_duration
        self.rotation = round(-first[0].rotation / 90) * 90 % 360  # libav counts counterclockwise
        self.sample_aspect = _sane_aspect(self._container.stream.sample_aspect_ratio)
        self._stored_size = first[0].width, first[0].height
        self._square_size = _square_size(self._stored_size, self.sample_aspect)
        self.width, self.height = self._square_size if self.rotation % 180 == 0 else self._square_size[::-1]

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Frames handed out before stay valid."""
        self._closed = True
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """All frames in order of presentation. A second call starts again from the beginning.

        Zero is where players start: after edit lists, at the earliest of picture and sound. Frames that an edit
        list hides are not given. Damaged parts are skipped, and told in `warnings`.
        """
        if self._closed:
            raise ValueError(f"{self.name} is closed")
        if self._begun:
            self._container.close()
            self._container, self._pictures = self._start()
        self._begun = True
        self.warnings.clear()
        timeline = self._timeline()
        time = duration = Fraction(0)
        for index, (picture, time, duration) in enumerate(_timed(self._pictures, timeline)):
            yield Frame(index, time, duration, self._upright(picture))
        self._report_damage(timeline, time + duration)

    def _start(self) -> tuple[Container, Iterator[Picture]]:
        container = Container(self.path, self._threads)
        return container, container.pictures()

    def _timeline(self) -> Timeline[av.VideoFrame]:
        container = self._container
        step = 1 / ((container.rate or 25) * container.time_base)  # ticks; for files without any time stamps
        return Timeline(container.time_base, container.origin, step)

    def _upright(self, picture: av.VideoFrame) -> Luma:
        luma = luma_plane(picture)
        if luma.shape[::-1] != self._square_size:
            luma = self._resized(luma)
        return np.ascontiguousarray(np.rot90(luma, -self.rotation // 90)) if self.rotation else luma

    def _resized(self, luma: Luma) -> Luma:
        stored = luma.shape[::-1]
        if stored != self._stored_size:
            self._warn(
                f"The picture size changes within the file; all is read at {self.width} x {self.height}."
            )
        smaller = all(now >= new for now, new in zip(stored, self._square_size, strict=True))
        return (raster.shrink if smaller else raster.stretch)(luma, self._square_size)

    def _report_damage(self, timeline: Timeline[av.VideoFrame], end: Fraction) -> None:
        tolerance = MISSING_S if self._container.stated_duration else SILENT_TAIL_S
        if self.duration and self.duration - end > tolerance:
            self._warn(
                f"The pictures end at {_clock(end)}, but the header states a length of {_clock(self.duration)}: "
                "the file was probably cut off. What is there was read."
            )
        elif self._container.broken:
            self._warn(f"The file breaks off or is damaged at {_clock(end)}. What comes before was read.")
        if self._container.skipped:
            self._warn(
                f"Damaged video could not be decoded in {self._container.skipped} place(s), which are left out."
            )
        if timeline.unstamped == timeline.frames:
            self._warn(
                f"The file has no time stamps; {float(self.rate or 25):g} frames per second are assumed."
            )
        elif timeline.repaired:
            self._warn(
                f"{timeline.repaired} frames had no usable time stamp and got one from their neighbours."
            )
        for restart in timeline.restarts:
            self._warn(f"The file's clock restarts at {_clock(restart)}; times continue from there.")

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _timed(
    pictures: Iterator[Picture], timeline: Timeline[av.VideoFrame]
) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
    for picture, stamp, duration in pictures:
        yield from timeline.push(picture, stamp, duration)
    yield from timeline.flush()


def _sane_aspect(ratio: Fraction | None) -> Fraction:
    if not ratio or not 1 / Fraction(STRANGEST_ASPECT) <= ratio <= STRANGEST_ASPECT:
        return Fraction(1)
    return ratio


def _square_size(stored: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Width and height with square pixels. The height stays, for players stretch sideways too."""
    width, height = stored
    return stored if abs(aspect - 1) <= SQUARE_TOLERANCE else (max(1, round(width * aspect)), height)


def _clock(seconds: Fraction) -> str:
    minutes, rest = divmod(float(seconds), 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{rest:04.1f}"
