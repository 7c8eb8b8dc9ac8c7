"""python -m pytest tests/proliferation/test_evaluate.py"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tamis.agreement import Detections
from tamis.cli import main
from tamis.proliferation.evaluate import Options, compare, evaluate, plain
from tamis.proliferation.matching import match
from tamis.proliferation.submission import Points, Scores, Submission

MITOSES = np.array([[100.0, 100.0], [110.0, 100.0], [300.0, 300.0]])


def test_a_detection_hits_one_mitosis_and_a_mitosis_is_hit_once() -> None:
    found = np.array([[104.0, 100.0], [101.0, 100.0], [500.0, 500.0]])
    # Greedily, (101) takes the first mitosis and (104) is left to the second, 6 um away: both are hits.
    assert match(found, MITOSES) == Detections(2, 1, 1)


def test_the_radius_is_seven_and_a_half_micrometres() -> None:
    assert match(np.array([[107.5, 100.0]]), MITOSES[:1]) == Detections(1, 0, 0)
    assert match(np.array([[107.6, 100.0]]), MITOSES[:1]) == Detections(0, 1, 1)
    assert match(np.array([[100.0 + 30 * 0.25, 100.0]]), MITOSES[:1]).true_positives == 1


def test_surplus_detections_are_false_or_ignored() -> None:
    found = np.array([[300.0, 300.0], [302.0, 300.0], [304.0, 300.0], [900.0, 900.0]])
    assert match(found, MITOSES, surplus="false-positive") == Detections(1, 3, 2)
    assert match(found, MITOSES, surplus="ignore") == Detections(1, 1, 2)


def test_matching_finds_the_most_hits() -> None:
    """Against every assignment, tried one by one."""
    from itertools import permutations

    generator = np.random.default_rng(0)
    for _ in range(50):
        found, truth = generator.uniform(0, 25, (4, 2)), generator.uniform(0, 25, (5, 2))
        near = np.linalg.norm(found[:, None] - truth[None], axis=2) <= 7.5
        most = max(sum(near[i, j] for i, j in enumerate(order)) for order in permutations(range(5), 4))
        assert match(found, truth).true_positives == most


def test_a_slide_of_thousands_needs_no_table_of_all_pairs() -> None:
    """3,000 by 2,000 distances are 48 MB; the pairs within reach of each other, 2,000."""
    truth = np.stack([np.arange(2000) * 20.0, np.zeros(2000)], axis=1)
    found = np.concatenate([truth + np.array([5.0, 0.0]), truth[:1000] + np.array([0.0, 500.0])])
    tracemalloc.start()
    assert match(found, truth) == Detections(2000, 1000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_nothing_to_find_and_nothing_found() -> None:
    nothing = np.empty((0, 2))
    assert match(nothing, nothing) == Detections(0, 0, 0)
    assert match(nothing, MITOSES) == Detections(0, 0, 3)
    assert match(MITOSES, nothing) == Detections(0, 3, 0)


def scored(name: str, column: list[float], task: str = "mitotic_score") -> Submission:
    values = {"mitotic_score": None, "pam50_proliferation": None} | {task: np.array(column, float)}
    return Submission(name, scores=Scores(Path(name), None, **values))


def marked(name: str, images: dict[str, list[tuple[float, float, float]]]) -> Submission:
    arrays = {image: np.array(points, float).reshape(-1, 3) for image, points in images.items()}
    return Submission(name, points=Points(Path(name), arrays, True))


def test_cases_are_the_units_of_task_three() -> None:
    nan = float("nan")
    truth = marked("truth", {"01/01": [(10, 10, nan)], "01/02": [(10, 10, nan)], "02/01": [(50, 50, nan)]})
    found = marked("found", {"01/01": [(11, 10, 0.9), (90, 90, 0.2)], "01/02": [], "02/01": [(50, 51, 0.8)]})
    result = evaluate(found, truth)
    assert result.detections == Detections(2, 1, 1)
    assert plain(result)["task3"]["f1"] == pytest.approx(2 / 3)
    assert plain(result)["task3"]["n"] == 2
    strict = evaluate(found, truth, Options(threshold=0.5))
    assert strict.detections == Detections(2, 0, 1)


def test_the_order_of_images_does_not_matter() -> None:
    generator = np.random.default_rng(1)
    places = {f"{case:02d}/01": [(*generator.uniform(0, 99, 2), 1.0) for _ in range(9)] for case in range(8)}
    moved = {image: [(x + 2, y, p) for x, y, p in points[2:]] for image, points in places.items()}
    forward = evaluate(marked("m", moved), marked("t", places))
    backward = evaluate(
        marked("m", dict(reversed(moved.items()))), marked("t", dict(reversed(places.items())))
    )
    assert forward == backward


def test_the_compatible_interval_is_narrower_and_the_value_the_same() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(size=80)
    truth = scored("t", list(values), "pam50_proliferation")
    found = scored("f", list(values + generator.normal(size=80)), "pam50_proliferation")
    true, compatible = (
        plain(evaluate(found, truth, Options(tupac_compat=c)))["task2"] for c in (False, True)
    )
    assert true["spearman"] == compatible["spearman"]
    assert true["low"] < compatible["low"] < compatible["high"] < true["high"]
    half = np.arctanh(true["high"]) - np.arctanh(true["spearman"])
    narrow = np.arctanh(compatible["high"]) - np.arctanh(compatible["spearman"])
    assert half / narrow == pytest.approx(1.959964, rel=1e-5)


def test_a_constant_prediction_has_kappa_zero_and_every_number_is_json() -> None:
    result = plain(evaluate(scored("f", [2] * 6), scored("t", [1, 2, 3, 1, 2, 3])))
    assert result["task1"]["kappa"] == pytest.approx(0, abs=1e-12)
    json.dumps(result, allow_nan=False)
    one = plain(
        evaluate(scored("f", [0.5], "pam50_proliferation"), scored("t", [1.5], "pam50_proliferation"))
    )
    assert one["task2"] == {"spearman": 0.0, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize("truth", [[3, 2, 1, 1, 2], [1, 1, 1, 2], [1, 2, 3] * 9])
def test_all_right_has_no_interval_from_the_bootstrap_either(truth: list[float]) -> None:
    """A draw of one category alone has kappa 0: of [1, 1, 1, 2] a third."""
    result = evaluate(scored("f", truth), scored("t", truth), Options(bootstrap_kappa=True))
    assert plain(result)["task1"] == {"kappa": pytest.approx(1), "low": None, "high": None, "n": len(truth)}


@pytest.mark.parametrize("task", ["task1", "task2"])
def test_a_paired_comparison_sees_what_two_intervals_hide(task: str) -> None:
    generator = np.random.default_rng(3)
    column = {"task1": "mitotic_score", "task2": "pam50_proliferation"}[task]
    truth = generator.integers(1, 4, 150)
    good = np.where(generator.random(150) < 0.8, truth, generator.integers(1, 4, 150))
    poor = np.where(generator.random(150) < 0.87, good, generator.integers(1, 4, 150))
    all_three = [scored(n, list(v), column) for n, v in (("t", truth), ("good", good), ("poor", poor))]
    difference = compare(task, all_three[1], all_three[2], all_three[0])
    values = [plain(evaluate(s, all_three[0]))[task] for s in all_three[1:]]
    metric = {"task1": "kappa", "task2": "spearman"}[task]
    assert difference.estimate.value == pytest.approx(values[0][metric] - values[1][metric])
    assert difference.p < 0.05 and difference.estimate.low > 0
    assert values[0]["low"] < values[1]["high"]  # the intervals of the two overlap
    same = compare(task, all_three[1], all_three[1], all_three[0])
    assert same.p == 1.0 and same.estimate.value == 0


def test_who_finds_nothing_where_there_is_nothing_is_better_by_all() -> None:
    """The p is of the same F1 as the difference beside it: 1 for nothing to find and nothing found."""
    images = [f"{case:02d}/01" for case in range(8)]
    nothing = marked("nothing", {image: [] for image in images})
    invents = marked("invents", {image: [(9, 9, 0.5)] for image in images})
    difference = compare("task3", nothing, invents, nothing)
    assert difference.estimate.value == 1
    assert difference.p < 0.05, "2 of 256 exchanges are as extreme"


# the command


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """A truth and three submissions of which one is refused."""
    generator = np.random.default_rng(4)
    truth = generator.integers(1, 4, 60)
    pam50 = truth + generator.normal(size=60)

    def put(name: str, scores: np.ndarray, values: np.ndarray) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{s:.0f},{v:.5f}\n" for s, v in zip(scores, values, strict=True)))

    put("truth.csv", truth, pam50)
    put("board/close.csv", np.where(generator.random(60) < 0.8, truth, 2), pam50 + generator.normal(size=60))
    put("board/far.csv", generator.integers(1, 4, 60), generator.normal(size=60))
    put("board/broken.csv", truth, np.where(np.arange(60) == 7, np.nan, pam50))
    return tmp_path


def test_one_submission_prints_exactly_its_tasks(challenge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "proliferation",
        "evaluate",
        str(challenge / "truth.csv"),
        str(challenge / "board" / "close.csv"),
    ]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {task: list(value or {}) for task, value in record.items()} == {
        "task1": ["kappa", "low", "high", "n"],
        "task2": ["spearman", "low", "high", "n"],
        "task3": [],
    }
    assert record["task1"]["n"] == 60
    assert main([*command, "--json", "--interval", "bootstrap"]) == 0
    bootstrap = json.loads(capsys.readouterr().out)
    assert bootstrap["task1"]["kappa"] == record["task1"]["kappa"]
    assert bootstrap["task1"]["low"] == pytest.approx(record["task1"]["low"], abs=0.05)


def test_a_folder_is_a_leaderboard(challenge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = challenge / "board.png"
    command = ["proliferation", "evaluate", str(challenge / "truth.csv"), str(challenge / "board")]
    assert main([*command, "--figure", str(figure)]) == 1
    printed = capsys.readouterr()
    assert "broken.csv, task 2 (pam50_proliferation): row 8 is not a finite number" in printed.err
    lines = [
        line for line in printed.out.splitlines() if line.startswith("  1  ") or line.startswith("  2  ")
    ]
    assert [line.split()[1] for line in lines] == ["close", "far"] * 2
    assert "behind by" in lines[1]
    assert figure.stat().st_size > 5000
    assert main([*command, "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert set(record["submissions"]) == {"close", "far"}
    assert [d["task"] for d in record["differences"]] == ["task1", "task2"]


def test_where_there_is_no_interval_the_table_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one slide and one image, and of two methods that are both right throughout."""
    for name in ("truth", "a", "b"):
        (tmp_path / name / "01").mkdir(parents=True)
        (tmp_path / name / "scores.csv").write_text("2,0.3\n")
        (tmp_path / name / "01" / "01.csv").write_text("10,20\n")
    command = ["proliferation", "evaluate", *(str(tmp_path / name) for name in ("truth", "a", "b"))]
    figure = tmp_path / "board.svg"
    assert main([*command, "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert printed.count("behind by 0.000 [no interval], p = 1.0000") == 3
    assert "bootstrap [no interval]" in printed
    assert figure.stat().st_size > 5000
    assert main([*command, "--json"]) == 0
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert {d["low"] for d in json.loads(text)["differences"]} == {None}


def test_the_tupac_training_scores_are_a_truth(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = shared_data / "pathology" / "tables" / "tupac16_train_scores.csv"
    assert main(["proliferation", "evaluate", str(table), str(table), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["task1"]["kappa"] == pytest.approx(1.0)
    assert record["task2"] == {"spearman": pytest.approx(1.0), "low": None, "high": None, "n": 500}
