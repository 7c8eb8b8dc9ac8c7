"""The command line's own words: values that argparse takes, and wrong usage told in a sentence.

parser.add_argument("--mpp", type=um_per_px)        # 'abc' is no number of micrometres per pixel, such as 0.25
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

FINEST_UM, COARSEST_UM = 0.001, 100_000.0
"""From an electron microscope to a volume with voxels of 10 cm: anything else is a slip of the finger."""

FIGURES = (".png", ".svg", ".pdf")


class Parser(argparse.ArgumentParser):
    """Wrong usage: what is wrong, and where the right usage is shown. Exit status 2."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message[0].upper()}{message[1:]}. See  {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A verb refuses what it does not know by itself, so that its own help is named."""
        options, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return options, rest


def number_of_jobs(text: str) -> int:
    """The value of --jobs."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def whole_number(text: str) -> int:
    """The value of --seed and --threads."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def um_per_px(text: str) -> float:
    """The value of --mpp."""
    value = _number(text)
    if not FINEST_UM <= value <= COARSEST_UM:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of micrometres per pixel, such as 0.25")
    return value


def probability(text: str) -> float:
    """The value of --threshold."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no probability: give a number from 0 to 1")
    return value


def figure(text: str) -> Path:
    """The value of --figure: a file that matplotlib writes and browsers show."""
    path = Path(text)
    if path.suffix.lower() not in FIGURES:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no known ending: one of {', '.join(FIGURES)} is drawn"
        )
    return path


def _number(text: str) -> float:
    """NaN, which is inside no range, for what is no number."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
