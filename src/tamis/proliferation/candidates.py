"""Where the network looks: peaks of haematoxylin, sifted twice.

A square millimetre of tumour holds ten thousand nuclei and a few mitoses. Darkness does not sort them well enough: to keep
95 of 100 mitoses, one threshold on the peak for all slides leaves nearly all nuclei. A perceptron on what the absorption around
a peak looks like (1 um apart within 8 um, 0.5 um apart within 3.5 um) drops most of them for a thousandth of the big network's
cost a nucleus. What is left gets a glance: a small convolutional network on 18 um at 0.5 um/px, a hundredth of that cost.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tamis.proliferation.stain import haematoxylin, optical_density

Float = NDArray[np.float32]
UM_PER_PX = 0.25
SIGMA_UM = 1.1
REACH_UM = 3.0
LEAST_HAEMATOXYLIN = (0.12, 0.3)
LEAST_OF_DARKEST = 0.45
"""A peak needs this share of the picture's dark end, within those limits: 0.3 for all lost 7 % of one scanner's mitoses and 17 %
of ICPR 2012's, whose stain is faint."""
COARSE_REACH, COARSE_CHANNELS = 8, (0, 1, 2)  # samples of 1 um: absorption of red, green, blue
FINE_REACH, FINE_CHANNELS = 7, (0, 1)  # samples of 0.5 um: red (haematoxylin alone absorbs it) and green
COARSE, FINE = 2 * COARSE_REACH + 1, 2 * FINE_REACH + 1
GLANCE_PX = 36  # at 0.5 um/px
LEAST_PERCEPTRON = -4.0  # log-odds: keeps 98 of 100 mitoses on validation cases
SPARING_PERCEPTRON, SPARING_SHARE = -2.0, 0.25
"""On a slide, where only the likeliest few are looked at in the end: so much, or this share of a block's nuclei, is enough.
Of the 45 a mm2 that the network sees, hardly one has less than -1 of the perceptron."""
PERCEPTRON_SHARE = 0.5  # of the sum: half as many candidates at equal recall as without (validation fields)
INPUTS = len(COARSE_CHANNELS) * COARSE * COARSE + len(FINE_CHANNELS) * FINE * FINE


def dark_nuclei(pixels: NDArray[np.uint8], least: float | None = None) -> NDArray[np.float64]:
    """Peaks of smoothed haematoxylin in a picture at 0.25 um/px: places [n, 2] (x, y) in px.

    least  smoothed haematoxylin of a peak; by default as the picture's stain says
    """
    return _peaks(haematoxylin(_reduced(pixels, 2)), least)


def nuclei_with_samples(
    pixels: NDArray[np.uint8], least: float | None = None
) -> tuple[NDArray[np.float64], Float]:
    """(places [n, 2] in px, samples [n, INPUTS]) of a picture at 0.25 um/px."""
    places = dark_nuclei(pixels, least)
    return places, samples_at(pixels, places)


def samples_at(pixels: NDArray[np.uint8], places: NDArray[np.float64]) -> Float:
    """[n, INPUTS] optical densities: the coarse channels, then the fine ones; mirrored at the picture's edge."""
    coarse, fine = optical_density(_reduced(pixels, 4)), optical_density(_reduced(pixels, 2))
    parts = [_around(coarse[..., i], places / 4, COARSE_REACH) for i in COARSE_CHANNELS]
    parts += [_around(fine[..., i], places / 2, FINE_REACH) for i in FINE_CHANNELS]
    return np.concatenate(parts, axis=1)


class Glance:
    """The small network: windows of GLANCE_PX -> log-odds."""

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, windows: NDArray[np.uint8], batch: int = 256) -> Float:
        """[n, GLANCE_PX, GLANCE_PX, 3] RGB -> [n]."""
        seen = [
            self.session.run(None, {"pixels": windows[i : i + batch]})[0]
            for i in range(0, len(windows), batch)
        ]
        return np.concatenate(seen) if seen else np.empty(0, np.float32)


