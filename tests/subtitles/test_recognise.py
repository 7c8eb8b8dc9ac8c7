"""Candidate centres, spaces and composed classes, on hand-made network outputs."""

import numpy as np
import pytest

from tamis.subtitles.characters import HANGUL_FIRST, base_classes, classes, hangul_parts, index
from tamis.subtitles.recognise import (
    BEST,
    ClassVectors,
    Recogniser,
    Sighting,
    candidate_centres,
    log_softmax,
    space_odds,
)


def test_a_peak_is_one_candidate_with_its_neighbours_share() -> None:
    centre = np.array([0, 0.1, 0.7, 0.1, 0, 0, 0], np.float32)
    index_, position, mass = candidate_centres(centre)
    assert index_.tolist() == [2]
    assert mass[0] == pytest.approx(0.9) and position[0] == pytest.approx(2.5)


def test_a_centre_between_two_positions_is_one_candidate_between_them() -> None:
    index_, position, mass = candidate_centres(np.array([0, 0.45, 0.5, 0, 0], np.float32))
    assert len(index_) == 1
    assert mass[0] == pytest.approx(0.95) and 1.9 < position[0] < 2.5


def test_two_narrow_letters_stay_two() -> None:
    index_, _, mass = candidate_centres(np.array([0, 0.8, 0.1, 0.9, 0], np.float32))
    assert index_.tolist() == [1, 3]
    assert mass.tolist() == pytest.approx([0.85, 0.95])


def test_silence_has_no_candidates() -> None:
    index_, position, mass = candidate_centres(np.full(9, 0.001, np.float32))
    assert len(index_) == len(position) == len(mass) == 0


def test_a_space_is_looked_for_between_neighbours_only() -> None:
    space = np.array([0.99, 0, 0, 0.9, 0, 0, 0, 0.99], np.float32)
    odds = space_odds(space, np.array([2.5, 5.5, 6.5], np.float32))
    assert odds.shape == (4,)
    assert odds[1] > 2 and odds[2] < -5
    assert odds[0] < -5 and odds[3] < -5  # outside the line


def _recogniser(vectors: np.ndarray, parts: np.ndarray) -> Recogniser:
    recogniser = Recogniser.__new__(Recogniser)  # the head alone: no trunk is run
    recogniser.classes = ClassVectors(
        vectors, np.zeros(len(vectors), np.float32), parts, np.zeros(len(parts), np.float32)
    )
    recogniser._scripts = {}
    return recogniser


def test_a_syllable_is_composed_from_its_parts() -> None:
    count = len(base_classes())
    vectors = np.zeros((count + 1, 2), np.float32)
    vectors[count, 0] = 30  # feature 0 says: Hangul
    parts = np.zeros((68, 2), np.float32)
    for offset, part in zip((0, 19, 40), hangul_parts(ord("글") - HANGUL_FIRST), strict=True):
        parts[offset + part, 0] = 20
    labels, scores = _recogniser(vectors, parts).best_classes(np.array([[1, 0]], np.float32), None, 1.0)
    assert classes()[labels[0, 0]] == "글"
    assert scores[0, 0] == pytest.approx(0, abs=1e-3)
    assert labels.shape == scores.shape == (1, BEST)


def test_a_script_leaves_its_strangers_out() -> None:
    count = len(base_classes())
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count + 1, 4)).astype(np.float32)
    recogniser = _recogniser(vectors, rng.normal(size=(68, 4)).astype(np.float32))
    allowed = np.zeros(len(classes()), bool)
    allowed[[index()[c] for c in "简体字只有这些可以"]] = True
    labels, scores = recogniser.best_classes(rng.normal(size=(5, 4)).astype(np.float32), allowed, 1.0)
    assert allowed[labels].all()
    assert np.isfinite(scores).all() and (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("hangul", [-3.0, 0.0, 12.0])
def test_the_surest_class_is_the_first_of_the_lattice(hangul: float) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(base_classes()) + 1, 4)).astype(np.float32)
    vectors[-1] = hangul * np.eye(4)[0]  # some candidates are syllables more likely than not, or none is
    recogniser = _recogniser(vectors, 4 * rng.normal(size=(68, 4)).astype(np.float32))
    candidates = rng.normal(size=(9, 4)).astype(np.float32)
    seen = Sighting(np.arange(9.0), np.full(9, 0.9), np.zeros(10), candidates)  # type: ignore[arg-type]
    chinese = np.zeros(len(classes()), bool)
    chinese[[index()[c] for c in "简体字只有这些可以"]] = True
    for allowed in (None, chinese):
        wanted = recogniser.lattice(seen, allowed=allowed)
        np.testing.assert_allclose(recogniser.surest(seen, allowed), wanted.log_class[:, 0], atol=1e-5)
    first = recogniser.lattice(seen).labels[:, 0] >= len(base_classes())
    assert first.any() == (hangul > 0)


def test_log_softmax_sums_to_one() -> None:
    p = np.exp(log_softmax(np.array([[1000.0, 999.0, -1000.0]], np.float32)))
    assert p.sum() == pytest.approx(1)
