"""The small trained model that ships: where it is, after its hashes were verified. Light."""

from __future__ import annotations

from pathlib import Path

from tamis import weights
from tamis.errors import WeightsError

FOLDER = Path(__file__).parent / "weights"
NAME = "spark-1m.text-en"
BESIDE = ("config.json", "tokenizer.json")
"""Files beside the weights whose hashes the record holds under `preprocessing`."""


def named(model: Path) -> Path:
    """A model's path as it is; the model that ships, where nothing of that path exists and it has the name."""
    return shipped() if str(model) == NAME and not model.exists() else model


def shipped(name: str = NAME) -> Path:
    """The checkpoint folder. Raises WeightsError when a file is absent or altered."""
    record = weights.load(FOLDER / f"{name}.json")
    weights.read(record)
    folder = record.path.parent
    for file in BESIDE:
        path = folder / file
        if not path.exists() or weights.sha256_of(path) != record.preprocessing[f"{file} sha256"]:
            raise WeightsError(f"{path} is missing or not what was published; install tamis again.")
    return folder
