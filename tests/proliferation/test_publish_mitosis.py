"""What is published is what was trained, measured on cases set aside, and loads as a detector.

python -m pytest tests/proliferation/test_publish_mitosis.py
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tamis import weights
from tamis.errors import TrainingError
from tamis.proliferation import publish_mitosis
from tamis.proliferation.candidates import INPUTS
from tamis.proliferation.detect import CANDIDATES, NETWORK, Detector
from tamis.proliferation.fields import Field
from tamis.proliferation.networks import MitosisNetwork
from tamis.proliferation.publish_mitosis import (
    Exported,
    Scored,
    averaged,
    best_threshold,
    figures,
    golden_windows,
    score_nuclei,
    to_onnx,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter


def network(seed: int) -> MitosisNetwork:
    torch.manual_seed(seed)
    return MitosisNetwork().eval()


def field(case: str, seed: int) -> Field:
    """A mitosis in the middle, two mined nuclei, and two look-alikes of which one is cut by the patch's edge."""
    pixels = np.random.default_rng(seed).integers(170, 220, (128, 128, 3)).astype(np.uint8)
    for x, y in ((64, 64), (30, 40), (100, 90), (20, 100), (126, 20)):
        cv2.circle(pixels, (x, y), 6, (70, 40, 110), -1)
    mined = ((30.0, 40.0, 0.9), (100.0, 90.0, 0.2))
    return Field(
        f"{case}{seed}", case, "scanner", pixels, ((64.0, 64.0),), ((20.0, 100.0), (126.0, 20.0)), mined
    )


@pytest.fixture
def fields() -> list[Field]:
    return [field(case, n) for n, case in enumerate("aabbccddeeffgghh")]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Two untrained networks, and a perceptron that lets everything through."""
    for seed in (0, 1):
        torch.save({"model": network(seed).state_dict(), "averaged": None}, tmp_path / f"n{seed}.pt")
    np.savez(
        tmp_path / "candidates.npz",
        hidden=np.zeros((INPUTS, 1), np.float16),
        hidden_bias=np.zeros(1, np.float32),
        output=np.zeros(1, np.float32),
        output_bias=np.float32(0),
    )
    return tmp_path


def test_two_networks_become_their_mean() -> None:
    windows = golden_windows()
    detector = Detector.__new__(Detector)
    detector.__init__(to_onnx([network(0), network(1)]), None, 0.5, 0.0)  # type: ignore[misc, arg-type]
    (together,) = detector.session.run(None, {"pixels": windows})
    with torch.no_grad():
        alone = [Exported([network(seed)])(torch.from_numpy(windows)).numpy() for seed in (0, 1)]
    assert np.abs(together - (alone[0] + alone[1]) / 2).max() < 1e-4
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_every_labelled_nucleus_is_scored_by_its_kind(fields: list[Field], work: Path) -> None:
    seen: list[np.ndarray] = []

    class Counting(Detector):
        def __init__(self) -> None:
            pass

        def probabilities(self, windows: np.ndarray) -> np.ndarray:
            seen.append(windows)
            return np.linspace(0, 1, len(windows))

    scored = score_nuclei(Counting(), fields[:2])
    kinds = [s.kind for s in scored]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "mitosis": 2,
        "darkest": 2,
        "mined": 2,
        "whole": 2,
        "expert": 2,
    }
    assert seen[0].shape == (10, 128, 128, 3)
    # The patch's own mitosis is painted over in a negative's window.
    negative = seen[0][kinds.index("darkest")]
    assert negative[64 + 24 - 3 : 64 + 24 + 3, 64 + 34 - 3 : 64 + 34 + 3].mean() > 150


def scored(*rows: tuple[str, str, float]) -> list[Scored]:
    return [Scored(case, kind, chance, chance) for case, kind, chance in rows]


def test_the_threshold_lies_in_the_middle_of_the_best() -> None:
    some = scored(("a", "mitosis", 0.9), ("a", "mitosis", 0.8), ("b", "darkest", 0.4), ("b", "mined", 0.99))
    assert best_threshold(some) == pytest.approx(0.6, abs=0.02)  # what is mined but not dark does not count


def test_figures_against_each_kind_of_negatives() -> None:
    rows = [(f"c{n}", "mitosis", 0.7) for n in range(12)] + [(f"c{n}", "expert", 0.6) for n in range(12)]
    rows += [(f"c{n}", "whole", 0.8) for n in range(12)] + [(f"c{n}", "darkest", 0.1) for n in range(12)]
    report = figures(scored(*rows), 0.65)
    assert report["darkest third"]["auc"]["value"] == 1 and report["darkest third"]["f1"]["value"] == 1
    assert report["expert"]["auc"]["value"] == 0.5 and report["expert"]["negatives"] == 24
    assert report["whole expert"]["auc"]["value"] == 0
    assert report["expert"]["f1"]["value"] == pytest.approx(2 * 12 / 36)
    assert "mined" in report and "mined" not in figures(scored(("a", "mitosis", 0.7)), 0.5)


def test_what_is_published_loads_and_says_what_it_is(
    fields: list[Field], work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(publish_mitosis, "read_fields", lambda path, parts_too=False: fields)
    to = work / "detector"
    arguments = ["--work", str(work), "--to", str(to), "--checkpoint", "n0", "n1", "--least", "-1"]
    publish_mitosis.main([*arguments, "--threshold", "0.6", "--field-threshold", "0.4"])
    detector = Detector.published(folder=to)
    assert (detector.threshold, detector.field_threshold, detector.least_candidate) == (0.6, 0.4, -1)
    record = weights.load(to / f"{NETWORK}.json")
    assert "research" in record.licence and record.score["darkest third"]["mitoses"] > 0
    assert weights.load(to / f"{CANDIDATES}.json").score["mitoses_kept"] == 1
    with np.load(to / record.golden, allow_pickle=False) as golden:
        (out,) = detector.session.run(None, {"pixels": golden["input"]})
        assert np.abs(out - golden["output"]).max() < 1e-4
    # The same checkpoints at another threshold are measured again, not remembered.
    publish_mitosis.main([*arguments, "--threshold", "0.01"])
    assert json.loads((work / "scores.json").read_text())["threshold"] == 0.01
    assert "threshold 0.01" in capsys.readouterr().out


def test_a_graph_that_differs_from_its_network_is_not_published(
    fields: list[Field], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_mitosis, "read_fields", lambda path, parts_too=False: fields)
    other = to_onnx([network(5)])
    monkeypatch.setattr(publish_mitosis, "to_onnx", lambda networks: other)
    to = work / "detector"
    with pytest.raises(TrainingError, match="differ by"):
        publish_mitosis.main(
            ["--work", str(work), "--to", str(to), "--checkpoint", "n0", "--threshold", "0.5"]
        )
    assert not (to / f"{NETWORK}.onnx").exists()


def test_weights_are_averaged() -> None:
    torch.manual_seed(0)
    one, other = MitosisNetwork(), MitosisNetwork()
    mixed = averaged(one, other, 0.25)
    for name, value in mixed.state_dict().items():
        wanted = 0.75 * one.state_dict()[name] + 0.25 * other.state_dict()[name]
        assert torch.allclose(value, wanted)
    assert not torch.allclose(one.output.weight, other.output.weight)
