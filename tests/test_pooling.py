"""Properties that make a pooling a pooling.  python -m pytest tests/test_pooling.py"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tamis import pooling  # noqa: E402

RNG = np.random.default_rng(3)
P = torch.tensor(RNG.uniform(0.01, 0.99, (3, 7, 11)), dtype=torch.float64)


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_shape_range_and_permutation(name: str) -> None:
    pool = pooling.POOLINGS[name]
    bag = pool(P)
    assert bag.shape == (3,)
    assert ((bag >= P.flatten(1).mean(1) - 1e-9) & (bag <= 1)).all()
    if name != "noisy_or":
        assert (bag <= P.flatten(1).amax(1) + 1e-9).all()
    shuffled = P.flatten(1)[:, torch.randperm(77, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(pool(shuffled), bag)


@pytest.mark.parametrize("name", ["generalised_mean", "log_sum_exp", "noisy_or", "top_mean", "maximum"])
def test_monotone_in_each_instance(name: str) -> None:
    p = P[:, :2, :3].clone().requires_grad_(True)  # of more instances noisy-or has saturated
    (gradient,) = torch.autograd.grad(pooling.POOLINGS[name](p).sum(), p)
    assert (gradient >= 0).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", pooling.POOLINGS)
def test_padding_does_not_count(name: str) -> None:
    """Whatever lies in the padding, the bag is that of its inside."""
    pool = pooling.POOLINGS[name]
    mask = torch.zeros(3, 9, 13, dtype=torch.bool)
    mask[:, :7, :11] = True
    for filling in (0.0, 1.0):
        padded = torch.full((3, 9, 13), filling, dtype=torch.float64)
        padded[:, :7, :11] = P
        torch.testing.assert_close(pool(padded, mask), pool(P))


@pytest.mark.parametrize("name", pooling.POOLINGS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_finite_at_the_ends(name: str, value: float) -> None:
    p = torch.full((1, 4, 4), value, requires_grad=True)
    bag = pooling.POOLINGS[name](p)
    bag.sum().backward()
    assert torch.isfinite(bag).all()
    assert torch.isfinite(p.grad).all()


def test_generalised_mean_between_mean_and_maximum() -> None:
    torch.testing.assert_close(pooling.generalised_mean(P, r=1.0), P.flatten(1).mean(1))
    torch.testing.assert_close(pooling.generalised_mean(P, r=2000.0), P.flatten(1).amax(1), rtol=5e-3, atol=0)


def test_generalised_mean_has_the_power_inside() -> None:
    """One bright pixel of four: (1/4)^(1/4) with the power inside, and 0.2500 ^ (1/4) of the mean only by coincidence;
    two half-bright pixels tell the forms apart."""
    p = torch.tensor([[0.5, 0.5, 1e-7, 1e-7]], dtype=torch.float64)
    wrong = p.mean() ** 0.25  # 0.7071
    assert pooling.generalised_mean(p).item() == pytest.approx((2 * 0.5**4 / 4) ** 0.25, rel=1e-5)  # 0.4204
    assert wrong.item() > 0.7


def test_generalised_mean_does_not_underflow() -> None:
    p = torch.full((1, 100), 1e-6)
    assert pooling.generalised_mean(p, r=32.0).item() == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("name", ["generalised_mean", "log_sum_exp", "noisy_or", "top_mean"])
def test_gradient(name: str) -> None:
    p = P[:, :2, :3].clone().requires_grad_(True)
    assert torch.autograd.gradcheck(pooling.POOLINGS[name], (p,))


def test_noisy_or_is_one_minus_the_product() -> None:
    torch.testing.assert_close(pooling.noisy_or(P[:, :2, :2]), 1 - (1 - P[:, :2, :2]).flatten(1).prod(1))


def test_top_mean_takes_the_largest() -> None:
    p = torch.arange(1, 101, dtype=torch.float64)[None] / 101
    assert pooling.top_mean(p, share=0.1).item() == pytest.approx(np.mean(np.arange(91, 101)) / 101)


def test_statistical_top_mean_is_near_the_exact_one_on_normal_logits() -> None:
    p = torch.sigmoid(torch.tensor(RNG.normal(0, 1, (4, 5000))))
    exact, estimated = pooling.top_mean(p, share=0.1), pooling.statistical_top_mean(p, share=0.1)
    torch.testing.assert_close(estimated, exact, rtol=0.02, atol=0)


def test_a_bag_of_padding_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="no instance"):
        pooling.generalised_mean(P, torch.zeros(3, 7, 11, dtype=torch.bool))
