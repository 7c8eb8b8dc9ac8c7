"""Train a dense or Spark Transformer on text: `tamis spark train TEXT... -o DIR`.

    DIR/tokenizer.json, tokens/          the tokenizer and the tokens of the text (tamis.spark.tokens)
    DIR/recipe.json                      what the run was begun with, and must go on with
    DIR/run.pt                           the checkpoint: the same command goes on from it, also after kill -9
    DIR/metrics.jsonl, curves.png        loss, and active share per layer
    DIR/config.json, model.safetensors   the model, for from_pretrained, evaluate, export and generate

Several processes: torchrun --nproc-per-node 2 -m tamis spark train ... [--shard]. Every process takes its rows of the
same batch, so the losses are those of a single one. DDP keeps a copy each, --shard (FSDP2) parts the weights.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from tamis.errors import InputError, UsageError
from tamis.spark.checkpoint import ABLATIONS, parse_json
from tamis.spark.curves import draw
from tamis.spark.evaluate import dev_metrics, open_model
from tamis.spark.huggingface import SparkConfig, SparkForCausalLM, from_dense
from tamis.spark.presets import arrange
from tamis.spark.tokens import (
    END,
    describe,
    end_token,
    open_tokenizer,
    open_tokens,
    prepare,
    read_documents,
    read_sources,
    sources,
    split_of,
    train_tokenizer,
    windows,
)
from tamis.training import FitConfig, Fitted, fast_bfloat16, fit
from tamis.writing import replacing, scratch

Loss = tuple[Tensor, dict[str, float]]


@dataclass(frozen=True)
class Recipe:
    """What to train and how. The command line has one option a field."""

    output: Path
    texts: list[Path]
    preset: str = "tiny"
    ffn: str = "spark"
    attention: str = "spark"
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the preset's fields."""
    tokenizer: Path | None = None
    """A tokenizer.json; unless given, that of `start`, or else trained on the text."""
    start: Path | None = None
    """A checkpoint folder of the same width to start from, dense or Spark, Gemma-2 included."""
    context: int = 256
    batch: int = 8
    """Sequences a step, over all processes."""
    steps: int = 1000
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 1
    evaluate_every: int = 0
    checkpoint_every: int = 200
    log_every: int = 20
    precision: str = "float32"
    """Of the products while training: float32 or bfloat16."""
    minutes: float = float("inf")
    threads: int = 0
    shard: bool = False

    def __post_init__(self) -> None:
        for name in ("context", "batch", "steps", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; at least 1 was expected."
                )
        for name in ("threads", "evaluate_every", "weight_decay", "seed", "minutes"):
            if not getattr(self, name) >= 0:  # so that NaN fails, too
                raise UsageError(
                    f"--{name.replace('_', '-')} is {getattr(self, name)}; 0 or more was expected."
                )
        if self.precision not in ("float32", "bfloat16"):
            raise UsageError(f"--precision is {self.precision!r}; it is float32 or bfloat16.")
        if not self.learning_rate > 0:
            raise UsageError(f"--learning-rate is {self.learning_rate}; it must be positive.")


NOTE = "recipe.json"
"""Of a run's folder: what it was begun with."""


def slow_products(recipe: Recipe) -> bool:
    """Whether the processor lacks instructions for the products that are asked for."""
    return recipe.precision == "bfloat16" and not torch.cuda.is_available() and not fast_bfloat16()


