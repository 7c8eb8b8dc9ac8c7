"""One training loop for every network here: `fit(model, batches, loss, config)`. It knows no capability.

AdamW (Loshchilov & Hutter 2019) with linear warm-up and cosine decay, gradients clipped by their global norm, and an
optional exponential moving average of the weights. A run can be killed at any moment and started again: it goes on
from its last checkpoint and, with the same config on the same machine, gives the losses of an uninterrupted run.

Two rules make that exact. Batches depend on their step alone: `batches(first_step)` yields the batches of steps
first_step, first_step + 1, ... (seed a generator with (seed, step)). Whatever else is random, such as dropout, draws
from torch's generator, whose state a checkpoint holds.

This is the only shared file that imports torch. Nothing on the way to a user's result imports it.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tamis.errors import OutputError, TrainingError
from tamis.writing import replacing

Batch = TypeVar("Batch")
Metrics = dict[str, float]


@dataclass(frozen=True)
class FitConfig:
    """How to train. The first block is the recipe; the second only says when to write, look and stop."""

    steps: int
    learning_rate: float = 1e-3
    """Peak, reached after the warm-up."""
    warmup_steps: int = 500
    final_learning_rate: float = 0.01
    """Where the cosine ends, as a fraction of the peak."""
    weight_decay: float = 0.01
    """Applied to matrices and kernels only: biases and normalisation gains have no scale to decay to."""
    beta2: float = 0.99
    epsilon: float = 1e-8
    """Gradients well below it hardly move their weight. Larger where rows of a matrix see next to nothing but the faint
    push of other classes' examples, which Adam would otherwise blow up to a full step."""
    fused: bool = False
    """AdamW as one kernel over all weights: a tenth of a small network's step less, the same up to rounding."""
    clip_norm: float = 1.0
    """Largest global L2 norm of a gradient. math.inf turns clipping off."""
    ema_decay: float = 0.0
    """Of the moving average of the weights; 0 keeps no average."""
    seed: int = 0

    checkpoint: Path | None = None
    """Continued from when it exists, replaced every `checkpoint_every` steps and at the end."""
    checkpoint_every: int = 1000
    metrics: Path | None = None
    """JSON lines, one every `log_every` steps."""
    log_every: int = 50
    evaluate_every: int = 0
    """Steps between calls of `evaluate`; 0 calls it at the end only."""
    time_budget_s: float = math.inf
    """Seconds after which this call stops with a checkpoint, unfinished. The schedule does not depend on it."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TrainingError(f"steps is {self.steps}; a run needs at least 1.")
        if self.warmup_steps >= self.steps:
            raise TrainingError(
                f"warmup_steps ({self.warmup_steps}) must be smaller than steps ({self.steps}): "
                "lower the first or raise the second."
            )
        if not 0 <= self.ema_decay < 1:
            raise TrainingError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1).")
        if math.isfinite(self.time_budget_s) and self.checkpoint is None:
            raise TrainingError(
                "time_budget_s without checkpoint would lose the run: set checkpoint as well."
            )


def fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware: convolutions are then twice as fast, elsewhere slower."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@dataclass(frozen=True)
class Fitted:
    """What `fit` leaves. `model` holds the averaged weights if the config asks for an average."""

    model: nn.Module
    step: int
    finished: bool
    metrics: Metrics


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    loss: Callable[[nn.Module, Batch], tuple[Tensor, Metrics]],
    config: FitConfig,
    *,
    evaluate: Callable[[nn.Module], Metrics] | None = None,
    report: Callable[[Metrics], None] | None = None,
) -> Fitted:
    """Train `model` in place for `config.steps` steps, going on from `config.checkpoint` if that exists.

    batches   first step -> the batches of that step and all later ones, each depending on its step alone
    loss      (model, batch) -> (scalar to minimise, other numbers worth logging)
    evaluate  (model in eval mode, averaged weights if any) -> numbers to log
    report    called with every metrics line, for example to print it

    Raises TrainingError when the loss is not finite, the batches end early, or the checkpoint is damaged, has done more steps, or
    was begun with another seed or network. Other settings may change on the way.
    """
    torch.manual_seed(config.seed)
    run = _Run(model, config)
    _trim_metrics(config.metrics, run.step)
    started = time.monotonic()
    stream = iter(batches(run.step))
    window = _Window()
    model.train()
    try:
        while run.step < config.steps and time.monotonic() - started < config.time_budget_s:
            batch = _next(stream, run.step)
            value, norm, extra = _train_step(run, batch, loss)
            window.add({"loss": value, "gradient_norm": norm} | extra)
            at_end = run.step == config.steps
            if at_end or run.step % config.log_every == 0:
                window.close(run, report)
            if evaluate is not None and _due(run.step, config.evaluate_every, at_end):
                window.scores = _evaluate(run, evaluate, report)
            if _due(run.step, config.checkpoint_every, at_end):
                run.save()
    finally:
        getattr(stream, "close", lambda: None)()  # a generator may hold worker processes
    finished = run.step >= config.steps
    if not finished:
        run.save()
    final = run.averaged if run.averaged is not None else model
    return Fitted(final.eval(), run.step, finished, window.last | window.scores)


def learning_rate_at(step: int, config: FitConfig) -> float:
    """Learning rate of the 0-based `step`: linear from peak / warmup_steps to the peak, then a half cosine."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def load_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights inside a checkpoint: the averaged ones if it has any. Reads tensors only, never code."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights: dict[str, Tensor] = state["averaged"] or state["model"]
    return weights


