"""A network of three operations, so that everything around a network is tested without one that was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tamis import weights
from tamis.weakseg.network import Network, load


def toy_record(folder: Path, *, um_per_px: float | None = 2.0, stained: bool = True, stride: int = 4) -> Path:
    """Weights whose probability is the darkness of green: 1 - green / 255. Returns the record."""
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["values", "one"], ["green"], axis=3),
        helper.make_node("Mul", ["green", "scale"], ["light"]),
        helper.make_node("Sub", ["unit", "light"], ["probability"]),
    ]
    constants = {
        "one": np.array(1, np.int64),
        "scale": np.array(1 / 255, np.float32),
        "unit": np.array(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "darkness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "h", "w", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [1, "h", "w"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.onnx").write_bytes(model.SerializeToString())
    record = weights.Weights(
        name="toy",
        file="toy.onnx",
        sha256="",
        licence="Apache-2.0",
        training_data="none",
        command="none",
        preprocessing={"stride_px": stride, "overlap_px": 16, "stained": stained},
        operating_point={"threshold": 0.5},
        um_per_px=um_per_px,
    )
    onnx.checker.check_model(model)
    return weights.publish(record, folder)


def toy_network(folder: Path, **settings: object) -> Network:
    return load(toy_record(folder, **settings), threads=1)  # type: ignore[arg-type]
