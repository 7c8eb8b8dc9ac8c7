"""The two sieves before the network.

python -m pytest tests/proliferation/test_candidates.py
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from tamis.proliferation.candidates import (
    GLANCE_PX,
    INPUTS,
    LEAST_PERCEPTRON,
    SPARING_PERCEPTRON,
    SPARING_SHARE,
    CandidateScorer,
    Glance,
    _sparing_bound,
    dark_nuclei,
    glances_at,
)
from tamis.proliferation.networks import GlanceNetwork
from tamis.proliferation.train_glance import Glancing, to_onnx
from tamis.proliferation.windows import WINDOW_PX

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter


def picture() -> np.ndarray:
    pixels = np.full((300, 280, 3), (225, 170, 205), np.uint8)
    for x, y in ((50, 60), (200, 100), (4, 290)):
        cv2.circle(pixels, (x, y), 9, (60, 35, 110), -1, cv2.LINE_AA)
    return pixels


def test_a_glance_has_its_place_in_the_middle() -> None:
    pixels = picture()
    windows = glances_at(pixels, np.array([[50.0, 60.0], [4.0, 290.0]]))
    half = GLANCE_PX // 2
    assert windows.shape == (2, GLANCE_PX, GLANCE_PX, 3)
    assert np.array_equal(
        windows[0, half, half], pixels[60:62, 50:52].reshape(-1, 3).mean(0).round().astype(np.uint8)
    )
    assert (windows[:, half, half, 0] < 80).all()


class OneWindow:
    seed, batch = 0, 40

    def __init__(self, window: np.ndarray) -> None:
        self.window = window

    def __call__(self, first_step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield np.stack([self.window] * self.batch), np.ones(self.batch, np.float32)


def test_training_and_detection_see_the_same_glance() -> None:
    """Among the moved and turned middles of a training window is what `glances_at` cuts for the same place."""
    pixels = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8), (0, 0), 3
    )
    batches = Glancing(OneWindow(pixels[64 : 64 + WINDOW_PX, 64 : 64 + WINDOW_PX]), 1)(0)  # type: ignore[arg-type]
    wanted = glances_at(pixels, np.array([[128.0, 128.0]]))[0].astype(int)
    apart = [np.abs(next(batches)[0][0].astype(int) - wanted).max() for _ in range(2000)]
    assert min(apart) <= 1 < max(apart)


def test_a_step_alone_decides_its_batch() -> None:
    source = OneWindow(np.random.default_rng(1).integers(0, 256, (128, 128, 3)).astype(np.uint8))
    stream = Glancing(source, 2)(0)  # type: ignore[arg-type]
    next(stream)
    assert np.array_equal(next(stream)[0], next(Glancing(source, 2)(1))[0])  # type: ignore[arg-type]


def scorer(glance: Glance | None, bias: float) -> CandidateScorer:
    zeros = np.zeros((INPUTS, 1), np.float32)
    return CandidateScorer(zeros, np.zeros(1, np.float32), np.zeros(1, np.float32), bias, glance)


def test_the_glance_sees_only_what_the_perceptron_leaves() -> None:
    glance = Glance(to_onnx(GlanceNetwork().eval()))
    every = dark_nuclei(picture())
    places, scores, nuclei = scorer(glance, LEAST_PERCEPTRON + 1).candidates(picture())
    assert np.array_equal(places, every) and len(scores) == len(every) == nuclei
    places, scores, nuclei = scorer(glance, LEAST_PERCEPTRON - 1).candidates(picture())
    assert len(places) == len(scores) == 0 and nuclei == len(every)
    assert len(scorer(None, -9.0).candidates(picture())[0]) == len(every)


def test_sieves_do_not_look_beyond_what_counts() -> None:
    glance = Glance(to_onnx(GlanceNetwork().eval()))
    everywhere = scorer(glance, 0.0)
    places, scores, nuclei = everywhere.candidates(picture())
    left = places[:, 0] < 150
    some = everywhere.candidates(picture(), within=lambda p: p[:, 0] < 150)
    assert 0 < left.sum() < nuclei and some[2] == left.sum()
    assert np.array_equal(some[0], places[left]) and np.allclose(some[1], scores[left])


@pytest.mark.parametrize("lower", [0.0, 1.5])
def test_a_sparing_perceptron_leaves_a_share_of_a_faint_block(lower: float) -> None:
    """What is likelier than its bound is left, and in a stain that lowers all scores a share of the nuclei."""
    scores = np.linspace(-6, 0, 101).astype(np.float32) - np.float32(lower)
    bound = _sparing_bound(scores)
    assert LEAST_PERCEPTRON < bound <= SPARING_PERCEPTRON
    assert (scores >= bound).mean() == pytest.approx(1 / 3 if lower == 0 else SPARING_SHARE, abs=0.02)
    assert _sparing_bound(np.full(9, -8, np.float32)) == LEAST_PERCEPTRON == _sparing_bound(scores[:0])


def test_onnx_equals_pytorch_and_survives_the_file() -> None:
    torch.manual_seed(0)
    network = GlanceNetwork().eval()
    windows = np.random.default_rng(0).integers(0, 256, (5, GLANCE_PX, GLANCE_PX, 3)).astype(np.uint8)
    with torch.no_grad():
        wanted = network(torch.from_numpy(windows).permute(0, 3, 1, 2).float())[:, 0].numpy()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        hidden=np.zeros((INPUTS, 1), np.float16),
        hidden_bias=np.zeros(1, np.float32),
        output=np.zeros(1, np.float32),
        output_bias=np.float32(0),
        glance=np.frombuffer(to_onnx(network), np.uint8),
    )
    loaded = CandidateScorer.load(buffer.getvalue()).glance
    assert loaded is not None
    assert np.abs(loaded(windows, batch=2) - wanted).max() < 1e-4
