"""Files as cameras, recorders and accidents make them; frames as a player shows them.

pytest tests/subtitles/test_video.py
"""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from films import film, number, numbered

from tamis.errors import InputError
from tamis.subtitles.video import open_video

TICKS_25 = Fraction(1, 25)


def read(path, **options):
    with open_video(path, **options) as video:
        return [(f.index, f.time, f.duration, f.luma) for f in video.frames()], video


def times_of(path):
    return [time for _, time, _, _ in read(path)[0]]


def numbers_of(path):
    return [number(luma) for *_, luma in read(path)[0]]


def remuxed(source, target, keep=lambda packet: True, shift=lambda stamp: stamp, **options):
    """The same packets in another file, some left out, their stamps moved."""
    with av.open(str(source)) as old, av.open(str(target), "w", **options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is None or not keep(packet):
                continue
            packet.pts, packet.dts = shift(packet.pts), shift(packet.dts)
            packet.stream = stream
            new.mux(packet)
    return target


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "avi", "flv"])
def test_constant_rate(tmp_path, ending):
    path = film(tmp_path / f"film.{ending}", range(30), time_base=TICKS_25, codec_options={"bf": "2"})
    frames, video = read(path)
    start = frames[0][1]
    assert [time - start for _, time, _, _ in frames] == [n * TICKS_25 for n in range(30)]
    assert {duration for _, _, duration, _ in frames} == {TICKS_25}
    assert [index for index, *_ in frames] == [number(luma) for *_, luma in frames] == list(range(30))
    assert (video.width, video.height, video.rotation, video.name) == (96, 64, 0, f"film.{ending}")
    assert video.warnings == []


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)])
def test_broadcast_rates_do_not_drift(tmp_path, rate):
    path = film(tmp_path / "film.mp4", range(50), time_base=1 / rate)
    assert times_of(path) == [n / rate for n in range(50)]


def test_variable_rate_is_exact(tmp_path):
    stamps = [0, 33, 50, 51, 400, 1400, 1401, 13_000, 13_040]
    path = film(tmp_path / "phone.mkv", stamps)
    frames, _ = read(path)
    assert [time * 1000 for _, time, _, _ in frames] == stamps
    assert [duration * 1000 for _, _, duration, _ in frames][:-1] == np.diff(stamps).tolist()
    assert numbers_of(path) == list(range(len(stamps)))


def test_last_frame_lasts_as_the_file_says(tmp_path):
    path = film(tmp_path / "film.mp4", [0, 40, 80, 120])
    frames, video = read(path)
    assert frames[-1][1] + frames[-1][2] == video.duration


def test_pictures_that_start_after_the_sound_keep_their_delay(tmp_path):
    path = film(tmp_path / "late.mkv", [500, 540, 580], sound_s=1)
    assert times_of(path)[0] == Fraction(1, 2)


def test_broadcast_clock_starts_at_zero(tmp_path):
    path = film(tmp_path / "film.ts", range(90_000, 198_000, 3600), time_base=Fraction(1, 90_000))
    assert times_of(path) == [n * TICKS_25 for n in range(30)]


def test_frames_hidden_by_an_edit_list_are_not_given(tmp_path):
    whole = film(tmp_path / "whole.mp4", range(20), time_base=TICKS_25, codec_options={"bf": "2", "g": "20"})
    cut = remuxed(whole, tmp_path / "cut.mp4", shift=lambda stamp: stamp - 6 * 512)
    with av.open(str(cut)) as container:
        assert container.streams.video[0].start_time == 0
    assert numbers_of(cut) == list(range(6, 20))
    assert times_of(cut) == [n * TICKS_25 for n in range(14)]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    turns = rotation // 90
    upright = [numbered(n, *((64, 96) if turns % 2 else (96, 64))) for n in range(5)]
    stored = [np.ascontiguousarray(np.rot90(picture, turns)) for picture in upright]  # counterclockwise
    path = film(tmp_path / "phone.mp4", range(5), time_base=TICKS_25, rotation=rotation, pictures=stored)
    frames, video = read(path)
    assert video.rotation == rotation
    assert (video.height, video.width) == upright[0].shape
    assert [number(luma) for *_, luma in frames] == list(range(5))


@pytest.mark.parametrize(("codec", "pixels"), [("libx264", "yuv420p10le"), ("libx265", "yuv420p10le")])
def test_ten_bits(tmp_path, codec, pixels):
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = film(
        tmp_path / "film.mkv", range(8), time_base=TICKS_25, codec=codec, pixels=pixels, codec_options=quiet
    )
    assert numbers_of(path) == list(range(8))
    assert read(path)[0][0][3].dtype == np.uint8


