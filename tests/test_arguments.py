"""python -m pytest tests/test_arguments.py"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tamis.arguments import Parser, figure, number_of_jobs, probability, um_per_px, whole_number


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_is_whole_and_positive(text: str) -> None:
    assert number_of_jobs("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="whole number"):
        number_of_jobs(text)


@pytest.mark.parametrize("text", ["-1", "two", "1.5", ""])
def test_a_seed_is_whole_and_not_negative(text: str) -> None:
    assert [whole_number(number) for number in ("0", "12")] == [0, 12]
    with pytest.raises(argparse.ArgumentTypeError, match="whole number from 0 on"):
        whole_number(text)


@pytest.mark.parametrize("text", ["0", "-0.25", "nan", "inf", "a quarter", ""])
def test_pixels_have_a_size(text: str) -> None:
    assert um_per_px("0.25") == 0.25
    with pytest.raises(argparse.ArgumentTypeError, match="micrometres per pixel"):
        um_per_px(text)


@pytest.mark.parametrize("text", ["1.01", "-0.1", "nan", "half", ""])
def test_a_threshold_is_a_probability(text: str) -> None:
    assert [probability(end) for end in ("0", "1")] == [0, 1]
    with pytest.raises(argparse.ArgumentTypeError, match="no probability"):
        probability(text)


def test_a_figure_is_of_a_kind_that_can_be_drawn() -> None:
    """Told before hours of measuring, and not when it is to be drawn."""
    assert figure("board.PNG") == Path("board.PNG")
    for text in ("board", "board.xyz", "png"):
        with pytest.raises(argparse.ArgumentTypeError, match="no known ending"):
            figure(text)


def told(parser: Parser, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_an_unknown_option_names_the_help_of_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="tamis")
    parser.add_subparsers(required=True).add_parser("read")
    told_of = told(parser, ["read", "--loud"], capsys)
    assert told_of == "tamis read: Unrecognized arguments: --loud. See  tamis read --help\n"
