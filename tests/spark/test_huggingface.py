"""python -m pytest tests/spark/test_huggingface.py"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")
transformers = pytest.importorskip("transformers")

from tamis.errors import InputError  # noqa: E402
from tamis.spark.checkpoint import read_model  # noqa: E402
from tamis.spark.huggingface import (  # noqa: E402
    SparkConfig,
    SparkForCausalLM,
    from_dense,
    open_gemma2,
    shapes_agree,
)
from tamis.spark.presets import arrange  # noqa: E402
from tamis.spark.reference import Reference  # noqa: E402

ARMS = [("gated", "softmax"), ("spark", "softmax"), ("spark", "spark")]
SIZES = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 64, "sliding_window": 7, "query_pre_attn_scalar": 8,
    "max_position_embeddings": 96,
}  # fmt: skip


def small(ffn: str = "spark", attention: str = "spark") -> SparkForCausalLM:
    torch.manual_seed(0)
    config = arrange("tiny", ffn=ffn, attention=attention, **SIZES, attention_active=4)
    model = SparkForCausalLM(SparkConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def gemma2() -> transformers.Gemma2ForCausalLM:
    torch.manual_seed(2)
    config = transformers.Gemma2Config(**SIZES, attn_logit_softcapping=3.0, final_logit_softcapping=5.0)
    model = transformers.Gemma2ForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(("ffn", "attention"), ARMS)
def test_saved_and_loaded_through_the_auto_classes(tmp_path: Path, ffn: str, attention: str) -> None:
    model = small(ffn, attention)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, SparkForCausalLM)
    tokens = torch.randint(0, 50, (2, 20))
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, rtol=0, atol=0)
    assert shapes_agree(loaded) == []


@pytest.mark.parametrize(("ffn", "attention"), ARMS)
def test_generating_with_the_cache_gives_the_tokens_of_generating_without(ffn: str, attention: str) -> None:
    model = small(ffn, attention)
    prompt = torch.randint(0, 50, (1, 9))
    with_cache = model.generate(prompt, max_new_tokens=25, do_sample=False, pad_token_id=0)
    without = model.generate(prompt, max_new_tokens=25, do_sample=False, pad_token_id=0, use_cache=False)
    assert with_cache.tolist() == without.tolist()
    static = model.generate(
        prompt,
        max_new_tokens=25,
        do_sample=False,
        pad_token_id=0,
        cache_implementation="static",
        disable_compile=True,
    )
    assert static.tolist() == without.tolist()


@pytest.mark.parametrize(("ffn", "attention"), ARMS)
def test_the_cache_of_a_sliding_layer_holds_its_window_only(ffn: str, attention: str) -> None:
    model = small(ffn, attention)
    made = model.generate(
        torch.randint(0, 50, (1, 9)), max_new_tokens=25, do_sample=False, pad_token_id=0,
        return_dict_in_generate=True,
    )  # fmt: skip
    # Of 9 + 24 tokens; the next one's own key is the seventh of the window.
    assert [layer.keys.shape[2] for layer in made.past_key_values.layers] == [6, 33, 6]


def test_shifts_are_saved_and_an_older_checkpoint_without_them_has_none(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = small()
    for layer in model.model.layers:
        layer.mlp.quantile_shift.fill_(-0.25)
        layer.self_attn.quantile_shift.fill_(0.5)
    model.save_pretrained(tmp_path / "new")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert [layer.mlp.quantile_shift.item() for layer in loaded.model.layers] == [-0.25] * 3
    tokens = torch.randint(0, 50, (1, 20))
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, rtol=0, atol=0)
    model.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if "quantile_shift" not in name}
    save_file(tensors, path, metadata={"format": "pt"})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "old")
    assert [layer.self_attn.quantile_shift.item() for layer in loaded.model.layers] == [0.0] * 3
    _, read = read_model(tmp_path / "old")
    assert read["model.layers.2.mlp.quantile_shift"].tolist() == [0.0]


def test_a_padded_batch_gives_what_each_prompt_gives_alone() -> None:
    model = small()
    long, short = torch.randint(1, 50, (1, 12)), torch.randint(1, 50, (1, 5))
    padded = torch.cat([long, torch.cat([torch.zeros(1, 7, dtype=torch.long), short], 1)])
    mask = (padded != 0).long()
    mask[0] = 1
    both = model.generate(padded, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0)
    for row, prompt in zip(both, (long, short), strict=True):
        alone = model.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)
        assert row[12:].tolist() == alone[0, prompt.shape[1] :].tolist()


def test_a_dense_gemma2_checkpoint_gives_equal_logits(tmp_path: Path) -> None:
    original = gemma2()
    original.save_pretrained(tmp_path)
    dense = open_gemma2(tmp_path)
    tokens = torch.randint(0, 50, (2, 30))
    with torch.no_grad():
        expected = original(tokens).logits
        torch.testing.assert_close(dense(tokens).logits, expected, rtol=2e-5, atol=2e-5)
    reference = Reference.open(tmp_path)  # which reads the folder of transformers as it is
    state = reference.start()
    for token in tokens[0]:
        state, logits = reference.step(state, int(token))
    torch.testing.assert_close(torch.from_numpy(logits).float(), expected[0, -1], rtol=2e-5, atol=2e-5)


def test_a_spark_model_starts_from_a_dense_one() -> None:
    dense = open_gemma2(gemma2())
    config = arrange("tiny", **SIZES)
    spark = from_dense(dense, config)
    assert shapes_agree(spark) == []
    assert sum(p.numel() for p in spark.parameters()) == sum(p.numel() for p in dense.parameters())
    old, new = dense.model.layers[1].mlp, spark.model.layers[1].mlp
    torch.testing.assert_close(new.predictor.weight[:64], old.gate_proj.weight[:, :16])
    torch.testing.assert_close(new.up_proj.weight[:64], old.up_proj.weight[:, 16:])
    assert not new.down_proj.weight[:, 64:].any()
    with pytest.raises(InputError, match="both need the same width"):
        from_dense(dense, arrange("tiny"))


def test_trainer_trains_it(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    rows = [{"input_ids": [(3 * i + j) % 7 + 1 for j in range(24)]} for i in range(32)]
    rows = [row | {"labels": row["input_ids"]} for row in rows]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=40, per_device_train_batch_size=8, learning_rate=1e-2, logging_steps=5,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    model = SparkForCausalLM(
        SparkConfig(**{k: v for k, v in small().config.to_dict().items() if k != "model_type"})
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


def test_more_tokens_than_the_context_is_a_sentence() -> None:
    with pytest.raises(InputError, match=r"97 tokens .* context is 96"):
        small()(torch.zeros(1, 97, dtype=torch.long))


def test_a_contradicting_configuration_is_a_sentence() -> None:
    with pytest.raises(InputError, match="no multiple of num_key_value_heads"):
        SparkConfig(num_attention_heads=3, num_key_value_heads=2)
