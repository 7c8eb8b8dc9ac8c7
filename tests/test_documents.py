"""README and docs name nothing that is not there: commands, options, files.

python -m pytest tests/test_documents.py
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from tamis.cli import EXAMPLES, build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"[\w./{},*-]+\.(?:py|sh|cpp|inl|h|js|json|toml|txt|md)\b(?!\.)")
USERS = {"mine.json", "mine.txt", "text.txt", "notes.txt", "fonts.txt", "llama.cpp"}
"""Files of the reader's in examples, one of the data, and another project that is named like a file."""
WRITTEN = {"score.json", "DIR/STEM/score.json", "STEM.summary.json"}
"""By Tamis, as results. What is below work/ is written, too."""


def code(page: Path) -> Iterator[str]:
    """Everything set as code: indented lines, and what stands between backticks."""
    text = page.read_text(encoding="utf-8")
    yield from (line.strip().removeprefix("$ ") for line in text.splitlines() if line.startswith("    "))
    for part in re.findall(r"`([^`]+)`", text):
        yield " ".join(part.split())


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `tamis` of each command. Alternatives (a|b) and brackets of a synopsis are taken apart."""
    for line in code(page):
        for part in re.split(r";|&&|\|\||#", line):
            found = re.search(r"(?:^|\s)(?:-m )?tamis ((?!=).*)", part.strip())
            if found:
                yield re.sub(r"[\[\]|]", " ", found[1]).split()


@cache
def verbs() -> dict[str, argparse.ArgumentParser]:
    """ "subtitles read" and so on, with the options of each."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name, part in _choices(build_parser()).items():
        below = _choices(part)
        found |= {f"{name} {verb}": parser for verb, parser in below.items()} if below else {name: part}
    return found


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: below
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, below in action.choices.items()
    }


def unknown(words: list[str]) -> list[str]:
    """What a command names that there is not."""
    known = verbs()
    if words and words[0].startswith("-"):
        return []
    name = words[0] if words and words[0] in known else " ".join(words[:2])
    if name not in known:
        alone = len(words) == 1 or not re.fullmatch(
            r"[a-z]+", words[1]
        )  # a capability as such: "the verbs of tamis spark"
        return [] if alone and any(verb.startswith(f"{words[0]} ") for verb in known) else [name]
    options = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?|-[a-z]", word)}
    return sorted(options - set(known[name]._option_string_actions))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    wrong = {" ".join(words): missing for words in commands(page) if (missing := unknown(words))}
    assert not wrong


def test_the_examples_of_the_help_exist() -> None:
    for line in EXAMPLES.splitlines()[1:]:
        assert not unknown(shlex.split(line)[1:]), line


def test_resume_means_the_same_everywhere() -> None:
    told = {name: parser._option_string_actions.get("--resume") for name, parser in verbs().items()}
    assert {name: action.help for name, action in told.items() if action} == dict.fromkeys(
        ("subtitles read", "weakseg segment", "proliferation score"), "skip what was done in the same way"
    )


def test_a_command_that_is_not_there_is_found() -> None:
    assert unknown(shlex.split("subtitles read film.mp4 --loud")) == ["--loud"]
    assert unknown(shlex.split("weakseg compare a b")) == ["weakseg compare"]
    assert unknown(shlex.split("weakseg train D -o RUN --folds 5")) == []
    assert unknown(["doctor"]) == unknown(["--help"]) == unknown(["spark"]) == []


def expanded(name: str) -> list[str]:
    """a_{b,c}.cpp -> a_b.cpp, a_c.cpp"""
    parts = [part.split(",") for part in re.split(r"[{}]", name)]
    return ["".join(choice) for choice in product(*parts)]


@cache
def tracked() -> list[str]:
    """Every file of the project, relative to its root; what a build or a test left beside them only in a source archive,
    which git does not know."""
    if shutil.which("git"):
        done = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout:
            return done.stdout.split("\0")
    kept = ("src", "csrc", "tests", "benchmarks", "runs", "docs")
    below = (path for folder in kept for path in (ROOT / folder).rglob("*"))
    return [path.relative_to(ROOT).as_posix() for path in (*below, *ROOT.iterdir()) if path.is_file()]


def is_there(name: str) -> bool:
    """Whether a file of the project has this name, with as many of its folders as are given; or, where it begins with "_" or
    holds a "*", such an ending or pattern."""
    pattern = f"*{name}" if name.startswith("_") else f"*/{name}"
    return any(fnmatch(f"/{path}", pattern) for path in tracked())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_named_exists(page: Path) -> None:
    named = {name for text in code(page) for whole in FILE.findall(text) for name in expanded(whole)}
    named = {name for name in named - USERS - WRITTEN if not name.startswith("work/")}
    assert not {name for name in named if not is_there(name.removeprefix("../"))}


def test_a_file_that_is_not_there_is_found() -> None:
    assert is_there("score.py") and is_there("proliferation/score.py") and is_there("weakseg/commands.py")
    assert is_there("spark/bench*.py") and is_there("_avx2.cpp")
    for name in (
        "core.py",
        "train.p",
        "other/score.py",
        "proliferation/commands",
        "benches*.py",
        "_avx3.cpp",
    ):
        assert not is_there(name), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_of_a_program_exists(page: Path) -> None:
    """Of what is run by its file: the option stands in the program, or in what the program hands its arguments to."""
    missing = []
    for line in code(page):
        for program, rest in re.findall(r"((?:benchmarks|runs)/\w+\.(?:py|sh))([^;&|`]*)", line):
            source = (ROOT / program).read_text(encoding="utf-8")
            if "tamis spark bench" in source:
                source += (ROOT / "src/tamis/spark/decode_commands.py").read_text(encoding="utf-8")
            options = re.findall(r"--([a-z-]+)", rest)
            missing += [
                f"{program} --{o}" for o in options if f'"--{o}"' not in source and f'"{o}"' not in source
            ]
    assert not missing


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "LOG.md"], ids=lambda page: page.name)
def test_tables_have_a_head_and_as_many_cells_in_every_row(page: Path) -> None:
    """Otherwise they are shown as a heap of bars."""
    broken = []
    rows: list[tuple[int, str]] = []
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], start=1):
        if line.startswith("|"):
            rows.append((number, line))
            continue
        cells = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for _, row in rows]
        if rows and (len(rows) < 2 or not re.fullmatch(r"[|: -]+", rows[1][1]) or len(set(cells)) > 1):
            broken.append(rows[0][0])
        rows = []
    assert not broken, f"tables that begin at these lines of {page.name}"
