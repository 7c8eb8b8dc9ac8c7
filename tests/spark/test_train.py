"""python -m pytest tests/spark/test_train.py"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tamis.cli import main  # noqa: E402
from tamis.errors import InputError, UsageError  # noqa: E402
from tamis.spark.evaluate import describe, encode, evaluate  # noqa: E402
from tamis.spark.tokens import open_tokenizer, train_tokenizer  # noqa: E402
from tamis.spark.train import Recipe, train  # noqa: E402

WIDTH = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 16, "intermediate_size": 128, "attention_active": 8, "sliding_window": 16,
    "max_position_embeddings": 64,
}  # fmt: skip
OPTIONS = [word for name, value in WIDTH.items() for word in ("--set", f"{name}={value}")]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
OPTIONS += "--context 32 --batch 4 --steps 12 --log-every 1 --checkpoint-every 4 --evaluate-every 6 --threads 1".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    words = "the a sieve keeps holds few things many grains and so it goes on".split()  # noqa: SIM905
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(" ".join(rng.choices(words, k=60)) + f" {i}." for i in range(600)))
    return path


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in one process, through the command line."""
    folder = tmp_path_factory.mktemp("whole")
    done = command([text, "-o", folder])
    assert done.returncode == 0, done.stderr
    return folder


def command(arguments: list[object], launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *launch, "-m", "tamis", "spark", "train", *map(str, arguments), *OPTIONS]
    return subprocess.run(words, capture_output=True, text=True, timeout=240, env=ONE_THREAD)


