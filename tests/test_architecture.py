"""The rules of the house: which file may import which, and what stays unloaded.

python -m pytest tests/test_architecture.py
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tamis"
CAPABILITIES = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
SHARED = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "cli"}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "cv2", "av", "openslide", "onnxruntime", "numpy")
# Only what trains may import PyTorch; users of the results do not have it.
TRAINING = {
    "tamis.training",
    "tamis.proliferation.train",
    "tamis.pooling",
    "tamis.weakseg.networks",
    "tamis.weakseg.losses",
    "tamis.weakseg.pretrained",
    "tamis.weakseg.recipe",
    "tamis.weakseg.beginning",
    "tamis.weakseg.bags",
    "tamis.weakseg.own_marks",
    "tamis.weakseg.train",
    "tamis.weakseg.export",
    "tamis.proliferation.networks",
    "tamis.proliferation.train_mitosis",
    "tamis.proliferation.train_candidates",
    "tamis.proliferation.train_glance",
    "tamis.proliferation.publish_mitosis",
    "tamis.subtitles.networks",
    "tamis.subtitles.train",
    "tamis.subtitles.train_head",
    "tamis.subtitles.publish",
    "tamis.spark.topk_autograd",
    "tamis.spark.topk_native",
    "tamis.spark.loss",
    "tamis.spark.model",
    "tamis.spark.huggingface",
    "tamis.spark.evaluate",
    "tamis.spark.train",
    "tamis.spark.publish",
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every absolute name that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: write the full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path: Path) -> Iterator[tuple[str, str]]:
    """(first part below tamis, whole name) of every import of Tamis itself."""
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "tamis" and len(parts) > 1:
            yield parts[1], name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    """cli -> capability -> shared file."""
    parts = path.relative_to(PACKAGE).parts
    capability = parts[0] if len(parts) > 1 else None
    for part, name in own(path):
        if capability is not None:
            assert part not in CAPABILITIES - {capability}, f"a capability imports another: {name}"
            assert part not in {"cli", "doctor"}, f"a capability imports the command line: {name}"
        elif path.stem in SHARED:
            assert part not in CAPABILITIES | {"cli"}, f"a shared file imports what stands above it: {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_training_imports_torch(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)}
    if name_of(path) not in TRAINING:
        assert "torch" not in found


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "subtitles"], ids=name_of)
def test_subtitles_are_read_without_opencv(path: Path) -> None:
    """It was a third of what the extra installs. What renders training lines has it from the extra `train`."""
    if path.stem not in ("synthesis", "footage", "typefaces"):
        assert not {"cv2", "rapidfuzz", "PIL", "scipy"} & {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p) not in TRAINING], ids=name_of)
def test_inference_imports_nothing_from_training(path: Path) -> None:
    """Except `commands`, whose training verb imports it when it runs."""
    if path.stem == "commands":
        return
    for _, name in own(path):
        assert not any(f"{name}.".startswith(f"{module}.") for module in TRAINING), name


def test_no_file_is_named_for_nothing() -> None:
    forbidden = {"utils", "util", "common", "helpers", "helper", "base", "core", "misc"}
    named = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert not named & forbidden


def test_files_stay_short() -> None:
    long = {name_of(path): n for path in MODULES if (n := len(path.read_text().splitlines())) > 500}
    assert not long


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    """No pickle, eval, exec or shell."""
    assert not {"pickle", "dill", "shelve", "marshal"} & {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}), (
                f"{path}:{node.lineno}"
            )
            for keyword in node.keywords:
                truthy = isinstance(keyword.value, ast.Constant) and bool(keyword.value.value)
                assert not (keyword.arg in {"shell", "allow_pickle"} and truthy), f"{path}:{node.lineno}"


EVERY_HELP = """
import argparse
from tamis.cli import build_parser

def show(parser):
    assert "--help" in parser._option_string_actions, parser.prog
    parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                show(below)

show(build_parser())
print()
"""
"""The help of every verb: whoever reads it may be about to learn which extra the verb needs."""


@pytest.mark.parametrize(
    "code",
    [
        "import tamis",
        "import tamis.subtitles",
        "from tamis.cli import main; main(['--help'])",
        EVERY_HELP,
        "from tamis.cli import main; main(['doctor'])",
    ],
)
def test_light_commands_load_nothing_heavy(code: str) -> None:
    tell = "import atexit, sys; atexit.register(lambda: print('loaded', *sorted(set(sys.modules) & set(sys.argv[1:]))))"
    command = [sys.executable, "-c", f"{tell}\n{code}", *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "loaded"