def train(recipe: Recipe, report: Callable[[dict[str, float]], None] | None = None) -> Fitted:
    """Train, or go on. Raises InputError or UsageError for what cannot be, TrainingError for what went wrong."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    with Processes() as processes:
        if recipe.batch % processes.count:
            raise UsageError(
                f"--batch {recipe.batch} cannot be shared by {processes.count} processes equally."
            )
        if processes.count > 1 and recipe.minutes != float("inf"):
            raise UsageError("--minutes is for one process: several would stop at different steps.")
        if processes.first:
            prepare_text(recipe)
        processes.wait()
        tokens, dev = (open_tokens(recipe.output / "tokens", split) for split in ("train", "dev"))
        model: nn.Module = build(recipe)
        model.to(processes.device)
        processes.align(recipe)
        fitted = fit(
            processes.wrap(model, recipe.shard),
            partial(batches, tokens, recipe, processes),
            partial(next_token_loss, processes, recipe.precision),
            settings(recipe, processes),
            evaluate=dev_metrics(dev, recipe.context, 32) if len(dev) > recipe.context else None,
            report=report if processes.first else None,
        )
        save(fitted.model, recipe, processes)
    return fitted


def settings(recipe: Recipe, processes: Processes) -> FitConfig:
    return FitConfig(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        warmup_steps=min(500, recipe.steps // 20),
        final_learning_rate=0.1,
        weight_decay=recipe.weight_decay,
        fused=not recipe.shard,
        clip_norm=1.0,
        seed=recipe.seed,
        checkpoint=processes.checkpoint(recipe.output),
        checkpoint_every=recipe.checkpoint_every,
        metrics=recipe.output / "metrics.jsonl" if processes.first else None,
        log_every=recipe.log_every,
        evaluate_every=recipe.evaluate_every or max(1, recipe.steps // 20),
        time_budget_s=recipe.minutes * 60,
    )


def prepare_text(recipe: Recipe) -> None:
    """Tokenizer and token files, unless an earlier run has left them. What is refused leaves nothing behind.

    Raises InputError or UsageError for what cannot be trained, and where the earlier run had other texts or another tokenizer.
    """
    folder = recipe.output
    config = configuration(recipe)
    given = recipe.tokenizer
    if given is None and recipe.start is not None:  # other tokens would make its embeddings noise
        given = recipe.start / "tokenizer.json"
    if (folder / "tokens" / "tokens.json").exists():
        _check_same(recipe)
        _note(recipe)
        return
    if not recipe.texts:
        raise UsageError("There is no text to train on: name at least one file.")
    missing = [path for path in recipe.texts if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]} is no file: name text files (.txt, .xz, .gz).")
    if given is not None:
        tokenizer = open_tokenizer(given)
        end_token(tokenizer)
        _check_fits(tokenizer, config)
    else:
        documents = (document for path in recipe.texts for document in read_documents(path))
        chosen = (document for document in documents if split_of(document) == "train")
        tokenizer = train_tokenizer(chosen, config["vocab_size"])
    with replacing(folder / "tokenizer.json") as beside:
        tokenizer.save(str(beside))
    try:
        _note(recipe)
        prepare(recipe.texts, folder / "tokens", tokenizer, least=recipe.context + 2)
    except InputError:  # the next run, of better texts, is to find nothing of these
        shutil.rmtree(folder / "tokens", ignore_errors=True)
        (folder / "tokenizer.json").unlink()
        (folder / NOTE).unlink()
        raise


def configuration(recipe: Recipe) -> dict[str, Any]:
    """The model's, without the numbers of its tokenizer. Raises InputError or UsageError for what cannot be."""
    # Rows that have been learned are left as long as they are.
    changes = ({} if recipe.start is None else {"gate_rows": "free"}) | recipe.changes
    config = arrange(recipe.preset, ffn=recipe.ffn, attention=recipe.attention, **changes)
    if recipe.context > config["max_position_embeddings"]:
        raise UsageError(
            f"--context {recipe.context} is longer than the model's {config['max_position_embeddings']}."
        )
    return config


def _essence(recipe: Recipe) -> dict[str, Any]:
    """What must not change while a model is trained: else its config.json would tell of another than was."""
    kept = ("context", "batch", "learning_rate", "weight_decay")
    return configuration(recipe) | {name: getattr(recipe, name) for name in kept}


def _note(recipe: Recipe) -> None:
    with replacing(recipe.output / NOTE) as beside:
        beside.write_text(json.dumps(_essence(recipe), indent=2) + "\n")


def _check_same(recipe: Recipe) -> None:
    """The recipe is that of the folder's note; texts and tokenizer, if named, are those that its tokens were made of."""
    folder = recipe.output
    again = f"Name another -o, or delete {folder / 'tokens'} and run.pt to start again."
    noted = {}
    with suppress(FileNotFoundError):  # an older run has none
        try:
            noted = dict(parse_json((folder / NOTE).read_bytes()))
        except (ValueError, TypeError):
            raise InputError(f"{folder / NOTE} is damaged: it is no table of settings. {again}") from None
    wanted = {name: values[0] for name, values in ABLATIONS.items()} | _essence(recipe)
    for name, value in wanted.items() if noted else ():
        begun = noted.get(name, ABLATIONS[name][0] if name in ABLATIONS else value)
        if begun != value:
            raise InputError(f"{folder} was begun with {name} {begun!r}, not {value!r}. {again}")
    known = read_sources(folder / "tokens")
    if recipe.texts and known is not None and (asked := sources(recipe.texts)) != known:
        raise InputError(f"{folder} was begun with {describe(known)}, not with {describe(asked)}. {again}")
    if recipe.tokenizer is not None:
        own, asked_for = (open_tokenizer(p).to_str() for p in (folder / "tokenizer.json", recipe.tokenizer))
        if own != asked_for:
            raise InputError(f"{folder} was begun with another tokenizer than {recipe.tokenizer}. {again}")


