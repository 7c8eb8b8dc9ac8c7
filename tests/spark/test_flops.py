"""python -m pytest tests/spark/test_flops.py"""

from __future__ import annotations

import pytest

from tamis.spark.flops import counted, formula
from tamis.spark.presets import arrange, parameters

DENSE = arrange("gemma2-2b", ffn="gated", attention="softmax")
SPARK = arrange("gemma2-2b")


def test_the_ratios_of_the_paper_at_4096() -> None:
    assert formula(DENSE, 4096) / formula(SPARK, 4096) == pytest.approx(2.54, abs=0.005)
    assert formula(DENSE, 4096, head=True) / formula(SPARK, 4096, head=True) == pytest.approx(1.96, abs=0.005)
    assert formula(DENSE, 4096) == pytest.approx(4921e6, rel=1e-3)


def test_equal_parameters() -> None:
    assert parameters(DENSE) == parameters(SPARK) == 2_614_341_888
    for preset in ("tiny", "small"):
        assert parameters(arrange(preset, ffn="gated")) == parameters(arrange(preset)) >= 1_000_000


@pytest.mark.parametrize("config", [DENSE, SPARK], ids=["dense", "spark"])
@pytest.mark.parametrize("head", [False, True])
def test_counting_the_products_gives_the_formula_when_k_is_met(config: dict[str, object], head: bool) -> None:
    layers = 26
    n = 4096
    active, kept = (1106, 256) if config["ffn"] == "spark" else (9216, n)
    found = counted(config, [active] * layers, [kept] * layers, [n] * layers, head=head)
    assert found == pytest.approx(formula(config, n, head=head), rel=1e-12)


def test_pytorch_counts_the_same_for_the_dense_model() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    from tamis.spark.huggingface import SparkConfig, SparkForCausalLM

    config = arrange("tiny", ffn="gated", attention="softmax", sliding_window=4096)
    model = SparkForCausalLM(SparkConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, 64, dtype=torch.long))
    # A whole sequence multiplies with all 64 keys for every query, and masks afterwards.
    assert counter.get_total_flops() == 64 * formula(config, 64, head=True)
