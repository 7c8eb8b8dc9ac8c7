"""python -m pytest tests/spark/test_model.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra: pip install tamis[train]")
pytest.importorskip("transformers")

from tamis.spark.checkpoint import complete  # noqa: E402
from tamis.spark.huggingface import SparkConfig, SparkForCausalLM  # noqa: E402
from tamis.spark.reference import Reference  # noqa: E402

SHAPE = {
    "model_type": "tamis_spark", "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "intermediate_size": 40, "ffn_predictor_size": 10, "ffn_active": 6,
    "attention_predictor_size": 4, "attention_active": 3, "sliding_window": 6, "query_pre_attn_scalar": 9,
    "max_position_embeddings": 64, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0,
}  # fmt: skip


def random_model(**changes: Any) -> SparkForCausalLM:
    """With weights large enough for every cap and threshold to matter."""
    torch.manual_seed(1)
    fields = {k: v for k, v in (SHAPE | changes).items() if k != "model_type"}
    model = SparkForCausalLM(SparkConfig(**fields)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


def reference_of(model: SparkForCausalLM) -> Reference:
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    return Reference(complete(model.config.to_dict()), tensors)


@pytest.mark.parametrize("attention", ["softmax", "spark"])
@pytest.mark.parametrize("ffn", ["gated", "spark"])
def test_the_model_is_the_reference_token_by_token(ffn: str, attention: str) -> None:
    model = random_model(ffn=ffn, attention=attention)
    tokens = np.random.default_rng(0).integers(0, 61, 20)
    with torch.no_grad():
        found = model(torch.from_numpy(tokens)[None]).logits[0].numpy()
    reference = reference_of(model)
    state = reference.start()
    for token, logits in zip(tokens, found, strict=True):
        state, expected = reference.step(state, int(token))
        np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-11)


def test_observers_count_what_the_reference_counts() -> None:
    model = random_model(ffn="spark", attention="spark")
    tokens = np.random.default_rng(3).integers(0, 61, 18)
    active, attended = [], []
    for layer in model.model.layers:
        layer.mlp.observer = lambda passed: active.append(int(passed[0, -1].sum()))
        layer.self_attn.observer = lambda count: attended.append(tuple(count[0, :, :, -1].flatten().tolist()))
    with torch.no_grad():
        model(torch.from_numpy(tokens)[None])
    reference = reference_of(model)
    state = reference.start()
    for token in tokens:
        state, _ = reference.step(state, int(token))
    assert tuple(active) == state.active
    assert tuple(attended) == state.attended
    assert max(state.active) < 40 and max(max(heads) for heads in state.attended) < 18


def test_neurons_that_hardly_any_token_uses_are_counted() -> None:
    from tamis.spark.evaluate import report

    model = random_model(ffn="spark", attention="spark")
    tokens = np.random.default_rng(0).integers(0, 61, 401)
    before = [layer["idle_neurons"] for layer in report(model, tokens, 401, 20)["layers"]]
    with torch.no_grad():
        for layer, idle in zip(model.model.layers, (5, 0, 9), strict=True):
            layer.mlp.predictor.weight[:idle] = 0  # theta lies above 0
    found = [layer["idle_neurons"] for layer in report(model, tokens, 401, 20)["layers"]]
    assert before == [0, 0, 0] and found == [5, 0, 9]


@pytest.mark.parametrize("attention", ["softmax", "spark"])
def test_later_tokens_change_nothing_before_them(attention: str) -> None:
    """Also not through the moments of the threshold."""
    model = random_model(ffn="spark", attention=attention)
    tokens = torch.randint(0, 61, (1, 20))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 61
    with torch.no_grad():
        first, second = model(tokens).logits, model(changed).logits
    torch.testing.assert_close(first[:, :12], second[:, :12], rtol=0, atol=0)
    assert not torch.allclose(first[:, 12:], second[:, 12:])


def test_shifts_reach_the_model_and_the_reference_alike() -> None:
    model = random_model(ffn="spark", attention="spark")
    tokens = np.random.default_rng(0).integers(0, 61, 20)
    with torch.no_grad():
        unshifted = model(torch.from_numpy(tokens)[None]).logits[0]
        for i, layer in enumerate(model.model.layers):
            layer.mlp.quantile_shift.fill_(-0.3 - 0.1 * i)
            layer.self_attn.quantile_shift.fill_(0.2 + 0.1 * i)
        found = model(torch.from_numpy(tokens)[None]).logits[0]
    assert not torch.allclose(found, unshifted)
    reference = reference_of(model)
    state = reference.start()
    for token, logits in zip(tokens, found.numpy(), strict=True):
        state, expected = reference.step(state, int(token))
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-7)  # a shift is a float32


def test_sequences_too_short_for_a_threshold_are_trained_on() -> None:
    model = random_model(ffn="spark", attention="spark", attention_active=9, sliding_window=12).train()
    shifts = [layer.self_attn.quantile_shift for layer in model.model.layers]
    for length, moved in ((1, False), (5, False), (9, False), (12, True)):
        tokens = torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(0))
        model(tokens, targets=tokens).loss.backward()
        assert all(bool(shift != 0) is moved for shift in shifts)


def heavy_tailed() -> SparkForCausalLM:
    """Some predictor rows are much longer than others: mean + 1.4 std is exceeded by too few."""
    model = random_model(ffn="spark", attention="spark", intermediate_size=400, ffn_active=32)
    for layer in model.model.layers:
        layer.mlp.predictor.weight.data *= torch.logspace(-1, 1, 400)[torch.randperm(400)][:, None]
        layer.self_attn.q_proj.weight.data *= 3
    return model


def test_training_finds_the_shift_that_keeps_the_share() -> None:
    from tamis.spark.evaluate import watching

    shares = {}
    for tracked in ("none", "tracked"):
        model = heavy_tailed()
        model.config.theta_shift = tracked
        tokens = torch.randint(0, 61, (8, 24), generator=torch.Generator().manual_seed(0))
        model.train()
        for _ in range(150):
            model(tokens, targets=tokens)
        model.eval()
        before = [layer.mlp.quantile_shift.clone() for layer in model.model.layers]
        with watching(model) as seen, torch.no_grad():
            model(tokens)
        assert [layer.mlp.quantile_shift for layer in model.model.layers] == before  # only training moves it
        shares[tracked] = [(n.mean / 32, k.mean / 3) for n, k in zip(seen.neurons, seen.crowded, strict=True)]
    assert all(neurons < 0.9 for neurons, _ in shares["none"])
    for neurons, keys in shares["tracked"]:
        assert neurons == pytest.approx(1, abs=0.05)
        assert 0.85 < keys <= 1.02


@pytest.mark.parametrize(("ffn", "matrix"), [("spark", "predictor"), ("gated", "gate_proj")])
def test_training_keeps_rows_equally_long_where_told_to(ffn: str, matrix: str) -> None:
    tokens = torch.randint(0, 61, (2, 16), generator=torch.Generator().manual_seed(0))
    model = random_model(ffn=ffn, gate_rows="equal")
    weights = [getattr(layer.mlp, matrix).weight for layer in model.model.layers]
    before = [weight.detach().clone() for weight in weights]
    model(tokens)
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    model.config.gate_rows = "free"
    model.train()(tokens)
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    model.config.gate_rows = "equal"
    model(tokens, labels=tokens).loss.backward()
    for weight, old in zip(weights, before, strict=True):
        length = weight.detach().norm(dim=1)
        torch.testing.assert_close(length, old.norm() / len(old) ** 0.5 * torch.ones_like(length))
        torch.testing.assert_close(weight / length[:, None], old / old.norm(dim=1, keepdim=True))
        assert weight.grad is not None and weight.grad.isfinite().all()


def test_new_spark_models_learn_with_equal_rows_and_learned_ones_keep_theirs() -> None:
    from tamis.spark.presets import arrange

    assert arrange("tiny")["gate_rows"] == "equal"
    assert arrange("tiny", ffn="gated")["gate_rows"] == "free"
    assert SparkConfig().gate_rows == "free"


@pytest.mark.parametrize(
    "changes",
    [{"topk_method": "exact"}, {"ffn_cut": "hard"}, {"theta_gradient": False}, {"attention_gate": "none"}],
    ids=str,
)
def test_every_ablation_changes_the_gradients(changes: dict[str, Any]) -> None:
    tokens = torch.randint(0, 61, (1, 16), generator=torch.Generator().manual_seed(0))
    norms = []
    for model in (random_model(), random_model(**changes)):
        model(tokens, labels=tokens).loss.backward()
        norms.append(model.model.layers[0].self_attn.q_proj.weight.grad.norm().item())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert norms[0] != pytest.approx(norms[1], rel=1e-6)


def test_a_random_model_uses_the_share_it_is_told_to() -> None:
    """8 % of the neurons, and 256 keys on average where more are visible."""
    from tamis.spark.evaluate import watching
    from tamis.spark.presets import arrange

    torch.manual_seed(0)
    config = arrange("tiny", num_hidden_layers=2, attention_active=256, sliding_window=600)
    model = SparkForCausalLM(SparkConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    with watching(model) as seen, torch.no_grad():
        model(torch.randint(0, config["vocab_size"], (1, 700)))
    for neurons, keys in zip(seen.neurons, seen.crowded, strict=True):
        assert neurons.mean / 768 == pytest.approx(0.08, abs=0.01)
        assert keys.mean == pytest.approx(256, rel=0.01)
        assert keys.max > 256  # a target and no bound
