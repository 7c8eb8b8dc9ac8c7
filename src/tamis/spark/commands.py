"""Train a Spark Transformer and decode with it on a CPU.

Light: what computes or trains is imported when a verb runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tamis.errors import UsageError
from tamis.spark import decode_commands
from tamis.spark.published import NAME, named


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""
    _add_train(
        verbs.add_parser("train", parents=[common], help="text -> a trained model", description=_TRAIN)
    )
    decode_commands.add_commands(verbs, common)
    _add_evaluate(
        verbs.add_parser(
            "evaluate", parents=[common], help="loss, bits per byte, active shares, operations a token"
        )
    )


_TRAIN = """Trains a dense or Spark Transformer on text files (plain UTF-8, .gz or .xz; blank lines part documents).
The same command goes on after an interruption. Several processes:
torchrun --nproc-per-node N -m tamis spark train ..."""


def _add_train(parser: argparse.ArgumentParser) -> None:
    def option(name: str, kind: Any, default: Any, text: str) -> None:
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")

    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT", help="text files")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the run lives")
    option("--preset", str, "tiny", "shapes: tiny, small or gemma2-2b")
    parser.add_argument("--ffn", choices=("spark", "gated"), default="spark", help="default: %(default)s")
    parser.add_argument(
        "--attention", choices=("spark", "softmax"), default="spark", help="default: %(default)s"
    )
    parser.add_argument(
        "--set", action="append", default=[], type=_change, metavar="FIELD=VALUE",
        help="change a field of the preset, for example hidden_size=256 or topk_method=exact; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: train one)"
    )
    parser.add_argument(
        "--start", type=Path, metavar="MODEL", help="start from this checkpoint, dense or Spark"
    )
    option("--context", int, 256, "tokens of a training sequence")
    option("--batch", int, 8, "sequences a step")
    option("--steps", int, 1000, "steps; the schedule depends on it")
    option("--learning-rate", float, 3e-3, "peak")
    option("--weight-decay", float, 0.1, "of the matrices")
    option("--seed", int, 1, "of weights and batches")
    option("--evaluate-every", int, 0, "steps; 0: twenty times")
    option("--checkpoint-every", int, 200, "steps")
    option("--log-every", int, 20, "steps")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32",
        help="of the products while training (default: %(default)s)",
    )  # fmt: skip
    option("--minutes", float, float("inf"), "stop with a checkpoint after this long")
    option("--threads", int, 0, "of PyTorch; 0: its own choice")
    parser.add_argument("--shard", action="store_true", help="several processes: part the weights (FSDP2)")
    parser.set_defaults(run=_train, extra="train", trains=True)


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _train(options: argparse.Namespace) -> int:
    from tamis.spark.train import Recipe, slow_products, train

    _no_bars()
    fields = {name: value for name, value in vars(options).items() if name in Recipe.__dataclass_fields__}
    recipe = Recipe(**fields, changes=dict(options.set))
    if slow_products(recipe):
        print(
            "This processor has no instruction for bfloat16 products: they can take a hundred times as long as "
            "float32 ones. Leave --precision out to train in float32.",
            file=sys.stderr,
        )
    fitted = train(
        recipe, report=lambda line: print(" ".join(f"{k}={v:.4g}" for k, v in line.items()), flush=True)
    )
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        state = "finished" if fitted.finished else "stopped in time; the same command goes on"
        print(f"{recipe.output}: {fitted.step} steps, {state}; the model: config.json, model.safetensors")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help=f"a checkpoint folder, or {NAME}, which ships"
    )
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help="text files")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens (default: the model's, at most 1024)"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="default: MODEL/tokenizer.json")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.set_defaults(run=_evaluate, extra="train")


def _evaluate(options: argparse.Namespace) -> int:
    from tamis.spark.evaluate import describe, evaluate

    for name in ("context", "limit"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UsageError(f"--{name} is {value}; at least 1 was expected.")
    _no_bars()
    found = evaluate(
        named(options.model),
        options.texts,
        context=options.context,
        tokenizer=options.tokenizer,
        limit=options.limit,
    )
    print(json.dumps(found) if options.json else "\n".join(describe(found)))
    return 0


def _no_bars() -> None:
    """transformers draws progress bars of its own, also where there is no terminal."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


PROMPTS = ("The design of the website", "A good design")
"""The likeliest words after these make whole sentences, which is not to be expected of a million parameters."""
DEMO_LAYERS = 4


def demo(folder: Path) -> None:
    """The shipped model completes two prompts; then dense against Spark on layers of Gemma-2 2B's size, random weights."""
    from tamis import native
    from tamis.spark.engine import Engine
    from tamis.spark.presets import parameters
    from tamis.spark.published import shipped

    with Engine.open(shipped(), sequences=len(PROMPTS)) as engine:
        made = engine.generate_many(PROMPTS, max_tokens=40, stop=["\n"])
        counts, config = engine.counts, engine.packed.config
    tokens, layers = max(1, counts.tokens), config["num_hidden_layers"]
    isa = native.chosen()
    path = "portable Python code" if isa is None else f"{list(native.instruction_sets())[isa]} kernels"
    print(
        f"the shipped model ({parameters(config) / 1e6:.1f} M parameters, on {path}) continues two prompts:"
    )
    for prompt, one in zip(PROMPTS, made, strict=True):
        print(f"  {prompt}{one.text}")
    print(f"  active: {counts.active / tokens / layers:.0f} of {config['intermediate_size']} neurons a layer")
    if isa is None:
        print("dense against Spark is measured with the compiled kernels, which are absent here.")
        return
    _compare_layers(folder / "spark_layers.jsonl")


def _compare_layers(output: Path) -> None:
    from tamis.spark.bench import Settings, run
    from tamis.writing import replacing

    # "model" first: it leaves a real query behind, without which every key looks alike to the attention part.
    settings = Settings(
        contexts=(4096,), rounds=5, layers=DEMO_LAYERS, parts=("model", "ffn", "attention"), dtypes=("bf16",)
    )
    records = [record for record in run(settings) if record["part"] != "model"]
    print(f"{DEMO_LAYERS} layers of Gemma-2 2B's size, random bf16 weights, 4096 tokens before, one token:")
    print(f"  {'':12}{'dense':>12}{'Spark':>12}{'ratio':>8}{'byte limit':>12}")
    for part, name in (("ffn", "FFN"), ("attention", "attention")):
        dense, spark = (
            next(r for r in records if r["part"] == part and r["arm"] == f"{arm} bf16")
            for arm in ("dense", "spark")
        )
        print(
            f"  {name:12}{dense['ms_per_token']:9.2f} ms{spark['ms_per_token']:9.2f} ms"
            f"{spark['ratio_to_dense']:7.2f}x{spark['limit']:11.2f}x"
        )
    rates = [
        1e3 / sum(r["ms_per_token"] for r in records if r["arm"] == f"{arm} bf16")
        for arm in ("dense", "spark")
    ]
    print(
        f"  {'tokens/s':12}{rates[0]:9.1f}   {rates[1]:9.1f}   {rates[1] / rates[0]:7.2f}x   through these layers"
    )
    with replacing(output) as beside:
        beside.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print(f"written: {output}")
