"""Turn trained members into the files that ship: an ONNX graph of the first trunk, one of the others, and the class vectors
as int8 rows.

    python -m tamis.subtitles.publish CHECKPOINT... [--head HEAD] [--to FOLDER]

Writes the weights with their records, a golden input with its output, and refuses when ONNX Runtime and PyTorch differ.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis import weights
from tamis.errors import TrainingError
from tamis.onnx_weights import half_precision
from tamis.subtitles.characters import classes
from tamis.subtitles.networks import Recogniser as Member
from tamis.subtitles.published import CLASSES, FIRST, FOLDER, TRUNKS
from tamis.subtitles.recognise import ClassVectors, Recogniser
from tamis.subtitles.strip import EM, HEIGHT, STRIDE
from tamis.subtitles.synthesis import MARGIN_Y
from tamis.training import load_weights

TRAINED_ON = (
    "lines rendered by tamis.subtitles.synthesis: Debian's CJK font packages (names in synthesis.TRAIN_FACES), the sentences of "
    "the shared texts whose line number modulo 20 is above 1, and openly licensed footage; no real subtitle was trained on"
)
TOLERANCE = (
    0.02  # of feature vectors whose entries are of the order of 1; half precision of the stored weights
)


class Ensemble(nn.Module):
    """All trunks on one strip: features [K, F, T] and state probabilities [K, 4, T]."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(member.trunk for member in members)

    def forward(self, strip: Tensor) -> tuple[Tensor, Tensor]:
        seen = [trunk(strip) for trunk in self.trunks]
        return torch.cat([f for f, _ in seen]), torch.cat([s.softmax(1) for _, s in seen])


def load_member(checkpoint: Path) -> Member:
    """A trained member in eval mode; its design is the checkpoint's file name."""
    member = Member(checkpoint.stem)
    member.load_state_dict(load_weights(checkpoint))
    return member.eval()


def to_onnx(ensemble: Ensemble) -> bytes:
    """The graph, strip [1, 2, 40, W] float32 in [0, 1], W any multiple of STRIDE; large weights in half precision."""
    buffer = io.BytesIO()
    example = torch.rand(1, 2, HEIGHT, 256)
    torch.onnx.export(
        ensemble,
        (example,),
        buffer,  # type: ignore[arg-type]
        input_names=["strip"],
        output_names=["features", "states"],
        dynamic_axes={"strip": {3: "width"}, "features": {2: "positions"}, "states": {2: "positions"}},
        dynamo=False,
    )
    return half_precision(buffer.getvalue())


