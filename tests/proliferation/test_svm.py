"""python -m pytest tests/proliferation/test_svm.py"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from tamis.errors import TrainingError, WeightsError
from tamis.proliferation import train_score
from tamis.proliferation.svm import Machine, from_bytes, to_arrays
from tamis.weights import load, read, read_golden


@pytest.fixture(autouse=True)
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_score, "COSTS", (1.0, 10.0))
    monkeypatch.setattr(train_score, "GAMMAS", (0.03, 0.3))
    monkeypatch.setattr(train_score, "TUBES", (0.1,))
    monkeypatch.setattr(train_score, "FOLDS", 3)


def slides(n: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of which the first two tell the score, and a PAM50 value that follows it."""
    generator = np.random.default_rng(n)
    score = generator.integers(1, classes + 1, n).astype(float)
    features = generator.normal(size=(n, 5)) + score[:, None] * np.array([1.5, 0.7, 0, 0, 0])
    return features, score, score - 2 + generator.normal(size=n) * 0.5


@pytest.mark.parametrize("classes", [2, 3])
def test_the_classifier_predicts_as_scikit_learn_does(classes: int) -> None:
    features, score, _ = slides(90, classes)
    machine, search = train_score.fit(train_score.classifier, features, score, score, 0)
    fresh = np.random.default_rng(1).normal(size=(400, 5)) * 3
    assert np.array_equal(machine.predict(fresh), search.predict(fresh))
    assert machine.predict(fresh[0]) == search.predict(fresh[:1])[0]


def test_the_regression_predicts_as_scikit_learn_does() -> None:
    features, score, pam50 = slides(90)
    machine, search = train_score.fit(train_score.regression, features, pam50, score, 0)
    fresh = np.random.default_rng(1).normal(size=(400, 5)) * 3
    assert np.allclose(machine.predict(fresh), search.predict(fresh), rtol=1e-10, atol=1e-12)


def test_a_stored_machine_is_the_same_machine() -> None:
    features, score, _ = slides(60)
    machine, _ = train_score.fit(train_score.classifier, features, score, score, 0)
    buffer = BytesIO()
    np.savez(buffer, **to_arrays("mitotic_score", machine))
    again = from_bytes(buffer.getvalue())["mitotic_score"]
    assert np.array_equal(again.predict(features), machine.predict(features))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a machine"])
def test_what_is_no_machine_is_refused(content: bytes) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        from_bytes(content)


def test_the_interval_of_residuals_covers_errors_drawn_alike() -> None:
    """With 99 errors the 3rd and the 98th smallest end it: 95 % and a little of fresh errors fall between."""
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        machine = machine_with(np.sort(generator.exponential(size=99)))
        low, high = machine.interval(0.0)
        covered.append(np.mean((low <= (fresh := generator.exponential(size=200))) & (fresh <= high)))
    assert 0.94 <= np.mean(covered) <= 0.97


def machine_with(errors: np.ndarray) -> Machine:
    none = np.empty(0)
    return Machine(none, none, none, none, none, 1.0, none, none.astype(int), errors)


def test_training_measures_on_slides_left_out() -> None:
    features, score, pam50 = slides(60)
    _, estimates, predictions = train_score.train(features, score, pam50)
    assert estimates["task1"].value > 0.5
    assert estimates["task2"].value > 0.5
    shuffled = np.random.default_rng(3).permutation(score)
    _, chance, _ = train_score.train(features, shuffled, None)
    assert abs(chance["task1"].value) < 0.35  # a memory of the training slides would be far above
    assert predictions["mitotic_score"].shape == (60,)


def test_too_few_slides_are_refused() -> None:
    features, _, _ = slides(6)
    with pytest.raises(TrainingError, match="too few"):
        train_score.train(features, np.array([1, 1, 1, 1, 2, 3.0]), None)


def test_what_is_written_is_a_record_with_its_golden_output(tmp_path: Path) -> None:
    features, score, pam50 = slides(60)
    machines, _, _ = train_score.train(features, score, pam50)
    record = train_score.write(
        tmp_path, "svm.test", machines, names=("a", "b", "c", "d", "e"), score={}, training_data="drawn here",
        licence="none", command="this test",
    )  # fmt: skip
    weights = load(record)
    stored = from_bytes(read(weights))
    golden = np.load(BytesIO(read_golden(weights)))
    for task, machine in stored.items():
        assert np.allclose(machine.predict(golden["input"]), golden[f"output.{task}"])
    assert list(weights.preprocessing["features"]) == ["a", "b", "c", "d", "e"]
