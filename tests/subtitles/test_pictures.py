from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from tamis.subtitles import pictures

SIZES = [(1, 1), (3, 7), (60, 901)]


def plane(height: int, width: int) -> pictures.Plane:
    noise = np.random.default_rng(height).integers(0, 256, (height, width)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2).reshape(height, width)


@pytest.mark.parametrize("size", SIZES)
def test_png_is_read_by_others_and_by_us(size: tuple[int, int]) -> None:
    pixels = plane(*size)
    stored = pictures.png(pixels)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED), pixels)
    found = pictures.grey(stored)
    assert found is not None
    np.testing.assert_array_equal(found, pixels)


def test_other_pngs_are_read_as_grey() -> None:
    colour = np.full((4, 6, 3), 77, np.uint8)
    found = pictures.grey(cv2.imencode(".png", colour)[1].tobytes())
    assert found is not None and found.shape == (4, 6)
    assert np.abs(found.astype(int) - 77).max() <= 1


@pytest.mark.parametrize("bytes_", [b"", b"\x89PNG\r\n\x1a\n", b"no picture at all"])
def test_what_is_no_picture_gives_none(bytes_: bytes) -> None:
    assert pictures.grey(bytes_) is None


@pytest.mark.parametrize("size", SIZES)
def test_webp_looks_like_the_picture(size: tuple[int, int]) -> None:
    pixels = plane(*size)
    stored = pictures.webp(pixels, 60)
    assert stored[:4] == b"RIFF" and stored[8:12] == b"WEBP"
    shown = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == pixels.shape
    assert np.abs(shown.astype(int) - pixels).mean() < 6
    assert len(stored) < len(pictures.png(pixels))


def test_a_page_has_png_where_libav_knows_no_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = plane(20, 30)
    assert pictures.for_page(pixels, 60) == ("webp", pictures.webp(pixels, 60))

    def unknown(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.CodecContext, "create", unknown)
    assert pictures.for_page(pixels, 60) == ("png", pictures.png(pixels))
