"""A trained network, run by ONNX Runtime: [H, W, 3] uint8 -> probability [H, W].

What is needed besides the graph comes from its record: um/px, threshold, stride, overlap, and whether it expects stained
tissue. The published one lies in the package; `tamis weakseg export` makes others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tamis import weights
from tamis.errors import InputError
from tamis.processors import processors
from tamis.weakseg.maps import Map
from tamis.weakseg.refine import refine
from tamis.weights import Weights

FOLDER = Path(__file__).parent / "weights"
PUBLISHED = "side_outputs.glas_cdws"


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a network wants to be fed, from its record."""

    um_per_px: float | None
    """None: images as they are."""
    stride_px: int
    overlap_px: int
    """What neighbouring tiles have in common: at least the reach of the network on both sides."""
    stained: bool
    """Whether it learned from stained tissue, so that glass need not be looked at."""
    threshold: float
    refined: bool
    """Whether the map is led by the image afterwards (tamis.weakseg.refine)."""

    @classmethod
    def of(cls, record: Weights) -> Geometry:
        told: Mapping[str, Any] = record.preprocessing
        return cls(
            record.um_per_px,
            int(told["stride_px"]),
            int(told["overlap_px"]),
            bool(told["stained"]),
            float(record.operating_point["threshold"]),
            bool(told.get("refined", False)),
        )


class Network:
    """Callable on one image or tile of any size."""

    def __init__(self, graph: bytes, record: Weights, threads: int = 1) -> None:
        self.record = record
        self.geometry = Geometry.of(record)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, image: NDArray[np.uint8]) -> Map:
        """[H, W, 3] -> [H, W]: padded to the stride by repeating the edge, cut back, and refined if the record says so."""
        fused = self.unrefined(image)
        return refine(fused, image) if self.geometry.refined else fused

    def unrefined(self, image: NDArray[np.uint8]) -> Map:
        """What the graph alone says: [H, W, 3] -> [H, W]."""
        height, width = image.shape[:2]
        below, right = (-size % self.geometry.stride_px for size in (height, width))
        if below or right:
            image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
        (fused,) = self._session.run(None, {"image": np.ascontiguousarray(image[None])})
        return np.asarray(fused[0, :height, :width], np.float32)


def load(record: str | Path | None = None, threads: int = 0) -> Network:
    """The network of a record: a published name, or the path of a JSON file. None: the published one.

    threads   0 takes every processor that this process may use

    Raises WeightsError when a file is absent or not as recorded, and InputError for a record of something else.
    """
    path = Path(record) if record is not None else FOLDER / f"{PUBLISHED}.json"
    if record is not None and not path.exists() and (FOLDER / f"{record}.json").exists():
        path = FOLDER / f"{record}.json"
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, and weights are a record: of a run,  tamis weakseg export {path} -o NAME.json  makes one."
        )
    found = weights.load(path)
    told = set(found.preprocessing) | set(found.operating_point)
    if not {"stride_px", "overlap_px", "stained", "threshold"} <= told:
        raise InputError(
            f"{path} is a record of other weights: one made by  tamis weakseg export  is expected."
        )
    return Network(weights.read(found), found, threads or processors())
