"""The verbs of `tamis spark` that decode: export, generate, serve, bench. Light, as `commands.py`, which adds them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tamis.arguments import figure
from tamis.errors import InputError, UsageError
from tamis.progress import Progress
from tamis.remote import stem_of
from tamis.spark.published import NAME, named
from tamis.writing import check_writable

DTYPES = ("f32", "bf16", "int8")
SIDE_BY_SIDE = 8
"""Prompts of one command that run at once, each with a cache of its own: more hardly gains (docs/spark_engine.md)."""


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    _add_export(verbs.add_parser("export", parents=[common], help="checkpoint -> packed model for decoding"))
    _add_generate(verbs.add_parser("generate", parents=[common], help="continue a prompt"))
    _add_serve(
        verbs.add_parser(
            "serve", parents=[common], help="complete prompts over HTTP, as OpenAI's clients ask"
        )
    )
    _add_bench(verbs.add_parser("bench", parents=[common], help="dense and Spark decoding side by side"))


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="folder with config.json and model.safetensors"
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="the packed file, such as model.spark"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="the same")
    parser.add_argument(
        "--dtype", choices=DTYPES, default="bf16", help="of the weights (default: %(default)s)"
    )
    parser.add_argument(
        "--head",
        choices=("int8",),
        help="vocabulary projection in int8; top candidates are scored again in full",
    )
    parser.add_argument(
        "--predictor",
        choices=("int8",),
        help="predictor of a Spark FFN in int8; active neurons are scored again in full",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.set_defaults(run=_export, extra="spark")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help=f"a packed model, a checkpoint folder, or {NAME}, which ships",
    )
    parser.add_argument(
        "prompts",
        nargs="+",
        metavar="PROMPT",
        help="text to continue, - for that on standard input; several run side by side",
    )
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0, the default: the likeliest token"
    )
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest (0: all)"
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest of share P"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the same text for the same seed")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
    _add_engine(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON record a prompt")
    parser.set_defaults(run=_generate, extra="spark")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """How a model is opened."""
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights of a checkpoint folder (bf16)")
    parser.add_argument("--context", type=int, metavar="N", help="most tokens of prompt and continuation")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help=f"a packed model, a checkpoint folder, or {NAME}, which ships",
    )
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this computer alone")
    parser.add_argument(
        "--sequences",
        type=int,
        default=4,
        metavar="N",
        help="prompts of a request that run side by side (%(default)s)",
    )
    _add_engine(parser)
    parser.set_defaults(run=_serve, extra="spark")


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="gemma2-2b", help="shapes of the model (default: %(default)s)")
    parser.add_argument(
        "--contexts",
        type=_numbers,
        default=[128, 4096, 8192],
        metavar="N,N,...",
        help="tokens before the one that is timed (default: 128,4096,8192)",
    )
    parser.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="of which medians are taken (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument("--layers", type=int, metavar="N", help="fewer than the preset has: a quick look")
    parser.add_argument(
        "--parts",
        type=_words,
        default=["model", "ffn", "attention", "prefill"],
        metavar="PART,...",
        help="of model, ffn, attention, prefill, fewer-bytes, sequences (default: the first four)",
    )
    parser.add_argument(
        "--dtypes",
        type=_words,
        default=["bf16", "int8"],
        metavar="TYPE,...",
        help="of f32, bf16, int8 (default: bf16,int8)",
    )
    parser.add_argument(
        "--against", choices=("llama.cpp",), help="the dense shape there, in the same run (make llama)"
    )
    parser.add_argument("--figure", type=figure, metavar="FILE", help="draw the results: .png, .svg, .pdf")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the records (.jsonl)")
    parser.add_argument("--json", action="store_true", help="one record a line instead of a table")
    parser.set_defaults(run=_bench, extra="spark")


def _export(options: argparse.Namespace) -> int:
    from tamis.spark.checkpoint import read_model
    from tamis.spark.engine import check_decodable, read_tokenizer
    from tamis.spark.packed import Recipe, write

    if (options.out is None) is (options.output is None):
        count = "no file to write was" if options.out is None else "two files to write were"
        raise UsageError(f"tamis spark export: {count} named: write  tamis spark export MODEL OUT.")
    output: Path = options.out or options.output
    recipe = Recipe(options.dtype, options.head, options.predictor)
    model = named(options.model)
    if not model.is_dir():
        raise InputError(f"{model} is no folder: name the one that holds config.json and the weights.")
    config, tensors = read_model(model)
    check_decodable(config, model)
    if recipe.predictor and config["ffn"] != "spark":
        raise UsageError(f"--predictor is for a Spark FFN; {model} has a gated one, which has no predictor.")
    if output.suffix in (".safetensors", ".json"):
        raise UsageError(
            f"{output} would not be what its ending says: name the packed model otherwise, such as model.spark."
        )
    check_writable(output)
    with Progress(output.name) as bar:
        write(output, config, tensors, recipe, read_tokenizer(model), bar)
    size = output.stat().st_size
    if options.json:
        print(json.dumps({"model": str(options.model), "output": str(output), "bytes": size}))
    else:
        print(f"{output}: {size / 1e6:.1f} MB, {recipe.dtype}")
    return 0


def _generate(options: argparse.Namespace) -> int:
    from tamis.spark.engine import Engine

    sampling = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    prompts = [_standard_input() if prompt == "-" else prompt for prompt in options.prompts]
    engine = Engine.open(
        named(options.model),
        dtype=options.dtype,
        threads=options.threads,
        context=options.context,
        sequences=min(len(prompts), SIDE_BY_SIDE),
    )
    with engine:
        settings = {"max_tokens": options.max_tokens, "stop": options.stop} | sampling
        if len(prompts) == 1 and not options.json:
            pieces = engine.stream(prompts[0], **settings)
            print(prompts[0], end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print()
            return 0
        made = engine.generate_many(prompts, **settings)
    for prompt, one in zip(prompts, made, strict=True):
        record = {
            "prompt": prompt,
            "text": one.text,
            "tokens": list(one.tokens),
            "prompt_tokens": one.prompt_tokens,
            "ended": one.ended,
        }
        print(json.dumps(record, ensure_ascii=False) if options.json else f"{prompt}{one.text}\n")
    return 0


def _standard_input() -> str:
    """All of it, without its last line end. Bytes that are no UTF-8 stay visible to who looks whether it is text."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape").removesuffix("\n")


