"""A leaderboard: many submissions against one truth, as lines of text, as JSON and as a figure with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from tamis.errors import InputError
from tamis.proliferation.evaluate import (
    METRICS,
    Difference,
    Evaluation,
    Options,
    compare,
    evaluate,
    plain,
    plain_difference,
    ranked,
)
from tamis.proliferation.submission import Submission, find_submissions, read_submission, read_truth
from tamis.writing import replacing

TITLES = {
    "task1": "Task 1, mitotic score: quadratic kappa",
    "task2": "Task 2, PAM50 proliferation: Spearman",
    "task3": "Task 3, mitoses: F1",
}


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """What became of every submission."""

    truth: str
    options: Options
    evaluations: list[Evaluation]
    differences: list[Difference]
    """In each task the best against each of the others."""
    failures: list[str]
    notes: list[str]


def judge(truth_path: Path, paths: Sequence[Path], options: Options, um_per_px: float) -> Leaderboard:
    """Evaluate every submission that the paths name. One that cannot be scored is a sentence in `failures`.

    Raises InputError for a truth that cannot be used.
    """
    truth = read_truth(truth_path, um_per_px)
    read: list[Submission] = []
    failures: list[str] = []
    for path in paths:
        try:
            found = find_submissions(path, truth)
        except InputError as error:
            failures.append(str(error))
            continue
        for one in found:
            try:
                read.append(read_submission(one, truth, um_per_px))
            except InputError as error:
                failures.append(str(error))
    read = _with_own_names(read)
    evaluations = [evaluate(submission, truth, options) for submission in read]
    by_name = {submission.name: submission for submission in read}
    differences = []
    for task in METRICS:
        order = [by_name[evaluation.name] for evaluation in ranked(evaluations, task)]
        differences += [compare(task, order[0], other, truth, options) for other in order[1:]]
    notes = [note for submission in read for note in submission.notes]
    return Leaderboard(truth.name, options, evaluations, differences, failures, notes)


def _with_own_names(submissions: list[Submission]) -> list[Submission]:
    """Two files of one name in different folders stay apart: the second is "name (2)", or the next number that is free."""
    taken = {submission.name for submission in submissions}
    seen: set[str] = set()
    named = []
    for submission in submissions:
        name = submission.name
        if name in seen:
            name = next(n for k in count(2) if (n := f"{submission.name} ({k})") not in taken)
        seen.add(submission.name)
        taken.add(name)
        named.append(replace(submission, name=name))
    return named


def as_json(board: Leaderboard) -> dict[str, Any]:
    """One submission: its three tasks alone. Several: {"submissions": {name: tasks}, "differences": [...]}."""
    if len(board.evaluations) == 1 and not board.failures:
        return plain(board.evaluations[0])
    return {
        "submissions": {evaluation.name: plain(evaluation) for evaluation in board.evaluations},
        "differences": [plain_difference(difference) for difference in board.differences],
    }


def as_lines(board: Leaderboard) -> list[str]:
    """A table for each task that somebody entered."""
    width = max([len(evaluation.name) for evaluation in board.evaluations], default=0)
    lines: list[str] = []
    for task in METRICS:
        order = ranked(board.evaluations, task)
        if not order:
            continue
        level = "68 %" if task == "task2" and board.options.tupac_compat else "95 %"
        lines += ["", f"{TITLES[task]} ({level} interval)"]
        against = {d.other: d for d in board.differences if d.task == task}
        for rank, evaluation in enumerate(order, 1):
            estimate = evaluation.estimates[task]
            assert estimate is not None
            unit = " cases" if task == "task3" and estimate.n != 1 else " case" if task == "task3" else ""
            line = f"{rank:3d}  {evaluation.name:<{width}}  {estimate.value:.3f} {estimate.interval():<14}"
            line += f"  n = {estimate.n}{unit}"
            lines.append(line + _extras(task, evaluation) + _behind(against.get(evaluation.name)))
    if board.options.tupac_compat:
        lines += [
            "",
            "Task 2 as the challenge printed it: plus and minus one standard error, which is about 68 %.",
        ]
    return lines[1:]


def _extras(task: str, evaluation: Evaluation) -> str:
    if task == "task1" and evaluation.kappa_bootstrap is not None:
        return f"  bootstrap {evaluation.kappa_bootstrap.interval()}"
    if task == "task3" and evaluation.detections is not None:
        counted = evaluation.detections
        return (
            f"  precision {counted.precision:.3f}  recall {counted.recall:.3f}"
            f"  TP {counted.true_positives}  FP {counted.false_positives}  FN {counted.false_negatives}"
        )
    return ""


def _behind(difference: Difference | None) -> str:
    if difference is None:
        return ""
    estimate = difference.estimate
    return f"  behind by {estimate.value:.3f} {estimate.interval()}, p = {difference.p:.4f}"


def draw(board: Leaderboard, path: Path) -> None:
    """The figure: a panel for each task, best on top, each value with its interval. Format by the path's ending."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = [task for task in METRICS if ranked(board.evaluations, task)]
    most = max(len(ranked(board.evaluations, task)) for task in tasks)
    figure = Figure(figsize=(4.6 * len(tasks), 1.3 + 0.36 * most), layout="constrained")
    FigureCanvasAgg(figure)
    for n, task in enumerate(tasks):
        axes = figure.add_subplot(1, len(tasks), n + 1)
        order = ranked(board.evaluations, task)
        for place, evaluation in enumerate(order):
            estimate = evaluation.estimates[task]
            assert estimate is not None
            axes.plot(
                [estimate.low, estimate.high],
                [place, place],
                color="#4c6a92",
                linewidth=2,
                solid_capstyle="butt",
            )
            axes.plot(estimate.value, place, "o", color="#12263f", markersize=5)
            axes.annotate(
                f"{estimate.value:.3f}", (estimate.value, place), (0, 6), textcoords="offset points",
                ha="center", fontsize=8,
            )  # fmt: skip
        # As they are: a name with two $ in it is no formula.
        axes.set_yticks(range(len(order)), [evaluation.name for evaluation in order], parse_math=False)
        axes.set_ylim(len(order) - 0.4, -0.7)
        axes.set_title(TITLES[task], fontsize=10)
        level = "68 %" if task == "task2" and board.options.tupac_compat else "95 %"
        axes.set_xlabel(f"with {level} interval", fontsize=9)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=150)
