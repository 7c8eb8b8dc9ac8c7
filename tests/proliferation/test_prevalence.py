"""Thresholds by what a slide holds.

python -m pytest tests/proliferation/test_prevalence.py
"""

from __future__ import annotations

import numpy as np
import pytest

from tamis.proliferation.prevalence import DOUBTFUL, RANGE, Evidence, logit

OTHERS_SCALE, MITOSES_SCALE = 0.5, 2.0
# Exponential log-odds of both kinds: the log of the densities' ratio is a line.
EVIDENCE = Evidence(1 / OTHERS_SCALE - 1 / MITOSES_SCALE, float(np.log(OTHERS_SCALE / MITOSES_SCALE)))


def slide(mitoses: int, others: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    odds = [generator.exponential(MITOSES_SCALE, mitoses), generator.exponential(OTHERS_SCALE, others)]
    return 1 / (1 + np.exp(-np.concatenate(odds)))


@pytest.mark.parametrize(("mitoses", "others"), [(2000, 6000), (4000, 4000), (400, 7600)])
def test_the_share_of_mitoses_is_found(mitoses: int, others: int) -> None:
    found = EVIDENCE.share(slide(mitoses, others))
    assert found == pytest.approx(mitoses / (mitoses + others), abs=0.02)


def test_the_rarer_mitoses_are_the_higher_is_the_threshold() -> None:
    steep = Evidence(1.6, -4.6)
    many, few = np.full(60, 0.98), np.full(60, 0.8)
    mixed = np.concatenate([many[:40], few[:20]])
    thresholds = [steep.threshold(some) for some in (np.concatenate([many, few[:10]]), mixed, few)]
    assert thresholds == sorted(thresholds) and thresholds[0] < thresholds[1] < thresholds[2]
    assert all(RANGE[0] <= t <= RANGE[1] for t in thresholds)


def test_at_the_threshold_both_kinds_are_equally_likely() -> None:
    evidence = Evidence(1.6, -4.6)
    probabilities = np.concatenate([np.full(30, 0.98), np.full(15, 0.75)])
    share, at = evidence.share(probabilities), evidence.threshold(probabilities)
    odds = evidence.slope * logit(np.array([at]))[0] + evidence.offset + np.log(share / (1 - share))
    assert odds == pytest.approx(0, abs=1e-9)


def test_nothing_doubtful_is_no_fault() -> None:
    assert RANGE[0] <= Evidence(1.6, -4.6).threshold(np.empty(0)) <= RANGE[1]
    assert RANGE[0] > DOUBTFUL


def test_a_slide_of_which_the_network_is_less_sure_keeps_what_it_is_sure_of() -> None:
    """In a stain that lowers all its probabilities there would seem to be no mitosis at all."""
    lowered = np.array([0.7] * 20 + [0.9] * 20 + [0.96] * 6)
    assert Evidence(1.6, -4.6).share(lowered) < 0.1
    assert (lowered >= Evidence(1.6, -4.6).threshold(lowered)).sum() == 6