@pytest.mark.parametrize(
    ("codec", "pixels"), [("ffv1", "bgr0"), ("ffv1", "yuv444p"), ("gif", "gray"), ("mjpeg", "yuvj420p")]
)
def test_other_pixels(tmp_path, codec, pixels):
    ending = "gif" if codec == "gif" else "mkv"
    path = film(
        tmp_path / f"film.{ending}", range(0, 40, 4), time_base=Fraction(1, 100), codec=codec, pixels=pixels
    )
    assert numbers_of(path) == list(range(10))


def test_odd_size(tmp_path):
    path = film(tmp_path / "odd.mkv", range(6), time_base=TICKS_25, size=(107, 61), pixels="yuv444p")
    frames, video = read(path)
    assert (video.width, video.height) == (107, 61)
    assert all(luma.shape == (61, 107) for *_, luma in frames)
    assert [number(luma) for *_, luma in frames] == list(range(6))


def test_anamorphic_pixels_become_square(tmp_path):
    path = film(
        tmp_path / "dvd.mkv", range(6), time_base=TICKS_25, size=(90, 64), sample_aspect=Fraction(64, 45)
    )
    frames, video = read(path)
    assert (video.width, video.height) == (128, 64)
    assert video.sample_aspect == Fraction(64, 45)
    assert frames[0][3].shape == (64, 128)


def test_nearly_square_pixels_are_left_alone(tmp_path):
    path = film(tmp_path / "film.mkv", range(3), time_base=TICKS_25, sample_aspect=Fraction(96, 95))
    assert read(path)[1].width == 96


def test_interlaced_video_loses_its_comb_and_no_frame(tmp_path):
    def woven(n):  # a bar that moves by 6 px per field, on text that stands still
        picture = np.full((64, 96), DARK, np.uint8)
        picture[40:43, 10:80] = BRIGHT
        for row in range(36):
            picture[row, 6 * (2 * n + row % 2) :][:20] = BRIGHT
        return picture

    DARK, BRIGHT = 40, 200
    interlaced = {"flags": "+ildct+ilme", "x264-params": "tff=1:qp=1"}
    path = film(
        tmp_path / "tv.mkv",
        range(8),
        time_base=TICKS_25,
        pictures=[woven(n) for n in range(8)],
        codec_options=interlaced,
    )
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames, _ = read(path)
    assert [time for _, time, _, _ in frames] == [n * TICKS_25 for n in range(8)]
    comb = [np.abs(np.diff(luma[4:32].astype(int), axis=0)).mean() for *_, luma in frames]
    woven_comb = np.abs(np.diff(woven(4)[4:32].astype(int), axis=0)).mean()
    assert max(comb[1:-1]) < 0.5 * woven_comb
    still = frames[4][3][38:46, 20:70].astype(int).mean(axis=1)
    assert still[0] < 80 and still[2:5].min() > 150 and still[-1] < 80  # three rows high, as it was drawn


def test_a_second_reading_is_the_same(tmp_path):
    path = film(tmp_path / "film.mp4", range(12), time_base=TICKS_25)
    with open_video(path, threads=1) as video:
        first = [(f.time, number(f.luma)) for f in video.frames()]
        second = [(f.time, number(f.luma)) for f in video.frames()]
    assert first == second and len(first) == 12


def test_reading_may_stop_anywhere(tmp_path):
    path = film(tmp_path / "film.mp4", range(12), time_base=TICKS_25)
    with open_video(path) as video:
        kept = [frame for frame, _ in zip(video.frames(), range(5), strict=False)]
        assert len(list(video.frames())) == 12
    assert [number(frame.luma) for frame in kept] == list(range(5))  # valid after closing
    with pytest.raises(ValueError, match="closed"):
        next(video.frames())


def test_a_name_like_an_address_is_a_file(tmp_path):
    path = film(tmp_path / "act 1: 夜, 100% done?.mp4", range(3), time_base=TICKS_25)
    assert len(times_of(path)) == 3


def test_pictures_that_change_size_are_brought_to_the_first(tmp_path):
    small = film(tmp_path / "small.ts", range(20), time_base=TICKS_25)
    large = film(tmp_path / "large.ts", range(20, 40), time_base=TICKS_25, size=(192, 128))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, video = read(both)
    assert {luma.shape for *_, luma in frames} == {(64, 96)}
    assert len(frames) == 40
    assert any("picture size changes" in sentence for sentence in video.warnings)


