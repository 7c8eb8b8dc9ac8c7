"""Score tumour proliferation on whole-slide images.

Light: what computes or trains is imported when a verb runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""


def demo(folder: Path) -> None:
    """The part of `tamis demo`."""
