"""python -m pytest tests/spark/test_published.py

The shipped model gives the golden tokens through the double-precision step, PyTorch, Hugging Face and the engine.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis import native, weights
from tamis.cli import main
from tamis.errors import WeightsError
from tamis.spark import commands, generate, published
from tamis.spark.reference import Reference

RECORD = published.FOLDER / f"{published.NAME}.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(io.BytesIO(weights.read_golden(weights.load(RECORD))), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def test_the_reference_gives_the_golden_tokens(golden: dict[str, Any]) -> None:
    model = Reference.open(published.shipped())
    state, logits = model.start(), None
    for token in golden["input"]:
        state, logits = model.step(state, int(token))
    assert logits is not None
    np.testing.assert_allclose(logits, golden["output_logits"], rtol=1e-6, atol=1e-5)
    for expected in golden["output"]:
        assert int(np.argmax(logits)) == expected
        state, logits = model.step(state, int(expected))


def test_pytorch_and_hugging_face_give_the_golden_tokens(golden: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")
    transformers = pytest.importorskip("transformers")
    import tamis.spark.huggingface  # registers the model

    folder = published.shipped()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, tamis.spark.huggingface.SparkForCausalLM)
    prompt = torch.from_numpy(golden["input"])[None]
    with torch.no_grad():
        logits = model(prompt).logits[0, -1]
    np.testing.assert_allclose(logits.numpy(), golden["output_logits"], atol=1e-4)
    made = model.generate(prompt, max_new_tokens=len(golden["output"]), do_sample=False)
    assert made[0, prompt.shape[1] :].tolist() == golden["output"].tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(tokenizer.decode(golden["input"])).input_ids == golden["input"].tolist()


@pytest.mark.parametrize("isa", [*(name for name, runs in native.instruction_sets().items() if runs), "none"])
def test_the_engine_gives_the_golden_tokens(isa: str, golden: dict[str, Any]) -> None:
    from tamis.spark.engine import Engine

    with Engine.open(published.shipped(), dtype="f32", isa=isa, context=128) as engine:
        made = engine.generate(golden["input"].tolist(), max_tokens=len(golden["output"]))
    assert list(made.tokens) == golden["output"].tolist()


@pytest.mark.parametrize("isa", [*(name for name, runs in native.instruction_sets().items() if runs), "none"])
def test_the_demo_continues_its_prompts_to_whole_sentences(
    isa: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(native.VARIABLE, isa)
    monkeypatch.setattr(commands, "_compare_layers", lambda output: None)  # random weights, and two seconds
    commands.demo(tmp_path)
    _, *sentences, active = capsys.readouterr().out.splitlines()[:4]
    for prompt, sentence in zip(commands.PROMPTS, sentences, strict=True):
        assert sentence.strip().startswith(prompt) and sentence.endswith(".") and len(sentence) < 90
    assert "of 576 neurons a layer" in active


def test_altered_companions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(published.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(published, "FOLDER", tmp_path / "weights")
    assert published.shipped().is_dir()
    (tmp_path / "weights" / published.NAME / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json is missing or not"):
        published.shipped()


def test_the_shipped_model_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing else of that name lies: what is there goes first."""
    monkeypatch.chdir(tmp_path)
    assert main(["spark", "generate", published.NAME, "The city", "--max-tokens", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"The city{generate(published.NAME, 'The city', max_tokens=3)}\n" != "The city\n"
    assert main(["spark", "generate", "no-such-model", "The city"]) == 1
    assert "no-such-model does not exist" in capsys.readouterr().err
    (tmp_path / published.NAME).mkdir()
    assert main(["spark", "generate", published.NAME, "The city"]) == 1
    assert "holds no config.json" in capsys.readouterr().err
