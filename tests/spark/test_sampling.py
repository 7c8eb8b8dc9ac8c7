"""python -m pytest tests/spark/test_sampling.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tamis.errors import InputError, UsageError
from tamis.spark.sampling import Sampler, Sampling

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def drawn(count: int = 4000, **settings: Any) -> np.ndarray[Any, Any]:
    """Shares of the four tokens."""
    sampler = Sampler(Sampling(seed=1, **settings))
    return np.bincount([sampler(LOGITS) for _ in range(count)], minlength=4) / count


def test_greedy_takes_the_likeliest() -> None:
    assert Sampler(Sampling())(LOGITS) == 0


def test_temperature_one_draws_by_probability() -> None:
    assert np.allclose(drawn(temperature=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_a_low_temperature_sharpens() -> None:
    assert np.allclose(drawn(temperature=0.5), np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365, atol=0.03)


def test_top_k_keeps_k() -> None:
    assert np.allclose(drawn(temperature=1.0, top_k=2), [0.625, 0.375, 0, 0], atol=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.51, 2), (0.8, 2), (0.96, 4), (1e-9, 1)])
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float, kept: int) -> None:
    assert np.count_nonzero(drawn(temperature=1.0, top_p=top_p)) == kept


def test_a_seed_repeats_and_sequences_differ() -> None:
    one, same, other = (Sampler(Sampling(1.0, seed=5), stream) for stream in (0, 0, 1))
    texts = [[sampler(np.zeros(1000)) for _ in range(5)] for sampler in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]


def test_next_to_no_temperature_is_greedy() -> None:
    assert Sampler(Sampling(1e-310, seed=1))(LOGITS) == 0
    assert Sampler(Sampling(1e-310, seed=1))(np.array([0.0, 3.0, -2.0], np.float32)) == 1


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        Sampler(Sampling())(np.array([0.0, np.nan]))


@pytest.mark.parametrize("settings", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Sampling(**settings)
