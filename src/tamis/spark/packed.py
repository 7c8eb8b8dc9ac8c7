"""The packed model: weights as the decoding engine reads them, in one file that is mapped into memory.

    8 bytes   b"TAMISPK" and the version of this layout
    8 bytes   length of the header, little-endian
    header    JSON: config, recipe, tokenizer (its JSON as a string, or null), tensors {name: {dtype, shape, offset}}, bytes
    data      from the next multiple of 4096; offsets count from there, in multiples of 64

A matrix lies row by row, a row being an output neuron, padded with zeros to a multiple of 64 numbers. int8 has one scale a
row (value = scale * int8) and the sum of each row's int8, which the kernels need. Of a Spark FFN the predictor K1 is a
matrix by itself, because all of it is read; K2 and V are fused, [K2 | V] by neuron, because both or neither are read.
`layer.N.qkv` holds the query heads, then the key heads, then the value heads. Norms are 1 + weight in float32. `shifts`
[layers, 2] is what each layer adds to the quantile of its thresholds, FFN and attention.

The recipe chooses types: `dtype` of everything, `head` of the vocabulary projection if it is coarser than the embedding
(top candidates are then scored again), `predictor` of K1 if coarser (rows become [K1 | K2 | V], active neurons are scored
again).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, UsageError
from tamis.spark.checkpoint import complete, parse_json, shift_names, widen
from tamis.writing import replacing, reserve

MAGIC = b"TAMISPK\x02"
PAGE, LINE = 4096, 64
ROW_MULTIPLE = 64
DTYPES = ("f32", "bf16", "int8")
_NUMPY = {"f32": np.float32, "bf16": np.uint16, "int8": np.int8, "i32": np.int32}
_BLOCK_ROWS = 4096
Array = NDArray[Any]
Read = Callable[[int, int], Array]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which numbers are kept in which type."""

    dtype: str = "bf16"
    head: str | None = None
    predictor: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"The type {self.dtype!r} is unknown: it is one of {', '.join(DTYPES)}.")
        for what, value in (("head", self.head), ("predictor", self.predictor)):
            if value is not None and (value != "int8" or self.dtype == "int8"):
                raise UsageError(
                    f"A {what} of type {value!r} with weights of {self.dtype!r}: only int8 with finer weights is built."
                )


@dataclass(frozen=True, slots=True)
class Packed:
    """A model ready for the engine. Tensors are views of `data`, which may be a mapped file."""

    config: dict[str, Any]
    recipe: Recipe
    data: NDArray[np.uint8]
    tensors: Mapping[str, Array]
    tokenizer: str | None = None
    source: Path | None = None


