"""From a file to its decoded frames: opening, choosing the stream, decoding on over damage, deinterlacing.

Here are the oddities of files and of libav; `video.py` gives them the shape the reader works with.
"""

from __future__ import annotations

import re
import stat
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.filter import Graph
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from tamis.errors import InputError
from tamis.processors import processors

# More threads only add frames in flight, that is memory.
MOST_THREADS = 8
# 8192 x 5120. A damaged header must not make the decoder ask for gigabytes.
MOST_PIXELS = 8192 * 5120

# A decoded frame, its stamp and its duration in ticks of the stream (None, 0: the file does not say).
Picture = tuple[av.VideoFrame, int | None, int]

_PICTURE_STREAMS = Disposition.attached_pic | Disposition.timed_thumbnails  # cover art
_WANTED = "expected a video such as .mp4, .mkv, .avi or .ts"


class Container:
    """An open file and its main video stream.

    skipped  packets that could not be decoded so far
    broken   the file ends, or cannot be read on, before its regular end
    """

    def __init__(self, path: Path, threads: int | None) -> None:
        self.skipped = 0
        self._file = _open(path)
        self.broken = _riff_is_cut_off(path) or _transport_stream_is_cut_off(path)
        try:
            self.stream = _main_stream(self._file, path)
        except InputError:
            self.close()
            raise
        context = self.stream.codec_context
        context.thread_type = ThreadType.AUTO
        context.thread_count = threads or min(processors(), MOST_THREADS)
        # Frames that no other is predicted from go without smoothing between blocks: a twelfth of decoding H.264, and on
        # development clips not one character or time changed.
        context.options = {"max_pixels": str(MOST_PIXELS), "skip_loop_filter": "noref"}
        for other in self._file.streams:
            if other is not self.stream:
                other.discard = Discard.all  # demuxers then need not read sound at all

    def close(self) -> None:
        self._file.close()

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return self.stream.time_base or Fraction(1, 1000)

    @property
    def origin(self) -> Fraction:
        """The file's clock, in seconds, when a player calls zero: the earliest start of picture and sound.

        Sound that starts below zero is the encoder's run-in, which players do not play.
        """
        starts = []
        for stream in self._file.streams:
            if stream.start_time is not None and stream.time_base:
                start = stream.start_time * stream.time_base
                if stream is self.stream:
                    starts.append(start)
                elif stream.type == "audio":
                    starts.append(max(start, Fraction(0)))
        return min(starts, default=Fraction(0))

    @property
    def rate(self) -> Fraction | None:
        """Frames per second as the header has it; None when it does not say or talks nonsense."""
        for rate in (self.stream.average_rate, self.stream.guessed_rate):
            if rate and 0 < rate <= 1000:
                return rate
        return None

    @property
    def stated_duration(self) -> Fraction | None:
        """Length of the pictures in seconds as the header has it; None when it is silent about them."""
        stream = self.stream
        if stream.duration and stream.time_base:
            return stream.duration * stream.time_base
        tag = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))  # Matroska
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + Fraction(tag[3]) if tag else None

    @property
    def file_duration(self) -> Fraction | None:
        """Length of the longest stream in seconds, which may be sound, as the header has it."""
        return Fraction(self._file.duration, 1_000_000) if self._file.duration else None

    def pictures(self) -> Iterator[Picture]:
        """Progressive frames in order of presentation. Undecodable parts are left out and counted."""
        decoded = self._decoded()
        for picture in decoded:
            if picture[0].interlaced_frame:
                yield from _deinterlaced(picture, decoded, self.stream)
                return
            yield picture

    def _decoded(self) -> Iterator[Picture]:
        # AVI knows no presentation times, only the place of each packet: the n-th frame shown is due when the
        # n-th packet is. (libav's stamps for it are off by the reordering delay.)
        last_is_whole = True
        in_order: deque[int | None] | None = deque() if self._file.format.name == "avi" else None
        for packet in self._packets():
            if in_order is not None and packet.size:
                in_order.append(packet.dts)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.skipped += 1
                if in_order:
                    in_order.pop()
                continue
            for frame in frames:
                last_is_whole = not frame.is_corrupt
                yield frame, in_order.popleft() if in_order else frame.pts, frame.duration
        self.broken |= not last_is_whole  # a stream without a stated length that was cut amid a picture

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        """All packets and then an empty one, which asks the decoder for the frames it still holds."""
        packets = self._file.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except av.FFmpegError:
                self.broken = True
                packet = cast("av.Packet[VideoStream]", av.Packet())
                packet.stream = self.stream
            yield packet
            if packet.size == 0 and packet.dts is None:
                return


