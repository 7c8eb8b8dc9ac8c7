"""Published weights: one frozen record per set, stored as JSON beside the file it describes.

    src/tamis/CAPABILITY/weights/NAME.json    the record
    src/tamis/CAPABILITY/weights/NAME.onnx    the file it names (any format)
    src/tamis/CAPABILITY/weights/NAME.golden.npz   an input and the output it must give

A record says where the weights come from and how they are used, so that nothing about them has to be remembered
elsewhere. Names are `architecture.recipe`. `read` gives the bytes only if they have the recorded SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tamis.errors import WeightsError
from tamis.writing import replacing

PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything needed to use, judge and remake one set of weights."""

    name: str
    """`architecture.recipe`."""
    file: str
    """File name, in the folder of the record."""
    sha256: str
    licence: str
    """Of the weights. Says so if what they were trained on may be used for research only."""
    training_data: str
    command: str
    """The file in `runs/`, or the command, that made them."""
    preprocessing: Mapping[str, Any]
    operating_point: Mapping[str, float] = field(default_factory=dict)
    """Thresholds and factors chosen on development data, by name."""
    vocabulary: str = ""
    """What the outputs stand for, for example the name of a character table and its size."""
    um_per_px: float | None = None
    score: Mapping[str, Any] = field(default_factory=dict)
    """Measured on data that was neither trained nor tuned on; says which."""
    golden: str = ""
    """An .npz beside the file with arrays `input*` and `output*`, or empty."""
    golden_sha256: str = ""
    folder: Path = field(default=Path(), compare=False)
    """Where the record lies. Not stored."""

    @property
    def path(self) -> Path:
        return self.folder / self.file


def load(record: Path) -> Weights:
    """The record in a JSON file. Raises WeightsError when it is absent, not JSON, or lacks a field."""
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        return Weights(**stored, folder=record.parent)
    except FileNotFoundError:
        raise WeightsError(f"{record} is missing: {_way_out(record)}.") from None
    except (ValueError, TypeError) as error:  # no text, no JSON, or not these fields
        raise WeightsError(f"{record} is no record of weights ({error}): {_way_out(record)}.") from None
    except OSError as error:
        raise WeightsError(f"{record} cannot be read: {error.strerror or error}.") from None


def read(weights: Weights) -> bytes:
    """The weights, of which every byte is as published. Raises WeightsError otherwise."""
    return _verified(weights.path, weights.sha256)


def read_golden(weights: Weights) -> bytes:
    """The bytes of the golden .npz, verified like the weights."""
    return _verified(weights.folder / weights.golden, weights.golden_sha256)


def published(package: Path = PACKAGE) -> list[Weights]:
    """The records of every set of weights in the package, by capability and name."""
    return [load(record) for record in sorted(package.glob("*/weights/*.json"))]


def publish(weights: Weights, folder: Path) -> Path:
    """Write the record of `folder / weights.file`, with the hashes as they are now. Returns the record's path."""
    stored = asdict(weights)
    del stored["folder"]
    stored["sha256"] = sha256_of(folder / weights.file)
    stored["golden_sha256"] = sha256_of(folder / weights.golden) if weights.golden else ""
    record = folder / f"{weights.name}.json"
    with replacing(record) as beside:
        beside.write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing: {_way_out(path)}.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path} is not what was published: its SHA-256 is {found[:12]}..., the record says {sha256[:12]}...: "
            f"{_way_out(path)}."
        )
    return content


def _way_out(path: Path) -> str:
    if PACKAGE in path.resolve().parents:
        return "the installation is incomplete; install tamis again"
    return "name the .json record that was written beside the weights"
