"""Weights stored in half the space, outputs as before but for rounding."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from tamis.onnx_weights import SMALL, half_precision  # noqa: E402


def graph(columns: int) -> tuple[bytes, np.ndarray]:
    """y = x W + b, W [32, columns]."""
    rng = np.random.default_rng(1)
    matrix, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((32, columns), (columns,)))
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])],
        [numpy_helper.from_array(matrix, "W"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), rng.normal(size=(1, 32)).astype(np.float32)


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_half_the_size_and_the_same_output_but_for_rounding() -> None:
    content, x = graph(200)
    halved = half_precision(content)
    assert len(halved) < 0.6 * len(content)
    wanted, found = run(content, x), run(halved, x)
    assert not np.array_equal(found, wanted)
    np.testing.assert_allclose(found, wanted, atol=32 * 4 * 2**-11)


def test_small_tensors_keep_their_precision() -> None:
    content, x = graph(SMALL // 32 - 1)
    np.testing.assert_array_equal(run(half_precision(content), x), run(content, x))
