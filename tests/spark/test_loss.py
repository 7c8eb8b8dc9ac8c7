"""python -m pytest tests/spark/test_loss.py"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")

from torch.nn import functional as F  # noqa: E402

from tamis.spark.loss import ROWS, next_token_loss  # noqa: E402


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("tokens", [1, ROWS - 1, 2 * ROWS + 3])
def test_value_and_gradients_are_those_of_the_whole_logits(tokens: int, cap: float | None) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (tokens,))
    found = next_token_loss(hidden, weight, targets, cap)
    logits = hidden @ weight.T
    expected = F.cross_entropy(logits if cap is None else cap * torch.tanh(logits / cap), targets)
    assert abs(found - expected) < 1e-12
    for ours, theirs in zip(
        torch.autograd.grad(3 * found, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_under_autocast_only_the_products_are_rounded() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 64), torch.randn(100, 64, requires_grad=True)
    targets = torch.randint(0, 100, (300,))
    exact = next_token_loss(hidden, weight, targets, 30.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = next_token_loss(hidden, weight, targets, 30.0)
    assert found.dtype == torch.float32
    # A product of 64 terms, each input rounded to 2^-9 of itself, its sum once more; the mean is over 300 of them.
    assert 0 < abs(found - exact) < 2**-6
    found.backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32
