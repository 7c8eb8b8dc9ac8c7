"""The logistic map from posteriors to confidences, and what it is judged by."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.subtitles.confidence import Calibration, expected_error, fit, log_loss, logit


def test_by_default_nothing_changes() -> None:
    assert Calibration()([0.2, 0.5, 0.9]) == pytest.approx([0.2, 0.5, 0.9])


def test_certainty_stays_finite_and_order_stays() -> None:
    found = Calibration(0.5, -1.0)([0.0, 0.3, 0.999, 1.0])
    assert np.isfinite(logit([0.0, 1.0])).all()
    assert (np.diff(found) >= 0).all() and found[0] > 0 and found[-1] < 1


def test_a_known_map_is_found_again() -> None:
    rng = np.random.default_rng(0)
    posterior = rng.uniform(0.01, 0.99, 20_000)
    truth = Calibration(0.5, 0.7)
    found = fit(posterior, rng.uniform(size=20_000) < truth(posterior))
    assert found.slope == pytest.approx(0.5, abs=0.05) and found.offset == pytest.approx(0.7, abs=0.05)


def test_what_is_always_right_stays_below_one() -> None:
    found = fit(np.full(40, 0.999), np.ones(40, bool))
    assert np.isfinite([found.slope, found.offset]).all()
    assert found(0.999) < 1


def test_confidence_never_speaks_against_itself() -> None:
    """Even where the examples do."""
    found = fit([0.1] * 50 + [0.9] * 50, [True] * 50 + [False] * 50)
    assert found.slope >= 0


def test_expected_error_of_hand_worked_cases() -> None:
    assert expected_error([0.8] * 10, [True] * 8 + [False] * 2, bins=1) == pytest.approx(0.0)
    assert expected_error([0.9] * 4, [True, True, False, False], bins=1) == pytest.approx(0.4)
    # two bins: 0.2 says 0.2 and is 0 right; 0.9 says 0.9 and is 1 right
    assert expected_error([0.2, 0.2, 0.9, 0.9], [False, False, True, True], bins=2) == pytest.approx(0.15)
    assert expected_error([], []) == 0.0


def test_log_loss_of_hand_worked_cases() -> None:
    assert log_loss([0.5, 0.5], [True, False]) == pytest.approx(np.log(2))
    assert log_loss([0.9, 0.2], [True, True]) == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 2)