class _Run:
    """Everything that a checkpoint holds: weights, average, optimiser, step and generator."""

    def __init__(self, model: nn.Module, config: FitConfig) -> None:
        self.model = model
        self.config = config
        self.step = 0
        self.averaged = copy.deepcopy(model).requires_grad_(False) if config.ema_decay else None
        self.optimiser = torch.optim.AdamW(
            _parameter_groups(model, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            eps=config.epsilon,
            fused=config.fused or None,
        )
        if config.checkpoint is not None and config.checkpoint.exists():
            self._load(config.checkpoint)

    def _load(self, path: Path) -> None:
        try:
            # weights_only: a checkpoint is data; a pickled object in it must not run.
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.step, seed = state["step"], state["config"]["seed"]
        except Exception as fault:  # those of pickle, zip and torch have nothing in common
            raise TrainingError(
                f"{path} is damaged or no checkpoint ({type(fault).__name__}): delete it to start from the beginning."
            ) from fault
        if seed != str(self.config.seed):
            raise TrainingError(
                f"{path} was begun with the seed {seed}, and {self.config.seed} is asked for: give another folder, or delete it."
            )
        if self.step > self.config.steps:
            raise TrainingError(
                f"{path} has done {self.step} steps, and {self.config.steps} are asked for: ask for more, or give another folder."
            )
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"] or state["model"])
        except (RuntimeError, ValueError) as fault:
            raise TrainingError(
                f"{path} was begun with another network: give another folder, or delete it."
            ) from fault
        torch.set_rng_state(state["generator"])
        if torch.cuda.is_available() and state["cuda_generators"]:
            torch.cuda.set_rng_state_all(state["cuda_generators"])

    def save(self) -> None:
        if self.config.checkpoint is None:
            return
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": torch.get_rng_state(),
            "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "config": {name: str(value) for name, value in asdict(self.config).items()},
        }
        with replacing(self.config.checkpoint) as beside:
            try:
                torch.save(state, beside)
            except RuntimeError as fault:  # torch's own writer, where the disk is full
                raise OutputError(
                    f"{self.config.checkpoint} was not written; the one before it is kept. If the disk is full, free some space "
                    "and run the same command again."
                ) from fault

    def update_average(self) -> None:
        if self.averaged is None:
            return
        # Early on the average must follow quickly, or it keeps the memory of the random start.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
            for kept, current in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                kept.copy_(current)


class _Window:
    """Means of the numbers since the last metrics line."""

    def __init__(self) -> None:
        self.rows: list[Metrics] = []
        self.last: Metrics = {}
        self.scores: Metrics = {}
        self.opened = time.monotonic()

    def add(self, row: Metrics) -> None:
        self.rows.append(row)

    def close(self, run: _Run, report: Callable[[Metrics], None] | None) -> None:
        line: Metrics = {"step": run.step, "learning_rate": learning_rate_at(run.step - 1, run.config)}
        for name in self.rows[-1]:
            values = [row[name] for row in self.rows if name in row]
            line[name] = sum(values) / len(values)
        line["s_per_step"] = (time.monotonic() - self.opened) / len(self.rows)
        _log(run.config.metrics, line, report)
        self.last = line
        self.rows = []
        self.opened = time.monotonic()


def _train_step(
    run: _Run, batch: Batch, loss: Callable[[nn.Module, Batch], tuple[Tensor, Metrics]]
) -> tuple[float, float, Metrics]:
    """One forward, backward, clip and step. Returns loss, gradient norm before clipping, and the extra metrics."""
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate_at(run.step, run.config)
    value, extra = loss(run.model, batch)
    if not torch.isfinite(value):
        raise TrainingError(
            f"The loss is {value.item()} at step {run.step}; lower the learning rate "
            f"({run.config.learning_rate}) or look at that step's batch. The last checkpoint is kept."
        )
    run.optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_norm)
    run.optimiser.step()
    run.step += 1
    run.update_average()
    return value.item(), norm.item(), dict(extra)


def _evaluate(
    run: _Run, evaluate: Callable[[nn.Module], Metrics], report: Callable[[Metrics], None] | None
) -> Metrics:
    model = run.averaged if run.averaged is not None else run.model
    # An evaluation that draws random numbers must not change the training that follows it.
    generator = torch.get_rng_state()
    model.eval()
    with torch.no_grad():
        scores = dict(evaluate(model))
    run.model.train()
    torch.set_rng_state(generator)
    _log(run.config.metrics, {"step": run.step} | scores, report)
    return scores


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _next(stream: Any, step: int) -> Any:
    for batch in stream:
        return batch
    raise TrainingError(f"The batches ended before step {step}; they must go on for all steps of the config.")


def _due(step: int, every: int, at_end: bool) -> bool:
    return at_end or (every > 0 and step % every == 0)


def _log(path: Path | None, line: Mapping[str, float], report: Callable[[Metrics], None] | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    if report is not None:
        report(dict(line))


def _trim_metrics(path: Path | None, step: int) -> None:
    """Drop the lines that a killed run wrote after its last checkpoint: they are about to be made again."""
    if path is None or not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:  # the line being written when the run was killed
            continue
        if line["step"] <= step:
            kept.append(text + "\n")
    beside = path.with_name(path.name + ".part")
    beside.write_text("".join(kept), encoding="utf-8")
    beside.replace(path)
