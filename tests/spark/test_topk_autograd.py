"""python -m pytest tests/spark/test_topk_autograd.py

The expressions against NumPy, the fused operators against the expressions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")

from tamis import native, topk  # noqa: E402
from tamis.spark import topk_autograd, topk_native  # noqa: E402
from tamis.topk import METHODS, Method  # noqa: E402

ISAS = [name for name, offered in native.instruction_sets().items() if offered]
needs_kernels = pytest.mark.skipif(not topk_native.available(), reason="needs the compiled kernels")


def rows(*shape: int, seed: int = 0, dtype: Any = torch.float64) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).normal(0.3, 2, shape)).to(dtype)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_TOPK", "plain")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 7, 59, 60])
def test_the_expressions_are_those_of_numpy(k: int, method: Method) -> None:
    x = rows(6, 60)
    visible = torch.rand(6, 60, generator=torch.Generator().manual_seed(0)) < 0.8
    visible[0] = True
    visible[1, 5:] = False
    for seen in (None, visible):
        other = None if seen is None else seen.numpy()
        for name in ("threshold", "soft_threshold", "mask_below"):
            found = getattr(topk_autograd, name)(x, k, seen, method=method)
            expected = getattr(topk, name)(x.numpy(), k, other, method=method)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.usefixtures("plain")
def test_the_gradient_is_the_closed_form() -> None:
    x, g = rows(5, 200).requires_grad_(), rows(5, 200, seed=1)
    topk_autograd.soft_threshold(x, 16).backward(g)
    n, z = 200, topk.quantile(16, 200)
    with torch.no_grad():
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True, correction=0)
        m = g * (x > mean + std * z)
        s = m.sum(-1, keepdim=True)
        expected = m - s / n - (x - mean) * s * z / (std * n)
    assert (x.grad - expected).abs().max() < 1e-14


@pytest.mark.usefixtures("plain")
def test_gradients_are_finite_where_few_are_visible_and_where_all_are_equal() -> None:
    x = torch.zeros(2, 9, dtype=torch.float64, requires_grad=True)
    visible = torch.arange(9) < torch.tensor([[2], [9]])
    topk_autograd.soft_threshold(x[:1], 3, visible[:1]).sum().backward()
    assert x.grad.isfinite().all()


@needs_kernels
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [2, 31, 32, 33, 1000, 1537])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_threshold_is_the_expression(
    n: int, dtype: Any, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.VARIABLE, isa)
    k = max(1, n // 12)
    g = rows(3, 2, n, seed=1, dtype=dtype)
    results = []
    for path in ("native", "plain"):
        monkeypatch.setenv("TAMIS_TOPK", path)
        x = rows(3, 2, n, dtype=dtype).requires_grad_()
        y = topk_autograd.soft_threshold(x, k)
        y.backward(g)
        results.append((y.detach(), x.grad))
    # Rounding: each result is a few sums of n terms of size 2.
    tolerance = 16 * torch.finfo(dtype).eps * math.sqrt(n)
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= tolerance


def weights_by_expression(s: Any, u: Any, first: int, window: int | None, k: int, cap: float | None) -> Any:
    own = first + torch.arange(s.shape[-2])[:, None]
    key = torch.arange(s.shape[-1])[None]
    visible = (key <= own) & (key > own - (window or 10**9))
    kept = topk_autograd.mask_below(s, k, visible) if k else s.masked_fill(~visible, -torch.inf)
    capped = s if cap is None else cap * torch.tanh(s / cap)
    weights = torch.softmax(capped.masked_fill(kept.isneginf(), -torch.inf), -1)
    return weights if u is None else weights * torch.nn.functional.softplus(u)


CASES = [
    (0, None, 5, 3.0, True),  # training, Spark
    (0, 9, 5, None, True),  # sliding window, no cap
    (0, None, 0, 4.0, False),  # dense
    (13, 20, 4, 2.0, True),  # a later chunk with a cache
    (0, None, 50, 3.0, True),  # k covers everything
]


@needs_kernels
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_attention_is_the_expression(
    case: tuple[int, int | None, int, float | None, bool],
    dtype: Any,
    isa: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(native.VARIABLE, isa)
    first, window, k, cap, gated = case
    t, n = 37, 37 + first
    results = []
    for fused in (True, False):
        s = rows(2, 3, t, n, dtype=dtype).requires_grad_()
        u = rows(2, 3, t, n, seed=1, dtype=dtype).requires_grad_() if gated else None
        if fused:
            w = topk_native.attention_weights(s, u, first=first, window=window, k=k, cap=cap)
        else:
            w = weights_by_expression(s, u, first, window, k, cap)
        w.backward(rows(2, 3, t, n, seed=2, dtype=dtype))
        results.append((w.detach(), s.grad, s.grad if u is None else u.grad))
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 400 * torch.finfo(dtype).eps


@needs_kernels
def test_gradcheck_and_opcheck_accept_the_operators() -> None:
    x = rows(3, 40).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: topk_native.soft_threshold(x, 6), x)
    s, u = rows(2, 6, 6).requires_grad_(), rows(2, 6, 6, seed=1).requires_grad_()
    call = lambda s, u: topk_native.attention_weights(s, u, first=0, window=4, k=3, cap=5.0)  # noqa: E731
    assert torch.autograd.gradcheck(call, (s, u))
    torch.library.opcheck(torch.ops.tamis.soft_threshold.default, (x, 6))
    shift = torch.tensor([0.1])
    torch.library.opcheck(torch.ops.tamis.soft_threshold.default, (x, 6, shift))
    torch.library.opcheck(torch.ops.tamis.attention_weights.default, (s, u, [0, 4, 3], 5.0, shift))
    torch.library.opcheck(torch.ops.tamis.attention_weights.default, (s, None, [0, 0, 0], 0.0))


@needs_kernels
def test_torch_compile_accepts_the_operators() -> None:
    """Traced whole, without a break in the graph; the compiler behind it is not what is tested."""
    call = torch.compile(
        lambda x: topk_autograd.soft_threshold(x * 2, 6) + 1, backend="aot_eager", fullgraph=True
    )
    x = rows(3, 40).requires_grad_()
    call(x).sum().backward()
    other = x.detach().clone().requires_grad_()
    (topk_autograd.soft_threshold(other * 2, 6) + 1).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


@needs_kernels
def test_not_a_number_stays_visible() -> None:
    x = rows(2, 50)
    x[0, 3] = math.nan
    y = topk_autograd.soft_threshold(x, 5)
    assert y[0].isnan().all() and y[1].isfinite().all()


@needs_kernels
def test_several_threads_give_the_same_numbers() -> None:
    x = rows(64, 13824, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(topk_native.soft_threshold(x, 1106))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("path", ["native", "plain"])
@pytest.mark.parametrize("amount", [-0.3, 0.2])
def test_a_shift_moves_the_threshold_and_its_gradient(
    path: str, amount: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAMIS_TOPK", path)
    x, shift = rows(4, 300).requires_grad_(), torch.tensor([amount])
    y = topk_autograd.soft_threshold(x, 24, shift=shift)
    shift += 1  # training moves it before the backward pass
    g = rows(4, 300, seed=1)
    y.backward(g)
    np.testing.assert_allclose(
        y.detach().numpy(), topk.soft_threshold(x.detach().numpy(), 24, shift=amount), atol=1e-6
    )
    with torch.no_grad():
        z = topk.quantile(24, 300) + amount
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True, correction=0)
        m = g * (x > mean + std * z)
        s = m.sum(-1, keepdim=True)
        expected = m - s / 300 - (x - mean) * s * z / (std * 300)
    assert (x.grad - expected).abs().max() < 1e-7  # a shift is kept in float32


@pytest.mark.parametrize("path", ["native", "plain"])
def test_a_shift_moves_the_attention_s_threshold_only_where_keys_are_left_out(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAMIS_TOPK", path)
    s = rows(2, 40, 40)
    visible = torch.ones(40, 40, dtype=torch.bool).tril()
    shift = torch.tensor([0.4])
    kept = topk_autograd.mask_below(s, 8, visible, shift=shift).isfinite()
    expected = np.isfinite(topk.mask_below(s.numpy(), 8, visible.numpy(), shift=0.4))
    assert (kept.numpy() == expected).all()
    assert (kept.sum(-1)[:, :8] == torch.arange(1, 9)).all()
    if topk_native.runs(s):
        weights = topk_native.attention_weights(s, None, first=0, window=None, k=8, cap=None, shift=shift)
        assert ((weights > 0) == kept).all()
