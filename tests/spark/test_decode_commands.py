"""What `tamis spark export` and `generate` refuse, and what they advise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tamis import cli
from tamis.spark.published import shipped


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped(), tmp_path / "model"))


def test_an_export_never_replaces_a_checkpoint_s_own_files(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.safetensors", "config.json"):
        before = (checkpoint / name).read_bytes()
        assert cli.main(["spark", "export", str(checkpoint), str(checkpoint / name)]) == 2
        assert "such as model.spark" in capsys.readouterr().err
        assert (checkpoint / name).read_bytes() == before


def test_who_names_the_weights_is_told_to_name_their_folder(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["spark", "generate", str(checkpoint / "model.safetensors"), "x"]) == 1
    assert f"name their folder, {checkpoint}." in capsys.readouterr().err


def test_more_prompts_than_run_at_once_are_all_continued(capsys: pytest.CaptureFixture[str]) -> None:
    prompts = [f"The {n}" for n in range(10)]
    command = ["spark", "generate", str(shipped()), *prompts, "--max-tokens", "1", "--context", "16"]
    assert cli.main(command) == 0
    assert [
        line[: len(p)] for p, line in zip(prompts, capsys.readouterr().out.split("\n\n"), strict=False)
    ] == prompts