def losses(folder: Path) -> dict[int, float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_run_leaves_a_model_a_picture_and_falling_losses(whole: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json", "curves.png", "run.pt"} <= {
        path.name for path in whole.iterdir()
    }
    found = losses(whole)
    assert len(found) == 12 and found[12] < found[1] - 0.1


def test_killed_and_started_again_it_gives_the_same_losses(whole: Path, text: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tamis", "spark", "train", str(text), "-o", str(tmp_path), *OPTIONS]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ONE_THREAD)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "model.safetensors").exists()
    done = command([text, "-o", tmp_path])
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == losses(whole)
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path}: 12 steps, finished; the model: config.json")


@pytest.mark.parametrize("sharding", [[], ["--shard"]], ids=["ddp", "fsdp2"])
def test_two_processes_give_the_losses_of_one(
    whole: Path, text: Path, tmp_path: Path, sharding: list[str]
) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = command([text, "-o", tmp_path, *sharding], launch)
    assert done.returncode == 0, done.stderr
    for (step, found), expected in zip(losses(tmp_path).items(), losses(whole).values(), strict=True):
        # Sums of gradients in another order: rounding, which AdamW's division enlarges at first.
        assert found == pytest.approx(expected, rel=2e-4), step
    assert (tmp_path / "model.safetensors").stat().st_size == (whole / "model.safetensors").stat().st_size


def test_a_trained_model_is_for_whoever_may_read_its_folder(whole: Path) -> None:
    modes = {path.name: path.stat().st_mode for path in whole.iterdir() if path.is_file()}
    assert modes["model.safetensors"] == modes["config.json"] == modes["metrics.jsonl"]
    assert not [path for path in whole.iterdir() if path.name.startswith(".")]


def test_bytes_are_those_of_the_tokens_that_are_scored(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("\u00e9t\u00e9 \u5b57\n\nnext\n")
    tokenizer = open_tokenizer(whole / "tokenizer.json")
    tokens, ends = encode([path], tokenizer, 300)
    assert ends[0] == 0 and ends[-1] == len(path.read_bytes()) - 1  # the blank line parts the documents
    assert (np.diff(ends) >= 0).all() and len(ends) == len(tokens)
    assert ends[1] == 2  # the character's first byte brings both
    found = evaluate(whole, [path], context=32, limit=1)
    assert (found["tokens"], found["bytes"]) == (1, 2) and found["bits_per_byte"] > 0
    path.write_text("<|end|> of nothing\n")
    found = evaluate(whole, [path], context=32, limit=1)
    assert found["bytes"] in (0, 7)
    assert describe(found)


def test_evaluate_counts_loss_and_activity(whole: Path, text: Path) -> None:
    found = evaluate(whole, [text], context=32, limit=640)
    assert found["tokens"] == 640
    assert 1 < found["loss"] < 6 and found["bits_per_byte"] > 0
    for layer in found["layers"]:
        assert 0 < layer["active_neurons_mean"] <= layer["active_neurons_max"] <= 192
        assert layer["attended_keys_mean"] <= layer["visible_keys_mean"]
        assert 0 <= layer["idle_neurons"] < 192 - layer["active_neurons_max"]
    assert found["mflop_per_token_counted"] == pytest.approx(found["mflop_per_token_formula"], rel=0.2)
    assert len(describe(found)) == 3 + 2 + 2


def test_a_run_starts_from_another_model_with_its_tokens(whole: Path, text: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        tmp_path, [text], changes=WIDTH, start=whole, context=32, batch=4, steps=2, log_every=1, threads=1
    )
    before = torch.get_num_threads()
    try:
        train(recipe)
    finally:
        torch.set_num_threads(before)
    assert losses(tmp_path)[1] < losses(whole)[1] - 0.1
    rows = [json.loads((folder / "config.json").read_text())["gate_rows"] for folder in (whole, tmp_path)]
    assert rows == ["equal", "free"]
    assert (tmp_path / "tokenizer.json").read_bytes() == (whole / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("fast", [False, True])
def test_products_that_the_processor_lacks_are_told(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tamis.spark.train.fast_bfloat16", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    absent = str(tmp_path / "absent.txt")
    assert main(["spark", "train", absent, "-o", str(tmp_path / "run"), "--precision", "bfloat16"]) == 1
    assert ("no instruction for bfloat16" in capsys.readouterr().err) is not fast


def test_what_cannot_be_trained_is_told(text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no file"):
        train(Recipe(tmp_path / "a", [tmp_path / "absent.txt"]))
    with pytest.raises(UsageError, match="no text"):
        train(Recipe(tmp_path / "b", []))
    with pytest.raises(InputError, match=r"tokenizer\.json was expected"):
        train(Recipe(tmp_path / "c", [text], tokenizer=tmp_path / "absent.json"))
    with pytest.raises(UsageError, match="--context 99 is longer"):
        train(Recipe(tmp_path / "d", [text], changes=WIDTH, context=99))
    with pytest.raises(UsageError, match="--batch is 0"):
        Recipe(tmp_path / "e", [text], batch=0)
    with pytest.raises(UsageError, match="no field 'hiden_size'"):
        train(Recipe(tmp_path / "f", [text], changes=WIDTH | {"hiden_size": 8}, context=32))
    with pytest.raises(InputError, match="topk_method is 'sorted'"):
        train(Recipe(tmp_path / "g", [text], changes=WIDTH | {"topk_method": "sorted"}, context=32))


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        (WIDTH, {"context": 99}, "--context 99 is longer"),
        (WIDTH | {"vocab_size": 290}, {"tokenizer": "tokenizer.json", "context": 32}, "add --set vocab_size=300"),
        (WIDTH | {"max_position_embeddings": 1 << 20}, {"context": 1 << 19}, "give more text or a shorter --context"),
    ],
)  # fmt: skip
def test_a_refused_training_leaves_nothing(
    changes: dict[str, int], options: dict[str, Any], sentence: str, whole: Path, text: Path, tmp_path: Path
) -> None:
    if "tokenizer" in options:
        options = options | {"tokenizer": whole / options["tokenizer"]}
    with pytest.raises((InputError, UsageError), match=sentence):
        train(Recipe(tmp_path, [text], changes=changes, **options))
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_on_only_with_the_text_and_tokenizer_it_was_begun_with(
    whole: Path, text: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("Nothing of this was asked for.\n")
    with pytest.raises(
        InputError, match=r"begun with text\.txt \(\d+ bytes\), not with other\.txt \(31 bytes\)"
    ):
        train(Recipe(whole, [other], changes=WIDTH, context=32, batch=4))
    for name, value in (("context", 16), ("batch", 2), ("learning_rate", 1e-3)):
        with pytest.raises(InputError, match=f"begun with {name} .*, not {value}"):
            train(Recipe(whole, [text], changes=WIDTH, **{"context": 32, "batch": 4} | {name: value}))
    with pytest.raises(InputError, match="begun with topk_method 'statistical', not 'exact'"):
        train(Recipe(whole, [text], changes=WIDTH | {"topk_method": "exact"}, context=32, batch=4))
    with pytest.raises(InputError, match=r"begun with text\.txt .*, not with absent\.txt \(absent\)"):
        train(Recipe(whole, [tmp_path / "absent.txt"], changes=WIDTH, context=32, batch=4))
    train_tokenizer([text.read_text()], 290).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="begun with another tokenizer than"):
        train(
            Recipe(whole, [text], changes=WIDTH, context=32, batch=4, tokenizer=tmp_path / "tokenizer.json")
        )
    stored = json.loads((whole / "tokens" / "tokens.json").read_text())
    assert stored["texts"] == [["text.txt", text.stat().st_size]]


@pytest.mark.parametrize("name", ["seed", "minutes", "weight_decay"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_impossible_numbers_of_a_recipe_are_refused(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is {value}; 0 or more"):
        Recipe(tmp_path, [], **{name: value})  # type: ignore[arg-type]
