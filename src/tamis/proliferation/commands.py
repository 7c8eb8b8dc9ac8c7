"""Score tumour proliferation on whole-slide images.

The verbs of `tamis proliferation`: evaluate. Light: what computes or trains is imported when a verb runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

EXTRA = "slides"


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""
    _add_evaluate(
        verbs.add_parser(
            "evaluate",
            parents=[common],
            help="TUPAC16's statistics: kappa, Spearman, F1, with intervals",
            description=_EVALUATE,
        )
    )


# evaluate

_EVALUATE = """Scores submissions to TUPAC16's three tasks. TRUTH and PREDICTIONS are a table of scores (two columns
without ids as the challenge asked, or named columns slide, mitotic_score, pam50_proliferation), a table of mitoses
(image, row, col or x_um, y_um), what `detect --json` printed, or a folder with one CSV an image (05/01.csv: row,col).
A folder of such submissions gives a leaderboard."""


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="a table of scores, or a folder")
    parser.add_argument(
        "predictions", nargs="+", type=Path, metavar="PREDICTIONS", help="submissions, or a folder of them"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.add_argument(
        "--tupac-compat",
        action="store_true",
        help="task 2 with the intervals that the challenge printed: one standard error, about 68 %%",
    )
    parser.add_argument(
        "--surplus",
        choices=("false-positive", "ignore"),
        default="false-positive",
        help="further detections of a mitosis that is hit already (default: %(default)s)",
    )
    parser.add_argument("--threshold", type=float, metavar="P", help="leave out detections less confident")
    parser.add_argument(
        "--mpp",
        type=_um_per_px,
        default=0.25,
        metavar="UM",
        help="um per pixel of row and col (default: 0.25)",
    )
    parser.add_argument(
        "--interval",
        choices=("formula", "bootstrap"),
        default="formula",
        help="of kappa: Fleiss, Cohen & Everitt, or BCa over slides (default: %(default)s; the table shows both)",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the values with their intervals: .png, .svg, .pdf"
    )
    parser.set_defaults(run=_evaluate, extra=EXTRA)


def _evaluate(options: argparse.Namespace) -> int:
    from tamis.proliferation import leaderboard
    from tamis.proliferation.evaluate import Options

    board = leaderboard.judge(
        options.truth,
        options.predictions,
        Options(
            surplus=options.surplus,
            threshold=options.threshold,
            tupac_compat=options.tupac_compat,
            bootstrap_kappa=options.interval == "bootstrap",
        ),
        options.mpp,
    )
    for sentence in board.failures + board.notes:
        print(f"tamis: {sentence}", file=sys.stderr)
    if board.evaluations:
        if options.json:
            print(json.dumps(leaderboard.as_json(board), ensure_ascii=False))
        else:
            print("\n".join(leaderboard.as_lines(board)))
        if options.figure:
            leaderboard.draw(board, options.figure)
    return 1 if board.failures else 0


def _um_per_px(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of micrometres per pixel, such as 0.25")
    return value


def demo(folder: Path) -> None:
    """The part of `tamis demo`."""
