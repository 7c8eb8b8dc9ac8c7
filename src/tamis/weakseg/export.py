"""Turn a trained run into what ships: one ONNX graph with weights in half precision, a record, a golden input and output.

    tamis weakseg export RUN... -o FOLDER/NAME.json [--licence ...] [--score scores.json]

Several runs of one recipe with different seeds become one network, the mean of their maps, over one common trunk. Refuses
when ONNX Runtime and PyTorch differ. The graph takes [1, H, W, 3] uint8 and normalises by itself; H and W are multiples of
the stride.
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tamis import weights
from tamis.errors import InputError, TrainingError, UsageError
from tamis.onnx_weights import half_precision
from tamis.weakseg.images import read_image
from tamis.weakseg.maps import to_working_size
from tamis.weakseg.network import Network
from tamis.weakseg.networks import Mean, SideOutputNetwork
from tamis.weakseg.recipe import Recipe, recipe_from
from tamis.weakseg.train import predict
from tamis.writing import replacing

TOLERANCE = 0.01
"""Of a probability: weights are stored in half precision."""
OVERLAP_PX = {"vgg": 48, "vgg16": 192, "lite0": 128}
"""Twice the reach of the deepest output: 22 px for VGG's third stage, 98 for its fifth; for EfficientNet-Lite0 what changes
a map by more than 0.01."""
THRESHOLD = 0.5
"""Where no score names another."""
GOLDEN_PX = 192


def load_network(run: Path, fold: str = "all") -> tuple[SideOutputNetwork, Recipe]:
    """The trained network of RUN/fold-FOLD in eval mode, and its recipe. Raises InputError."""
    table, stored = run / "recipe.json", run / f"fold-{fold}" / "network.pt"
    for path in (table, stored):
        if not path.exists():
            raise InputError(f"{path} is missing: {run} holds no finished training of fold {fold!r}.")
    try:
        recipe = recipe_from(table.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as fault:
        raise InputError(f"{table} is no recipe ({fault}): train again.") from None
    network = SideOutputNetwork(recipe.trunk, sides=recipe.sides, width=recipe.width, fusion=recipe.fusion)
    try:
        network.load_state_dict(torch.load(stored, map_location="cpu", weights_only=True))
    except Exception as fault:  # those of pickle, zip and torch have nothing in common
        raise InputError(
            f"{stored} is damaged or of another recipe ({type(fault).__name__}): train again."
        ) from fault
    return network.eval(), recipe


def load_networks(runs: Sequence[Path]) -> tuple[SideOutputNetwork | Mean, Recipe]:
    """One network, or the mean of several. Raises InputError when their recipes or trunks differ."""
    loaded = [load_network(run) for run in runs]
    networks, recipe = [network for network, _ in loaded], loaded[0][1]
    if len(networks) == 1:
        return networks[0], recipe
    first = networks[0].trunk.state_dict()
    for run, (network, other) in zip(runs, loaded, strict=True):
        same = all(torch.equal(first[name], value) for name, value in network.trunk.state_dict().items())
        if other != recipe or not same:
            raise InputError(
                f"{run} differs from {runs[0]} in more than its seed: only alike runs can be averaged."
            )
    return Mean(networks).eval(), recipe


def to_onnx(network: SideOutputNetwork | Mean) -> bytes:
    """The graph image [1, H, W, 3] uint8 -> probability [1, H, W] float32."""
    buffer = io.BytesIO()
    side = 16 * network.stride
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript, and writes the same graph for a network of convolutions.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding")
        torch.onnx.export(
            network,
            (torch.zeros(1, side, side, 3, dtype=torch.uint8),),
            buffer,  # type: ignore[arg-type]
            input_names=["image"],
            output_names=["probability"],
            dynamic_axes={"image": {1: "height", 2: "width"}, "probability": {1: "height", 2: "width"}},
            dynamo=False,
            opset_version=17,
        )
    return half_precision(buffer.getvalue())


def golden_image() -> NDArray[np.uint8]:
    """[192, 192, 3]: a program's picture of glands, so that no pixel of research-only data is shipped."""
    from tamis.weakseg.phantom import phantom

    return phantom(GOLDEN_PX, GOLDEN_PX, seed=7)[0]