def _open(path: Path) -> InputContainer:
    _check_file(path)
    try:
        # "file:" keeps names such as "act 1: dawn.mp4" from being taken for addresses, and the whitelist
        # keeps playlists in disguise from opening any.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file", "max_pixels": str(MOST_PIXELS)})
    except (av.FFmpegError, UnicodeError) as error:
        raise InputError(f"{path} {_why_unreadable(path)}") from error


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return "is an MP4 file whose index is missing, as when it was cut off: copy or record it again."
    return f"is not a video that libav can read; {_WANTED}."


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {_WANTED}.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; {_WANTED}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; {_WANTED}.")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); {_WANTED}.")


def _riff_is_cut_off(path: Path) -> bool:
    """Whether an AVI file is shorter than it says; libav then quietly corrects the length it reports."""
    with path.open("rb") as file:
        head = file.read(12)
    stated = int.from_bytes(head[4:8], "little") + 8
    return head[:4] == b"RIFF" and head[8:] == b"AVI " and path.stat().st_size < stated


def _transport_stream_is_cut_off(path: Path) -> bool:
    """Whether an MPEG transport stream ends amid a packet; it states no length, and libav drops the rest quietly."""
    with path.open("rb") as file:
        head = file.read(3 * 208)
    for packet, sync in (
        (188, 0),
        (192, 4),
        (204, 0),
    ):  # plain; with time code, as cameras record; with checksums
        if len(head) >= 3 * packet and all(head[sync + i * packet] == 0x47 for i in range(3)):
            return path.stat().st_size % packet != 0
    return False


def _main_stream(file: InputContainer, path: Path) -> VideoStream:
    """The stream a player would show. Cover art is no video."""
    videos = [stream for stream in file.streams.video if not stream.disposition & _PICTURE_STREAMS]
    if not videos:
        kinds = {"a cover picture" if stream.type == "video" else stream.type for stream in file.streams}
        found = " and ".join(sorted(kinds, reverse=True)) or "nothing"
        raise InputError(f"{path} holds no moving pictures, only {found}; {_WANTED}.")
    best = file.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise InputError(f"{path} holds video that libav has no decoder for; convert it to H.264 first.")
    return stream


def _deinterlaced(first: Picture, rest: Iterator[Picture], stream: VideoStream) -> Iterator[Picture]:
    """Frames woven from two fields, made whole.

    yadif keeps what stands still, such as subtitles, at full height, and rebuilds from one field only what moves,
    so that movement leaves no comb whose teeth look like strokes. One frame comes out for each that goes in,
    frames that are not marked as interlaced pass unchanged, and only luma is filtered.
    """
    waiting: deque[tuple[int | None, int]] = deque()
    graph, size = _yadif(first[0], stream), (first[0].width, first[0].height, first[0].format.name)
    for frame, stamp, duration in _chain(first, rest):
        now = frame.width, frame.height, frame.format.name
        if now != size:  # a recording that changes format in the middle
            yield from _drain(graph, waiting, end=True)
            graph, size = _yadif(frame, stream), now
        waiting.append((stamp, duration))
        graph.vpush(frame)
        yield from _drain(graph, waiting, end=False)
    yield from _drain(graph, waiting, end=True)


def _chain(first: Picture, rest: Iterator[Picture]) -> Iterator[Picture]:
    yield first
    yield from rest


def _yadif(frame: av.VideoFrame, stream: VideoStream) -> Graph:
    graph = Graph()
    ticks = stream.time_base or Fraction(1, 1000)
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=ticks),
        graph.add("extractplanes", "y"),
        graph.add("yadif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _drain(graph: Graph, waiting: deque[tuple[int | None, int]], end: bool) -> Iterator[Picture]:
    if end:
        graph.vpush(None)
    while waiting:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame, *waiting.popleft()