def test_glued_recordings_run_on(tmp_path):
    part = film(tmp_path / "part.ts", range(30), time_base=TICKS_25)
    both = tmp_path / "both.ts"
    both.write_bytes(part.read_bytes() * 2)
    frames, video = read(both)
    assert [time for _, time, _, _ in frames] == [n * TICKS_25 for n in range(60)]
    assert any("clock restarts" in sentence for sentence in video.warnings)


def test_no_time_stamps_at_all(tmp_path):
    raw = film(tmp_path / "film.h264", range(20), time_base=TICKS_25)
    frames, video = read(raw)
    assert [time for _, time, _, _ in frames] == [n * TICKS_25 for n in range(20)]
    assert video.warnings == ["The file has no time stamps; 25 frames per second are assumed."]


def noise(path, count, **options):
    """A film whose frames do not compress, so that half of the bytes are about half of the frames."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (64, 96), dtype=np.uint8) for _ in range(count)]
    return film(path, range(count), time_base=TICKS_25, pictures=pictures, **options)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "ts"])
def test_what_is_left_of_a_cut_file_is_read_and_the_rest_is_said(tmp_path, ending):
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    whole = noise(tmp_path / f"whole.{ending}", 80, container_options=options)
    half = tmp_path / f"half.{ending}"
    data = whole.read_bytes()
    half.write_bytes(data[: len(data) // 2])
    frames, video = read(half)
    assert 25 < len(frames) < 55
    if ending != "ts":  # its clock is coarser
        assert [time for _, time, _, _ in frames[:25]] == [n * TICKS_25 for n in range(25)]
    assert "cut off" in video.warnings[0] or "damaged" in video.warnings[0]


def test_a_transport_stream_cut_between_two_packets_is_told_from_a_whole_one(tmp_path):
    whole = noise(tmp_path / "whole.ts", 40)
    half = tmp_path / "half.ts"
    data = whole.read_bytes()
    half.write_bytes(data[: len(data) // 376 * 188])
    assert read(whole)[1].warnings == []
    assert "breaks off" in read(half)[1].warnings[0]


def test_damage_in_the_middle_is_read_over(tmp_path):
    path = noise(tmp_path / "film.mkv", 60, codec_options={"g": "10"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    frames, _ = read(path)
    assert len(frames) > 40
    assert frames[-1][1] == 59 * TICKS_25


def broken_files(folder):
    """name -> what its error says"""
    (folder / "text.mp4").write_text("This is a letter.\n" * 50)
    (folder / "empty.mkv").write_bytes(b"")
    (folder / "folder.mp4").mkdir()
    whole = noise(folder / "whole.mp4", 30).read_bytes()
    (folder / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(folder / "sound.m4a"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    with av.open(str(folder / "cover.mp3"), "w") as container:
        sound = container.add_stream("mp3", rate=8000, layout="mono")
        picture = container.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered(3, 96, 64), format="gray")
        frame.pts = 0
        container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        silence.pts = 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return {
        "text.mp4": "is not a video",
        "empty.mkv": "is empty (0 bytes)",
        "folder.mp4": "is a folder",
        "missing.mp4": "does not exist",
        "headless.mp4": "index is missing",
        "sound.m4a": "holds no moving pictures, only audio;",
        "cover.mp3": "holds no moving pictures, only audio",
        "/dev/null": "is not a regular file",
    }


def test_what_is_no_video_is_told_in_a_sentence(tmp_path):
    for name, words in broken_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            open_video(tmp_path / name)
        sentence = str(caught.value)
        assert words in sentence and sentence.startswith(str(tmp_path / name)) and sentence.endswith(".")
        assert "\n" not in sentence


def test_a_playlist_in_disguise_opens_nothing_else(tmp_path):
    film(tmp_path / "real.ts", range(5), time_base=TICKS_25)
    for name, text in {
        "list.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/real.ts\n#EXT-X-ENDLIST\n",
        "concat.mp4": "ffconcat version 1.0\nfile 'http://127.0.0.1:9/real.ts'\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError):
            open_video(tmp_path / name)


def test_memory_does_not_grow_with_length(tmp_path):
    path = film(tmp_path / "long.mp4", range(300), time_base=TICKS_25)
    with open_video(path) as video:
        frames = video.frames()
        for _, _ in zip(range(50), frames, strict=False):
            pass
        tracemalloc.start()
        for _ in frames:
            pass
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert grown < 50_000
