"""python -m pytest tests/test_doctor.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tamis import doctor, weights
from tamis.weights import Weights


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    folder = tmp_path / "toys" / "weights"
    folder.mkdir(parents=True)
    (folder / "toy.first.bin").write_bytes(bytes(1000))
    record = Weights(
        "toy.first",
        "toy.first.bin",
        "",
        "research only",
        "pixels",
        "runs/toy.sh",
        {},
        score={"right": 0.9, "hard_ones": {"n": 3, "right_too": 0.5}},
    )
    weights.publish(record, folder)
    monkeypatch.setattr(doctor, "published", lambda: weights.published(tmp_path))
    return weights.published(tmp_path)[0]


def test_sound_weights_with_their_licence(toy: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(as_json=False) == 0
    out = capsys.readouterr().out
    assert (
        "as published" in out
        and "licence research only" in out
        and "right: 0.9" in out
        and "hard ones: n 3, right too 0.5" in out
        and toy.sha256[:16] in out
    )


def test_altered_weights_are_status_1(toy: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    toy.path.write_bytes(bytes(999))
    assert doctor.main(as_json=False) == 1
    assert "not what was published" in capsys.readouterr().out
    assert doctor.main(as_json=True) == 1
    assert "not what was published" in json.loads(capsys.readouterr().out)["weights"][0]["fault"]


def test_a_broken_record_is_status_1(toy: Weights, capsys: pytest.CaptureFixture[str]) -> None:
    (toy.folder / "toy.first.json").write_text("{")
    assert doctor.main(as_json=False) == 1
    assert "is no record of weights" in capsys.readouterr().out


@pytest.mark.parametrize("extra", ["subtitles", "slides", "spark", "train", "cluster"])
def test_an_incomplete_extra_says_how_to_complete_it(
    extra: str, toy: Weights, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "extras", lambda: {extra: {"numpy": "2.0", "av": None}})
    doctor.main(as_json=False)
    out = capsys.readouterr().out
    assert "absent" in out and f'pip install "tamis[{extra}]"' in out