def _check_fits(tokenizer: Any, config: dict[str, Any]) -> None:
    if tokenizer.get_vocab_size() > config["vocab_size"]:
        raise InputError(
            f"The tokenizer has {tokenizer.get_vocab_size()} tokens, the model {config['vocab_size']}: "
            f"add --set vocab_size={tokenizer.get_vocab_size()}, or give another tokenizer."
        )


def build(recipe: Recipe) -> SparkForCausalLM:
    """The model at its start, the same in every process."""
    tokenizer = open_tokenizer(recipe.output / "tokenizer.json")
    config = configuration(recipe)
    _check_fits(tokenizer, config)
    config |= {"eos_token_id": end_token(tokenizer), "pad_token_id": end_token(tokenizer)}
    torch.manual_seed(recipe.seed)
    if recipe.start is not None:
        return from_dense(open_model(recipe.start), config)
    return SparkForCausalLM(SparkConfig(**{k: v for k, v in config.items() if k != "model_type"}))


def batches(tokens: NDArray[Any], recipe: Recipe, processes: Processes, first: int) -> Iterator[Tensor]:
    """Windows [rows of this process, context + 1], from the step alone."""
    step = first
    while True:
        rows = windows(tokens, recipe.context, recipe.batch, (recipe.seed, step))
        yield torch.from_numpy(rows[processes.rank :: processes.count]).to(processes.device)
        step += 1


def next_token_loss(processes: Processes, precision: str, model: nn.Module, batch: Tensor) -> Loss:
    """Mean over this process's rows; what is logged is the mean over all of them."""
    # Products in bfloat16, everything else in float32: five times the speed of float32 products on some processors.
    with torch.autocast(processes.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        value = model(batch[:, :-1], targets=batch[:, 1:]).loss
    return value, processes.mean(value)


def save(model: nn.Module, recipe: Recipe, processes: Processes) -> None:
    """config.json, model.safetensors and curves.png; float32 as trained."""
    plain: Any = getattr(model, "module", model)
    if recipe.shard:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(plain, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    else:
        state = plain.state_dict()
    if processes.first:
        with scratch(recipe.output / "model.safetensors") as folder:
            plain.save_pretrained(folder, state_dict=state)
            mode = (folder / "config.json").stat().st_mode  # the weights are written for their owner alone
            for path in sorted(
                folder.iterdir(), key=lambda path: path.suffix == ".safetensors"
            ):  # these last
                path.chmod(mode)
                path.replace(recipe.output / path.name)
        with replacing(recipe.output / "tokenizer_config.json") as beside:
            beside.write_text(
                json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}) + "\n"
            )
        draw(recipe.output / "metrics.jsonl", recipe.output / "curves.png")
    processes.wait()


class Processes:
    """The processes of `torchrun`; without it, one."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        self.first = self.rank == 0
        cuda = torch.cuda.is_available()
        self.device = (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
        )

    def __enter__(self) -> Processes:
        if self.count > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def wrap(self, model: nn.Module, shard: bool) -> nn.Module:
        if self.count == 1:
            return model
        if not shard:
            return nn.parallel.DistributedDataParallel(model)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        layers: Any = model.get_submodule("model.layers")
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def mean(self, value: Tensor) -> dict[str, float]:
        if self.count == 1:
            return {}
        total = value.detach().clone()
        dist.all_reduce(total)
        return {"loss": total.item() / self.count}

    def checkpoint(self, folder: Path, rank: int | None = None) -> Path:
        """Every process has its own: with --shard they differ."""
        rank = self.rank if rank is None else rank
        return folder / ("run.pt" if rank == 0 else f"run.rank{rank}.pt")

    def align(self, recipe: Recipe) -> None:
        """All processes go on from the same step. Raises InputError when a killed sharded run left different ones."""
        if self.count == 1:
            return
        own = self.checkpoint(recipe.output)
        if not recipe.shard and not self.first:  # copies of the first one's, which may be a step ahead
            if self.checkpoint(recipe.output, 0).exists():
                shutil.copyfile(self.checkpoint(recipe.output, 0), own)
            else:
                own.unlink(missing_ok=True)
        elif recipe.shard:
            step = -1
            if own.exists():
                step = torch.load(own, map_location="cpu", weights_only=True)["step"]
            steps: list[Any] = [None] * self.count
            dist.all_gather_object(steps, step)
            if len(set(steps)) > 1:
                raise InputError(
                    f"The checkpoints in {recipe.output} are of the steps {steps}: the run was killed while they were "
                    f"written, or had another number of processes. Delete run*.pt to start again."
                )
        self.wait()