def quantised_head(member: Member) -> dict[str, NDArray[np.generic]]:
    """Class vectors as int8 with one scale a row (error below 0.4 % of the row's largest entry)."""
    base = member.head.base.weight.detach().numpy()
    scale = np.maximum(np.abs(base).max(1), 1e-8) / 127
    return {
        "vectors": np.round(base / scale[:, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
        "bias": member.head.base.bias.detach().numpy().astype(np.float32),
        "parts": member.head.parts.weight.detach().numpy().astype(np.float16),
        "parts_bias": member.head.parts.bias.detach().numpy().astype(np.float32),
    }


def line_accuracy(recogniser: Recogniser, shard: Path, lines: int = 300) -> dict[str, float]:
    """Share of characters recognised at their true centres, alone, on rendered lines of development faces and texts."""
    right = count = 0
    with np.load(shard, allow_pickle=False) as stored:
        pixels, labels, spans, offsets = (stored[name] for name in ("pixels", "labels", "spans", "offsets"))
    for i in range(min(lines, len(pixels))):
        label, span = labels[offsets[i] : offsets[i + 1]], spans[offsets[i] : offsets[i + 1]]
        features, _ = recogniser.look(np.ascontiguousarray(pixels[i][:, MARGIN_Y:-MARGIN_Y]))
        position = (span[:, 2] // STRIDE).astype(int)
        seen = (label >= 0) & (position >= 0) & (position < len(features))
        best, _ = recogniser.best_classes(features[position[seen]], None, 1.0)
        right += int((best[:, 0] == label[seen]).sum())
        count += int(seen.sum())
    return {"development_character_accuracy": round(right / max(1, count), 4), "characters": count}


def publish(checkpoints: Sequence[Path], folder: Path, shard: Path, head: Path | None = None) -> None:
    """Write both files and their records into `folder`. `head` is a checkpoint of `train_head`; without one the first
    member's class vectors are taken."""
    members = [load_member(path) for path in checkpoints]
    if head is not None:
        shared = {name.removeprefix("head."): value for name, value in load_weights(head).items()}
        members[0].head.load_state_dict(shared)
    ensemble = Ensemble(members).eval()
    first, others = to_onnx(Ensemble(members[:1]).eval()), to_onnx(Ensemble(members[1:]).eval())
    vectors = io.BytesIO()
    np.savez(vectors, **quantised_head(members[0]))  # type: ignore[arg-type]

    recogniser = Recogniser(first, ClassVectors.load(vectors.getvalue()), others=others)
    with np.load(shard, allow_pickle=False) as stored:
        golden_strip = np.ascontiguousarray(stored["pixels"][0][:, MARGIN_Y:-MARGIN_Y])
    features, _ = recogniser.look(golden_strip)
    with torch.no_grad():
        expected, expected_states = ensemble(torch.from_numpy(golden_strip[None].astype(np.float32) / 255))
    difference = float(np.abs(features - expected.mean(0).T.numpy()).max())
    if difference > TOLERANCE * float(expected.abs().max()):
        raise TrainingError(
            f"ONNX and PyTorch differ by {difference:.4f} in a feature: nothing was published."
        )
    lattice = recogniser.lattice(recogniser.sight(golden_strip))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{FIRST}.onnx").write_bytes(first)
    (folder / f"{TRUNKS}.onnx").write_bytes(others)
    (folder / f"{CLASSES}.npz").write_bytes(vectors.getvalue())
    np.savez_compressed(
        folder / f"{TRUNKS}.golden.npz",
        input=golden_strip,
        output_states=expected_states.mean(0).T.numpy().astype(np.float16),
        output_labels=lattice.labels[:, 0],
    )
    names = ", ".join(path.stem for path in checkpoints)
    common: dict[str, Any] = {
        "licence": "Apache-2.0",
        "training_data": TRAINED_ON,
        "command": "runs/subtitles_characters.sh",
        "score": line_accuracy(recogniser, shard),
        "vocabulary": f"tamis.subtitles.characters.classes(), {len(classes())} characters",
    }
    old = folder / f"{TRUNKS}.json"
    kept = weights.load(old) if old.exists() else None
    trunk_record = weights.Weights(
        name=TRUNKS,
        file=f"{TRUNKS}.onnx",
        sha256="",
        preprocessing={
            "strip": f"[2, {HEIGHT}, W] mean and minimum luma over a cue's frames, text bright",
            "em_px": EM,
            "stride_px": STRIDE,
            "range": "[0, 1]",
            "members": names,
            "graph": f"of all but the first, which has its own, {FIRST}",
        },
        operating_point=dict(kept.operating_point) if kept else {},
        golden=f"{TRUNKS}.golden.npz",
        **common,
    )
    first_record = replace(
        trunk_record,
        name=FIRST,
        file=f"{FIRST}.onnx",
        preprocessing={
            **trunk_record.preprocessing,
            "members": checkpoints[0].stem,
            "graph": "of one member",
        },
        operating_point={},
        golden="",
    )
    head_record = weights.Weights(
        name=CLASSES,
        file=f"{CLASSES}.npz",
        sha256="",
        preprocessing={"input": "mean feature vector of the trunks"},
        **common,
    )
    for record in (first_record, trunk_record, head_record):
        path = weights.publish(record, folder)
        print(f"{path.name}: {(folder / asdict(record)['file']).stat().st_size / 1e6:.2f} MB")
    print(f"largest difference between ONNX and PyTorch: {difference:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument(
        "--lines", type=Path, default=Path("work/lines"), help="rendered lines; one becomes the golden input"
    )
    parser.add_argument("--head", type=Path, help="class vectors from tamis.subtitles.train_head")
    parser.add_argument("--to", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    publish(arguments.checkpoints, arguments.to, arguments.lines / "dev" / "shard-0000.npz", arguments.head)


if __name__ == "__main__":
    main()