def _serve(options: argparse.Namespace) -> int:
    from tamis.spark.engine import Engine
    from tamis.spark.serve import serve

    opened = {name: getattr(options, name) for name in ("dtype", "context", "threads", "sequences")}
    model = named(options.model)
    with Engine.open(model, **opened) as engine:
        serve(engine, stem_of(str(model.resolve())), options.host, options.port)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from tamis.spark.bench import Settings, run
    from tamis.spark.bench_report import draw, table

    settings = Settings(
        preset=options.preset,
        contexts=tuple(options.contexts),
        rounds=options.rounds,
        threads=options.threads,
        layers=options.layers,
        parts=tuple(options.parts),
        dtypes=tuple(options.dtypes),
        against=options.against,
    )
    for path in filter(None, (options.output, options.figure)):
        check_writable(path)
    records: list[dict[str, Any]] = []
    for record in run(settings, tell=lambda text: print(text, file=sys.stderr)):
        line = json.dumps(record)
        if options.json:
            print(line, flush=True)
        if options.output is not None:
            # A run of hours that is stopped has left what it measured; one that is refused, what was there before.
            with options.output.open("a" if records else "w", encoding="utf-8") as file:
                print(line, file=file)
        records.append(record)
    if not options.json:
        print(table(records))
    if options.figure is not None:
        draw(records, options.figure)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers such as 128,4096") from None
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} holds a number below 1")
    return numbers


def _words(text: str) -> list[str]:
    words = [part for part in text.split(",") if part]
    if not words:
        raise argparse.ArgumentTypeError("an empty list was given")
    return words
