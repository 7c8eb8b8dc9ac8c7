"""Brightness out of every kind of pixel.

pytest tests/subtitles/test_luma.py
"""

import av
import numpy as np
import pytest

from tamis.subtitles.luma import luma_plane

RAMP = np.tile(np.linspace(20, 230, 50).astype(np.uint8), (31, 1))


def frame_of(pixels: str) -> av.VideoFrame:
    """The ramp [31, 50] in another pixel format; odd height, width that needs padded rows."""
    if pixels in DEEP:
        return deep_frame_of(pixels, *DEEP[pixels])
    return av.VideoFrame.from_ndarray(RAMP, format="gray").reformat(format=pixels)


# Samples of two bytes are written by hand: libswscale spoils a row of them now and then (1 in 300 pictures). Shift of an
# 8-bit sample to its place, samples a pixel in a plane that shows brightness, number of such planes.
DEEP = {
    "yuv420p10le": (2, 1, 1), "yuv422p10le": (2, 1, 1), "yuv444p12le": (4, 1, 1), "yuv420p16le": (8, 1, 1),
    "gray10le": (2, 1, 1), "gray16le": (8, 1, 1), "p010le": (8, 1, 1), "p016le": (8, 1, 1), "yuv420p10be": (2, 1, 1),
    "gbrp10le": (2, 1, 3), "rgb48le": (8, 3, 1),
}  # fmt: skip


def deep_frame_of(pixels: str, shift: int, samples: int, bright: int) -> av.VideoFrame:
    frame = av.VideoFrame(RAMP.shape[1], RAMP.shape[0], pixels)
    limited = pixels.startswith(("yuv", "p0"))  # as video is: 16 to 235
    ramp = np.round(16 + RAMP * (219 / 255)) if limited else RAMP
    kind = ">u2" if pixels.endswith("be") else "<u2"
    for number, plane in enumerate(frame.planes):
        rows = np.full((plane.height, plane.line_size // 2), 128 << shift, kind)  # colourless
        if number < bright:
            rows[:, : samples * RAMP.shape[1]] = np.repeat(ramp, samples, 1).astype(kind) << shift
        plane.update(rows.tobytes())
    return frame


FORMATS = """
    gray yuv420p yuvj420p yuv422p yuv444p yuv410p yuva420p nv12 nv21 yuyv422 uyvy422
    yuv420p10le yuv422p10le yuv444p12le yuv420p16le gray10le gray16le p010le p016le yuv420p10be
    rgb24 bgra gbrp rgb48le rgb565le gbrp10le
"""


@pytest.mark.parametrize("pixels", FORMATS.split())
def test_every_format_gives_the_same_ramp(pixels):
    luma = luma_plane(frame_of(pixels))
    assert luma.shape == RAMP.shape and luma.dtype == np.uint8
    scale = np.polyfit(RAMP[0], luma[15].astype(float), 1)  # limited range is a straight line of the full one
    assert 0.8 < scale[0] < 1.05
    coarse = 8 if pixels == "rgb565le" else 3
    assert np.abs(np.polyval(scale, RAMP) - luma).max() <= coarse


def test_palettes_are_looked_up():
    colours = np.zeros((256, 4), np.uint8)
    colours[:, 0] = 255
    colours[7, 1:] = 250  # alpha, red, green, blue
    picture = np.full((16, 16), 7, np.uint8)
    picture[:, :8] = 3
    frame = av.VideoFrame.from_ndarray((picture, colours), format="pal8")
    luma = luma_plane(frame)
    assert luma[:, :8].max() < 20 and luma[:, 8:].min() > 230


def test_eight_bits_are_a_view_that_outlives_the_frame():
    frame = frame_of("yuv420p")
    address = frame.planes[0].buffer_ptr
    luma = luma_plane(frame)
    assert luma.ctypes.data == address
    before = luma.copy()
    del frame
    assert np.array_equal(luma, before)


def test_the_view_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        luma_plane(frame_of("yuv420p"))[0, 0] = 1


def test_ten_bits_are_shifted():
    deep = np.full((16, 16), 700, np.uint16)
    frame = av.VideoFrame.from_ndarray(deep, format="gray10le")
    assert (luma_plane(frame) == 700 >> 2).all()


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.58), (18, 0.75)])
def test_white_text_in_hdr_is_as_bright_as_elsewhere(transfer, white):
    levels = np.array([[16, 16 + 219 * white, 235, 200]], np.uint8).repeat(2, 0).repeat(8, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="gray")
    frame.color_trc = transfer
    black, text, brightest, _ = luma_plane(frame)[0, ::8].tolist()
    assert black == 16
    assert 200 <= text <= 210
    assert brightest > text + 30  # a bright sky stays apart from the text before it
