"""python -m pytest tests/test_weights.py"""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from tamis import weights
from tamis.errors import WeightsError
from tamis.weights import Weights

RECORD = Weights(
    name="toy.first",
    file="toy.first.bin",
    sha256="",
    licence="Apache-2.0",
    training_data="nothing",
    command="runs/toy.sh",
    preprocessing={"mean": 0.5},
    operating_point={"threshold": 0.25},
    golden="toy.first.golden.npz",
)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    folder = tmp_path / "toys" / "weights"
    folder.mkdir(parents=True)
    (folder / RECORD.file).write_bytes(b"\x01\x02\x03")
    (folder / RECORD.golden).write_bytes(b"golden")
    return weights.publish(RECORD, folder)


def test_a_published_record_comes_back_with_its_hashes(record: Path) -> None:
    found = weights.load(record)
    assert found.sha256 == "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81"  # sha256sum
    assert weights.read(found) == b"\x01\x02\x03"
    assert weights.read_golden(found) == b"golden"
    assert found.operating_point == {"threshold": 0.25}
    assert "folder" not in json.loads(record.read_text())
    with pytest.raises(FrozenInstanceError):
        found.name = "other"  # type: ignore[misc]


def test_every_record_of_a_package_is_found(record: Path) -> None:
    assert [w.name for w in weights.published(record.parents[2])] == ["toy.first"]


def test_altered_weights_are_refused(record: Path) -> None:
    found = weights.load(record)
    found.path.write_bytes(b"\x01\x02\x04")
    with pytest.raises(WeightsError, match="not what was published"):
        weights.read(found)


def test_missing_weights_say_what_to_do(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own are to be named rightly; those of the package come with the installation."""
    found = weights.load(record)
    found.path.unlink()
    with pytest.raises(WeightsError, match=r"is missing: name the \.json"):
        weights.read(found)
    monkeypatch.setattr(weights, "PACKAGE", record.parents[2])
    with pytest.raises(WeightsError, match=r"is missing: .*install tamis again"):
        weights.read(found)
    record.unlink()
    with pytest.raises(WeightsError, match="is missing"):
        weights.load(record)


def test_a_record_that_is_no_text_or_no_file_says_so(record: Path) -> None:
    record.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="no record of weights"):
        weights.load(record)
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.load(record.parent)


@pytest.mark.parametrize("text", ["", "[]", '{"name": "toy.first"}', '{"surprise": 1}'])
def test_a_broken_record_says_so(record: Path, text: str) -> None:
    record.write_text(text)
    with pytest.raises(WeightsError, match="no record of weights"):
        weights.load(record)


def test_the_weights_in_this_package_are_as_published_and_small() -> None:
    total = 0
    for found in weights.published():
        total += len(weights.read(found))
        assert found.licence and found.training_data and found.command and found.score, found.name
        assert found.name.count(".") == 1, found.name
        if found.golden:
            weights.read_golden(found)
    assert total < 40_000_000


def test_no_weights_come_without_a_record() -> None:
    described = {found.path for found in weights.published()}
    described |= {found.folder / found.golden for found in weights.published() if found.golden}
    binary = {
        p
        for p in weights.PACKAGE.glob("*/weights/*")
        if p.suffix in {".npz", ".onnx", ".safetensors", ".bin"}
    }
    assert binary - described == set()
