"""What is minimised.  python -m pytest tests/weakseg/test_losses.py"""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from tamis.weakseg.losses import Bags, Objective, area_loss, objective_loss  # noqa: E402


def bags(
    positive: list[float], low: list[float], high: list[float], truth: torch.Tensor | None = None
) -> Bags:
    count = len(positive)
    return Bags(
        None, None, torch.ones(count, 4, 4, dtype=torch.bool), torch.tensor(positive, dtype=torch.float), torch.tensor(low),
        torch.tensor(high), truth,
    )  # fmt: skip


def test_area_counts_on_positives_with_a_known_area_alone() -> None:
    v = torch.tensor([0.9, 0.9, 0.9], requires_grad=True)
    batch = bags([1, 1, 0], [0.4, math.nan, 0.4], [0.4, math.nan, 0.4])
    loss = area_loss(v, batch)
    assert loss.item() == pytest.approx(0.25 / 3)
    loss.backward()
    assert v.grad.tolist() == pytest.approx([1 / 3, 0, 0])


def test_anywhere_inside_an_interval_is_free() -> None:
    inside, below, above = (
        area_loss(torch.tensor([v]), bags([1], [0.2], [0.5])).item() for v in (0.3, 0.1, 0.7)
    )
    assert (inside, below, above) == pytest.approx((0, 0.01, 0.04))


def test_each_term_can_be_switched() -> None:
    maps = [torch.full((2, 4, 4), 0.3)] * 4
    batch = bags([1, 0], [0.5, math.nan], [0.5, math.nan], torch.zeros(2, 4, 4))
    for objective, expected in (
        (Objective(mil=False, area=True), (2.5 + 5 + 10 + 10) * 0.04 / 2),
        (Objective(mil=True, area=False), 4 * -(math.log(0.3) + math.log(0.7)) / 2),
        (Objective(mil=False, area=False, pixels=True), 4 * -math.log(0.7)),
    ):
        assert objective_loss(maps, batch, objective)[0].item() == pytest.approx(expected, rel=1e-4)


def test_one_output_has_the_weight_of_a_fusion() -> None:
    maps = [torch.full((1, 4, 4), 0.3)]
    loss, _ = objective_loss(maps, bags([1], [0.5], [0.5]), Objective(mil=False))
    assert loss.item() == pytest.approx(10 * 0.04)


@pytest.mark.parametrize(
    "pooling", ["generalised_mean", "log_sum_exp", "noisy_or", "top_mean", "statistical_top_mean"]
)
def test_every_pooling_can_be_minimised(pooling: str) -> None:
    logits = torch.zeros(2, 4, 4, requires_grad=True)
    batch = bags([1, 0], [0.5, math.nan], [0.5, math.nan])
    objective_loss([torch.sigmoid(logits)], batch, Objective(pooling=pooling))[0].backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1] >= 0).all()  # negatives are pushed down