@dataclass(frozen=True)
class CandidateScorer:
    """Both sieves. Without a glance the perceptron (one hidden layer of rectified units) decides alone."""

    hidden: Float  # [INPUTS, units]
    hidden_bias: Float  # [units]
    output: Float  # [units]
    output_bias: float
    glance: Glance | None = None

    @classmethod
    def load(cls, content: bytes) -> CandidateScorer:
        """From the bytes of an .npz with those four arrays, and `glance`, an ONNX file as bytes."""
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return cls(
                stored["hidden"].astype(np.float32),
                stored["hidden_bias"].astype(np.float32),
                stored["output"].astype(np.float32),
                float(stored["output_bias"]),
                Glance(stored["glance"].tobytes()) if "glance" in stored else None,
            )

    def __call__(self, samples: Float) -> Float:
        """[n, INPUTS] -> [n] log-odds of a mitosis among dark nuclei, by the perceptron."""
        units = np.maximum(samples @ self.hidden + self.hidden_bias, 0)
        return np.asarray(units @ self.output + self.output_bias, np.float32)

    def candidates(
        self,
        pixels: NDArray[np.uint8],
        *,
        within: Callable[[NDArray[np.float64]], NDArray[np.bool_]] | None = None,
        sparing: bool = False,
    ) -> tuple[NDArray[np.float64], Float, int]:
        """Of a picture at 0.25 um/px: places [n, 2] in px and log-odds [n] of what the perceptron leaves; dark nuclei in all.

        within   places [n, 2] -> which of them count: the sieves do not look at the others
        sparing  the perceptron leaves about a quarter, and not three quarters
        """
        places = dark_nuclei(pixels)
        if within is not None:
            places = places[within(places)]
        scores = self(samples_at(pixels, places))
        if self.glance is None:
            return places, scores, len(places)
        hopeful = scores >= (_sparing_bound(scores) if sparing else LEAST_PERCEPTRON)
        left = places[hopeful]
        together = self.glance(glances_at(pixels, left)) + PERCEPTRON_SHARE * scores[hopeful]
        return left, np.asarray(together, np.float32), len(places)


def _sparing_bound(scores: Float) -> float:
    """In a faint stain all scores are lower: some share of the nuclei is left there, too."""
    if len(scores) == 0:
        return LEAST_PERCEPTRON
    return float(np.clip(np.quantile(scores, 1 - SPARING_SHARE), LEAST_PERCEPTRON, SPARING_PERCEPTRON))


def glances_at(pixels: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[n, GLANCE_PX, GLANCE_PX, 3] at 0.5 um/px around places of a picture at 0.25 um/px; mirrored at its edge."""
    half = GLANCE_PX // 2
    small = cv2.copyMakeBorder(_reduced(pixels, 2), half, half, half, half, cv2.BORDER_REFLECT)
    if len(places) == 0:
        return np.empty((0, GLANCE_PX, GLANCE_PX, 3), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(small, (GLANCE_PX, GLANCE_PX), (0, 1))
    # Padded by half, the window that starts at a place's own column has it in its middle.
    x = np.clip(np.round(places[:, 0] / 2).astype(int), 0, windows.shape[1] - 1)
    y = np.clip(np.round(places[:, 1] / 2).astype(int), 0, windows.shape[0] - 1)
    return np.ascontiguousarray(windows[y, x].transpose(0, 2, 3, 1))


def _reduced(pixels: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    """Averaged over squares; sides are rounded up, so that no pixel is lost."""
    height, width = pixels.shape[:2]
    ragged = height % by or width % by
    if ragged:
        pixels = cv2.copyMakeBorder(pixels, 0, -height % by, 0, -width % by, cv2.BORDER_REPLICATE)
    return np.asarray(
        cv2.resize(pixels, (pixels.shape[1] // by, pixels.shape[0] // by), interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def _peaks(density: Float, least: float | None) -> NDArray[np.float64]:
    """Maxima of the smoothed density within REACH_UM, at 0.5 um/px; places in px of the full picture."""
    um_per_px = 2 * UM_PER_PX
    smooth = cv2.GaussianBlur(density, (0, 0), SIGMA_UM / um_per_px)
    if least is None:
        least = float(np.clip(LEAST_OF_DARKEST * np.percentile(smooth, 99.5), *LEAST_HAEMATOXYLIN))
    reach = 2 * round(REACH_UM / um_per_px) + 1
    peak = (smooth >= cv2.dilate(smooth, np.ones((reach, reach), np.uint8))) & (smooth > least)
    y, x = np.nonzero(peak)
    # A plateau (ink, padding) is a peak everywhere: one place per cell of the grid is enough.
    cell = (y // reach).astype(np.int64) * (density.shape[1] // reach + 1) + x // reach
    _, first = np.unique(cell, return_index=True)
    order = np.sort(first)
    return np.asarray(np.stack([x[order], y[order]], 1) * 2.0 + 0.5, np.float64)


def _around(values: Float, places: NDArray[np.float64], reach: int) -> Float:
    """[n, (2 reach + 1)^2] of `values` around the nearest pixels to `places`."""
    if len(places) == 0:
        return np.empty((0, (2 * reach + 1) ** 2), np.float32)
    padded = cv2.copyMakeBorder(np.ascontiguousarray(values), reach, reach, reach, reach, cv2.BORDER_REFLECT)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    x = np.clip(places[:, 0].astype(int), 0, values.shape[1] - 1)
    y = np.clip(places[:, 1].astype(int), 0, values.shape[0] - 1)
    return np.ascontiguousarray(windows[y, x]).reshape(len(places), -1)