def export(
    runs: Sequence[Path],
    record: Path,
    *,
    licence: str,
    training_data: str,
    command: str,
    score: dict[str, Any],
    refined: bool,
    threshold: float,
    examples: list[tuple[Path, float | None]],
) -> float:
    """Write FOLDER/NAME.{onnx,golden.npz,json}; the largest difference of ONNX Runtime to PyTorch, on the golden image
    and on `examples` (path, um/px). Raises TrainingError when it exceeds TOLERANCE; nothing is then written."""
    network, recipe = load_networks(runs)
    graph = to_onnx(network)
    name = record.name.removesuffix(".json")
    described = weights.Weights(
        name=name,
        file=f"{name}.onnx",
        sha256="",
        licence=licence,
        training_data=training_data,
        command=command,
        preprocessing={
            "image": "[1, H, W, 3] uint8 RGB, H and W multiples of stride_px; normalised inside the graph",
            "stride_px": network.stride,
            "overlap_px": OVERLAP_PX[recipe.trunk],
            "stained": recipe.stained,
            "trunk": recipe.trunk,
            "networks": len(runs),
            "refined": refined,
        },
        operating_point={"threshold": threshold},
        vocabulary="probability that a pixel is cancer",
        um_per_px=recipe.um_per_px,
        score=score,
        golden=f"{name}.golden.npz",
    )
    runtime = Network(graph, described)
    golden = golden_image()
    expected = predict(network, golden)
    difference = float(np.abs(runtime.unrefined(golden) - expected).max())
    for path, um_per_px in examples:
        image = to_working_size(read_image(path), um_per_px, recipe.um_per_px, path)
        difference = max(difference, float(np.abs(runtime.unrefined(image) - predict(network, image)).max()))
    if difference > TOLERANCE:
        raise TrainingError(
            f"ONNX and PyTorch differ by {difference:.4f} in a probability: nothing was written."
        )
    with replacing(record.parent / described.file) as beside:
        beside.write_bytes(graph)
    with replacing(record.parent / described.golden) as beside:
        np.savez_compressed(beside, input=golden, output=runtime(golden))
    weights.publish(described, record.parent)
    return difference


def read_score(path: Path) -> dict[str, Any]:
    """What  tamis weakseg evaluate --json  printed for one MAPS. Raises InputError for anything else."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told_score(found)
        float(found["threshold"])
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise InputError(
            f"{path} is not what  tamis weakseg evaluate DATASET MAPS --json  prints ({type(fault).__name__}: {fault})."
        ) from None
    return found


def told_score(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """What evaluate printed as JSON, as the record tells it."""
    if not evaluated:
        return {}
    told: dict[str, Any] = {"measured_on": "images held out by cross-validation, as evaluate printed it"}
    for name, estimate in evaluated["figures"]["maps"].items():
        if None not in estimate.values():  # what these images do not have, such as negatives
            told[name] = (
                f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}], n {estimate['n']}"
            )
    told["all_foreground_pooled_f1"] = round(evaluated["figures"]["all foreground"]["pooled_f1"]["value"], 3)
    return told


def main(options: argparse.Namespace) -> None:
    from tamis.weakseg.labels import read_dataset

    if options.output.suffix != ".json":
        raise UsageError(
            f"{options.output} does not end in .json: name the record; the graph is put beside it."
        )
    images = read_dataset(options.dataset).images[:8] if options.dataset else ()
    score = read_score(options.score) if options.score else {}
    difference = export(
        options.runs,
        options.output,
        licence=options.licence,
        training_data=options.training_data,
        command=options.command,
        score=told_score(score),
        refined=options.refine,
        threshold=float(score.get("threshold", THRESHOLD)),
        examples=[(image.path, image.um_per_px) for image in images],
    )
    size_mb = (
        options.output.with_name(options.output.name.removesuffix(".json") + ".onnx").stat().st_size / 1e6
    )
    print(
        f"{options.output}: {size_mb:.2f} MB; largest difference between ONNX and PyTorch: {difference:.5f}"
    )
