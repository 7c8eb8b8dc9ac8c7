"""python -m pytest tests/test_training.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")

from tamis.errors import OutputError, TrainingError  # noqa: E402
from tamis.training import FitConfig, Fitted, fit, learning_rate_at, load_weights  # noqa: E402

Points = tuple["torch.Tensor", "torch.Tensor"]


def batches(first_step: int) -> Iterator[Points]:
    """y = sum of x, from points that depend on the step alone."""
    step = first_step
    while True:
        generator = torch.Generator().manual_seed(1000 + step)
        x = torch.randn(16, 4, generator=generator)
        yield x, x.sum(1, keepdim=True)
        step += 1


def squared_error(model: torch.nn.Module, batch: Points) -> tuple[torch.Tensor, dict[str, float]]:
    x, y = batch
    value = ((model(x) - y) ** 2).mean()
    return value, {"twice": 2 * value.item()}


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    # Dropout and batch normalisation: the generator's state and the buffers must survive a restart as well.
    return torch.nn.Sequential(
        torch.nn.Linear(4, 16),
        torch.nn.BatchNorm1d(16),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(16, 1),
    )


CONFIG = FitConfig(
    steps=40, learning_rate=0.03, warmup_steps=5, ema_decay=0.9, log_every=1, checkpoint_every=10
)


def run(folder: Path, config: FitConfig = CONFIG, **changes: object) -> Fitted:
    config = replace(config, checkpoint=folder / "run.pt", metrics=folder / "run.jsonl")
    return fit(network(), batches, squared_error, replace(config, **changes))  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "run.jsonl").read_text().splitlines()]


def test_learns(tmp_path: Path) -> None:
    fitted = run(tmp_path)
    values = losses(tmp_path)
    assert fitted.finished and fitted.step == len(values) == 40
    assert sum(values[-5:]) < 0.5 * sum(values[:5])
    assert fitted.metrics["twice"] == pytest.approx(2 * values[-1])


class Killed(BaseException):
    """Stands for a kill signal: nothing in the loop may catch it."""


def test_a_killed_run_resumes_with_the_same_losses(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(whole)

    def dies_at_27(model: torch.nn.Module, batch: Points) -> tuple[torch.Tensor, dict[str, float]]:
        if (broken / "run.jsonl").exists() and len(losses(broken)) == 27:
            raise Killed
        return squared_error(model, batch)

    config = replace(CONFIG, checkpoint=broken / "run.pt", metrics=broken / "run.jsonl")
    with pytest.raises(Killed):
        fit(network(), batches, dies_at_27, config)
    with (broken / "run.jsonl").open("a") as file:
        file.write('{"step": 28, "lo')  # a kill can stop in the middle of a line
    resumed = run(broken)

    assert losses(broken) == losses(whole)
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_time_budget_stops_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    stopped = run(tmp_path, time_budget_s=0.0)
    assert not stopped.finished and stopped.step == 0
    assert (tmp_path / "run.pt").exists()
    assert run(tmp_path).finished


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path)
    assert again.finished
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=10)
    kept = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"run\.pt has done 10 steps, and 9 are asked for: ask for more"):
        run(tmp_path, steps=9)
    with pytest.raises(TrainingError, match=r"run\.pt was begun with the seed 0, and 5 is asked for"):
        run(tmp_path, seed=5)
    config = replace(CONFIG, checkpoint=tmp_path / "run.pt")
    with pytest.raises(TrainingError, match=r"run\.pt was begun with another network"):
        fit(torch.nn.Linear(4, 1), batches, squared_error, config)
    for damaged in (b"", kept[:500], b"no checkpoint"):
        (tmp_path / "run.pt").write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"run\.pt is damaged or no checkpoint"):
            run(tmp_path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, steps=10)
    kept = (tmp_path / "run.pt").read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="was not written; the one before it is kept"):
        run(tmp_path, steps=20)
    assert (tmp_path / "run.pt").read_bytes() == kept
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "run.jsonl"}


def test_average_differs_from_the_last_weights_and_is_what_a_checkpoint_gives(tmp_path: Path) -> None:
    model = network()
    config = replace(CONFIG, checkpoint=tmp_path / "run.pt")
    fitted = fit(model, batches, squared_error, config)
    assert not torch.equal(fitted.model.state_dict()["0.weight"], model.state_dict()["0.weight"])
    assert torch.equal(load_weights(tmp_path / "run.pt")["0.weight"], fitted.model.state_dict()["0.weight"])


def test_evaluation_does_not_disturb_training(tmp_path: Path) -> None:
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    run(plain)
    config = replace(CONFIG, checkpoint=watched / "run.pt", evaluate_every=7)
    seen: list[dict[str, float]] = []
    fitted = fit(
        network(), batches, squared_error, config,
        evaluate=lambda model: {"noise": torch.rand(1).item(), "training": float(model.training)},
        report=seen.append,
    )  # fmt: skip
    scores = [line for line in seen if "noise" in line]
    assert [line["step"] for line in scores] == [7, 14, 21, 28, 35, 40]
    assert all(line["training"] == 0.0 for line in scores)
    assert [line["loss"] for line in seen if "loss" in line] == losses(plain)
    assert "noise" in fitted.metrics


def test_schedule() -> None:
    config = FitConfig(steps=110, learning_rate=1.0, warmup_steps=10, final_learning_rate=0.1)
    assert learning_rate_at(0, config) == pytest.approx(0.1)
    assert learning_rate_at(9, config) == pytest.approx(1.0)
    assert learning_rate_at(60, config) == pytest.approx(0.55)
    assert learning_rate_at(110, config) == pytest.approx(0.1)


def test_a_loss_that_is_not_finite_says_so() -> None:
    def broken(model: torch.nn.Module, batch: Points) -> tuple[torch.Tensor, dict[str, float]]:
        return squared_error(model, batch)[0] * float("nan"), {}

    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        fit(network(), batches, broken, CONFIG)


def test_batches_that_end_say_so() -> None:
    def three(first_step: int) -> Iterator[Points]:
        stream = batches(first_step)
        for _ in range(3):
            yield next(stream)

    with pytest.raises(TrainingError, match="ended before step 3"):
        fit(network(), three, squared_error, CONFIG)


def test_contradicting_settings_are_named() -> None:
    with pytest.raises(TrainingError, match=r"warmup_steps \(10\).*steps \(5\)"):
        FitConfig(steps=5, warmup_steps=10)
    with pytest.raises(TrainingError, match="time_budget_s without checkpoint"):
        FitConfig(steps=1000, time_budget_s=60)
