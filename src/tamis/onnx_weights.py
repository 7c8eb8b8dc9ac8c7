"""Trained weights in an ONNX graph at half their size. Training only: needs the package onnx.

What ships stores its kernels as float16; the graph casts them back once, when the runtime loads it, so that it computes in
float32. Parity tests of each capability bound what the rounding costs.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALL = 256  # numbers; below, biases and gains keep their precision for next to nothing


def half_precision(graph: bytes) -> bytes:
    """The same serialised graph, checked, with every float32 tensor of at least SMALL numbers stored as float16."""
    model = onnx.load_from_string(graph)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