def padded(n: int) -> int:
    return -(-n // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(slots=True)
class Plan:
    """Name -> (dtype, shape), in the order of the file."""

    tensors: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    def matrix(self, name: str, dtype: str, rows: int, cols: int) -> None:
        self.tensors[name] = (dtype, (rows, padded(cols)))
        self.scales(name, dtype, rows)

    def scales(self, name: str, dtype: str, rows: int) -> None:
        if dtype == "int8":
            self.tensors[f"{name}.scale"] = ("f32", (rows,))
            self.tensors[f"{name}.sum"] = ("i32", (rows,))

    def offsets(self) -> tuple[dict[str, int], int]:
        """Where each tensor starts, and the size of all."""
        starts, at = {}, 0
        for name, (dtype, shape) in self.tensors.items():
            starts[name] = at
            size = math.prod(shape) * np.dtype(_NUMPY[dtype]).itemsize
            at += -(-size // LINE) * LINE
        return starts, at


def plan(config: Mapping[str, Any], recipe: Recipe) -> Plan:
    """What a packed model of this configuration holds."""
    c, p = config, Plan()
    d, f, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]
    qkv = heads + 2 * c["num_key_value_heads"] * c["head_dim"]
    p.matrix("embedding", recipe.dtype, c["vocab_size"], d)
    if recipe.head:
        p.matrix("head", recipe.head, c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p.tensors[f"layer.{i}.norms"] = ("f32", (4, padded(d)))
        p.matrix(f"layer.{i}.qkv", recipe.dtype, qkv, d)
        p.matrix(f"layer.{i}.out", recipe.dtype, d, heads)
        if c["ffn"] == "gated":
            p.matrix(f"layer.{i}.gate", recipe.dtype, f, d)
            p.matrix(f"layer.{i}.up", recipe.dtype, f, d)
            p.matrix(f"layer.{i}.down", recipe.dtype, d, f)
        else:
            p.matrix(f"layer.{i}.predictor", recipe.predictor or recipe.dtype, f, c["ffn_predictor_size"])
            p.tensors[f"layer.{i}.rows"] = (recipe.dtype, (f, sum(row_parts(c, recipe))))
            p.scales(f"layer.{i}.up", recipe.dtype, f)
            p.scales(f"layer.{i}.down", recipe.dtype, f)
    p.tensors["norm"] = ("f32", (padded(d),))
    p.tensors["shifts"] = ("f32", (c["num_hidden_layers"], 2))
    return p


def row_parts(config: Mapping[str, Any], recipe: Recipe) -> tuple[int, int, int]:
    """Padded widths of K1 (0 unless active neurons are scored again), K2 and V in a fused row."""
    r, d = config["ffn_predictor_size"], config["hidden_size"]
    return padded(r) if recipe.predictor else 0, padded(d - r), padded(d)


def pack(
    config: Mapping[str, Any], tensors: Mapping[str, Array], recipe: Recipe, tokenizer: str | None = None
) -> Packed:
    """Pack a checkpoint (as `read_model` gives it) in memory."""
    wanted = plan(config, recipe)
    starts, size = wanted.offsets()
    data = np.zeros(size, np.uint8)
    views = _views(wanted, starts, data)
    for name, first, block in _blocks(config, tensors, recipe):
        _put(views[name], first, block)
    return Packed(dict(config), recipe, data, views, tokenizer)


def write(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Array],
    recipe: Recipe,
    tokenizer: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Pack a checkpoint into a file, some thousand rows at a time. Raises OutputError."""
    wanted = plan(config, recipe)
    starts, size = wanted.offsets()
    header = {
        "config": dict(config),
        "recipe": asdict(recipe),
        "tokenizer": tokenizer,
        "tensors": _described(wanted, starts),
        "bytes": size,
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    begin = -(-(16 + len(text)) // PAGE) * PAGE
    with replacing(path) as beside:
        with beside.open("wb") as file:
            file.write(MAGIC + len(text).to_bytes(8, "little") + text)
        reserve(beside, begin + size)
        data = np.memmap(beside, np.uint8, "r+", offset=begin, shape=(size,))
        views, done = _views(wanted, starts, data), 0
        for name, first, block in _blocks(config, tensors, recipe):
            _put(views[name], first, block)
            done += block.nbytes
            if progress is not None:
                progress(done / size)
        data.flush()


def read(path: Path) -> Packed:
    """Map a packed file. Raises InputError when it is truncated, no packed model, or contradicts itself."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic, length = file.read(8), int.from_bytes(file.read(8), "little")
        if magic[:7] != MAGIC[:7]:
            if path.suffix == ".safetensors":
                raise InputError(
                    f"{path} is no packed model, but one's weights: name their folder, {path.parent}."
                )
            raise InputError(f"{path} is no packed model: `tamis spark export MODEL model.spark` writes one.")
        if magic != MAGIC:
            raise InputError(
                f"{path} has layout {magic[7]}, this version reads layout {MAGIC[7]}: export the model again."
            )
        text = file.read(min(length, size))
    begin = -(-(16 + length) // PAGE) * PAGE
    try:
        header = parse_json(text)
        recipe, stored = Recipe(**header["recipe"]), header["config"]
        described, data_size, tokenizer = header["tensors"], header["bytes"], header["tokenizer"]
        if not isinstance(data_size, int) or not isinstance(tokenizer, str | None):
            raise ValueError("bytes is no whole number, or tokenizer no text")
    except (ValueError, KeyError, TypeError, UsageError) as error:
        raise InputError(f"{path} is truncated or damaged: its header cannot be read ({error}).") from None
    if size != begin + data_size:
        raise InputError(
            f"{path} is truncated or damaged: it has {size} bytes, its header announces {begin + data_size}. "
            "Copy it again, or export the model again."
        )
    config = complete(stored, path)
    wanted = plan(config, recipe)
    starts, planned = wanted.offsets()
    if planned != data_size or _described(wanted, starts) != described:
        raise InputError(f"{path}: its tensors do not fit its configuration. Export the model again.")
    data = np.memmap(path, np.uint8, "r", offset=begin, shape=(data_size,))
    return Packed(config, recipe, data, _views(wanted, starts, data), tokenizer, path)


def unpack(packed: Packed) -> dict[str, Array]:
    """The tensors under their names in the checkpoint, as float32: what the engine really multiplies with."""
    c, recipe, wanted = packed.config, packed.recipe, shift_names(packed.config)
    d, f, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    heads, kv = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    out: dict[str, Array] = {
        "model.embed_tokens.weight": _matrix(packed, "embedding", "embedding")[:, :d],
        "model.norm.weight": packed.tensors["norm"][:d] - 1,
    }
    norms = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
    for i in range(c["num_hidden_layers"]):
        name, layer = f"model.layers.{i}", f"layer.{i}"
        for column, kind in enumerate(("mlp", "self_attn")):
            if (shift := f"{name}.{kind}.quantile_shift") in wanted:
                out[shift] = packed.tensors["shifts"][i, column : column + 1]
        for row, norm in zip(packed.tensors[f"{layer}.norms"], norms, strict=True):
            out[f"{name}.{norm}.weight"] = row[:d] - 1
        qkv = _matrix(packed, f"{layer}.qkv", f"{layer}.qkv")[:, :d]
        for part, rows in zip("qkv", np.split(qkv, [heads, heads + kv]), strict=True):
            out[f"{name}.self_attn.{part}_proj.weight"] = rows
        out[f"{name}.self_attn.o_proj.weight"] = _matrix(packed, f"{layer}.out", f"{layer}.out")[:, :heads]
        if c["ffn"] == "gated":
            for part, cols in (("gate", d), ("up", d), ("down", f)):
                out[f"{name}.mlp.{part}_proj.weight"] = _matrix(packed, f"{layer}.{part}", f"{layer}.{part}")[
                    :, :cols
                ]
        else:
            r, (again, up, _) = c["ffn_predictor_size"], row_parts(c, recipe)
            rows = packed.tensors[f"{layer}.rows"]
            if recipe.predictor:
                out[f"{name}.mlp.predictor.weight"] = widen(rows[:, :r]).astype(np.float32)
            else:
                out[f"{name}.mlp.predictor.weight"] = _matrix(
                    packed, f"{layer}.predictor", f"{layer}.predictor"
                )[:, :r]
            k2, v = rows[:, again : again + d - r], rows[:, again + up : again + up + d]
            out[f"{name}.mlp.up_proj.weight"] = _scaled(packed, k2, f"{layer}.up")
            out[f"{name}.mlp.down_proj.weight"] = _scaled(packed, v, f"{layer}.down").T
    return out


def to_bf16(x: Array) -> NDArray[np.uint16]:
    """The nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FC0), nearest).astype(np.uint16)


def to_int8(x: Array) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32]]:
    """Rows x [n, m] as int8, the scale of each row and the sum of each row's int8."""
    scale = (np.abs(x).max(1) / 127).astype(np.float32)
    with np.errstate(invalid="ignore"):
        whole = np.rint(x / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8)
    return whole, scale, whole.sum(1, dtype=np.int32)


def _described(wanted: Plan, starts: Mapping[str, int]) -> dict[str, Any]:
    return {
        name: {"dtype": dtype, "shape": list(shape), "offset": starts[name]}
        for name, (dtype, shape) in wanted.tensors.items()
    }


def _views(wanted: Plan, starts: Mapping[str, int], data: NDArray[np.uint8]) -> dict[str, Array]:
    views = {}
    for name, (dtype, shape) in wanted.tensors.items():
        size = math.prod(shape) * np.dtype(_NUMPY[dtype]).itemsize
        views[name] = data[starts[name] : starts[name] + size].view(_NUMPY[dtype]).reshape(shape)
    return views


def _put(view: Array, first: tuple[int, int], block: Array) -> None:
    if view.ndim == 1:
        view[first[0] : first[0] + len(block)] = block
    else:
        row, col = first
        view[row : row + block.shape[0], col : col + block.shape[1]] = block


def _blocks(
    config: Mapping[str, Any], tensors: Mapping[str, Array], recipe: Recipe
) -> Iterator[tuple[str, tuple[int, int], Array]]:
    """(tensor, (row, column), numbers) that together fill the plan."""
    c, dtype = config, recipe.dtype

    def stored(name: str) -> Read:
        return lambda a, b: tensors[f"{name}.weight"][a:b]

    def rows_of(name: str, rows: int, kept: str, label: str, read: Read, at: tuple[int, int] = (0, 0)) -> Any:
        """Rows of a checkpoint's matrix, converted; scales under `label`."""
        for first in range(0, rows, _BLOCK_ROWS):
            block = read(first, min(rows, first + _BLOCK_ROWS))
            place = (at[0] + first, at[1])
            if kept == "bf16":
                yield name, place, block if block.dtype == np.uint16 else to_bf16(widen(block))
            elif kept == "f32":
                yield name, place, widen(block).astype(np.float32)
            else:
                whole, scale, total = to_int8(widen(block).astype(np.float32))
                yield name, place, whole
                yield f"{label}.scale", (place[0], 0), scale
                yield f"{label}.sum", (place[0], 0), total

    vocabulary = c["vocab_size"]
    yield from rows_of("embedding", vocabulary, dtype, "embedding", stored("model.embed_tokens"))
    if recipe.head:
        yield from rows_of("head", vocabulary, recipe.head, "head", stored("model.embed_tokens"))
    for i in range(c["num_hidden_layers"]):
        layer, to = f"model.layers.{i}", f"layer.{i}"
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        for row, norm in enumerate(norms):
            weight = widen(tensors[f"{layer}.{norm}_layernorm.weight"]).astype(np.float32)
            yield f"{to}.norms", (row, 0), 1 + weight[None]
        first = 0
        for part in "qkv":
            name = f"{layer}.self_attn.{part}_proj"
            rows = len(tensors[f"{name}.weight"])
            yield from rows_of(f"{to}.qkv", rows, dtype, f"{to}.qkv", stored(name), (first, 0))
            first += rows
        name = f"{layer}.self_attn.o_proj"
        yield from rows_of(f"{to}.out", c["hidden_size"], dtype, f"{to}.out", stored(name))
        neurons = c["intermediate_size"]
        if c["ffn"] == "gated":
            for part, rows in (("gate", neurons), ("up", neurons), ("down", c["hidden_size"])):
                source = stored(f"{layer}.mlp.{part}_proj")
                yield from rows_of(f"{to}.{part}", rows, dtype, f"{to}.{part}", source)
            continue
        again, up, _ = row_parts(c, recipe)
        predictor, down = stored(f"{layer}.mlp.predictor"), tensors[f"{layer}.mlp.down_proj.weight"]
        yield from rows_of(
            f"{to}.predictor", neurons, recipe.predictor or dtype, f"{to}.predictor", predictor
        )
        if again:
            yield from rows_of(f"{to}.rows", neurons, dtype, "", predictor)
        source = stored(f"{layer}.mlp.up_proj")
        yield from rows_of(f"{to}.rows", neurons, dtype, f"{to}.up", source, (0, again))

        def columns(a: int, b: int, down: Array = down) -> Array:
            return down[:, a:b].T

        yield from rows_of(f"{to}.rows", neurons, dtype, f"{to}.down", columns, (0, again + up))
    yield "norm", (0, 0), 1 + widen(tensors["model.norm.weight"]).astype(np.float32)
    for name in shift_names(c):
        i, kind = _shift_place(name)
        if name in tensors:
            yield "shifts", (i, kind), widen(tensors[name]).astype(np.float32)[None]


def _shift_place(name: str) -> tuple[int, int]:
    """Row and column in `shifts` of model.layers.N.(mlp|self_attn).quantile_shift."""
    _, _, layer, kind, _ = name.split(".")
    return int(layer), ("mlp", "self_attn").index(kind)


def _matrix(packed: Packed, name: str, label: str) -> Array:
    return _scaled(packed, packed.tensors[name], label)


def _scaled(packed: Packed, stored: Array, label: str) -> Array:
    if stored.dtype == np.int8:
        return stored.astype(np.float32) * packed.tensors[f"{label}.scale"][:, None]
    return widen(np.ascontiguousarray(stored)).astype(np.float32)
