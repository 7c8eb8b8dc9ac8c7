"""Read a checkpoint folder, config.json beside model.safetensors, without PyTorch.

safetensors: 8 bytes little-endian length, a JSON header {name: {dtype, shape, data_offsets}}, then the numbers. Written
out here because the safetensors package gives bfloat16 to frameworks only, and because a truncated or foreign file shall
be told in a sentence before anything is allocated. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError

WIDTH_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
INDEX = "model.safetensors.index.json"
"""Beside a checkpoint in several files: which tensor lies in which."""
MODEL_TYPES = ("tamis_spark", "gemma2")
_NEEDED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size",
)  # fmt: skip


def read_config(folder: Path) -> dict[str, Any]:
    """config.json with every default filled in. Accepts `tamis_spark` and the dense `gemma2` of transformers.

    Raises InputError when it is absent, no JSON, of another model, or contradicts itself.
    """
    path = folder / "config.json"
    try:
        stored = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no config.json: name the folder that save_pretrained or `tamis spark train` wrote."
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}).") from None
    return complete(stored, path)


def parse_json(text: bytes) -> Any:
    """Raises ValueError for whatever is no JSON: also for numbers of thousands of digits, and for what is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


_LARGEST = 2**31 - 1  # what the kernels count with
_MOST_LAYERS = 10_000  # a list as long as this number says is made before anything else is known
_WHOLE = ("ffn_predictor_size", "ffn_active", "attention_predictor_size", "attention_active", "sliding_window",
          "max_position_embeddings")  # fmt: skip
_POSITIVE = (
    "sliding_window",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "query_pre_attn_scalar",
)
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
ABLATIONS = {
    "topk_method": ("statistical", "exact"), "ffn_cut": ("soft", "hard"), "theta_gradient": (True, False),
    "attention_gate": ("softplus", "none"), "theta_shift": ("tracked", "none"),
    "gate_rows": ("free", "equal"),
}  # fmt: skip
"""Fields that change the mathematics, or how it is learned; the first value is meant where there is none."""


def complete(stored: Any, source: Path | str = "the configuration") -> dict[str, Any]:
    """The configuration with defaults filled in, after checking it. Raises InputError with what is wrong."""
    if not isinstance(stored, dict) or stored.get("model_type") not in MODEL_TYPES:
        found = stored.get("model_type") if isinstance(stored, dict) else type(stored).__name__
        raise InputError(f"{source} describes a {found!r} model; expected one of {', '.join(MODEL_TYPES)}.")
    missing = [name for name in _NEEDED if not _whole(stored.get(name))]
    if missing:
        raise InputError(f"{source} lacks whole numbers for {', '.join(missing)}.")
    if stored["num_hidden_layers"] > _MOST_LAYERS:
        raise InputError(
            f"{source} asks for {stored['num_hidden_layers']} layers; at most {_MOST_LAYERS} were expected."
        )
    layers, head_dim = stored["num_hidden_layers"], stored["head_dim"]
    rope = stored.get("rope_parameters")
    theta = rope.get("rope_theta", 10000.0) if isinstance(rope, dict) else 10000.0
    config = {
        "ffn": "gated", "ffn_predictor_size": stored["hidden_size"] // 2,
        "ffn_active": max(1, round(0.08 * stored["intermediate_size"])),
        "attention": "softmax", "attention_predictor_size": head_dim // 2, "attention_active": 256,
        "sliding_window": 4096,
        "layer_types": ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)],
        "rope_theta": theta, "rms_norm_eps": 1e-6, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256, "max_position_embeddings": 8192,
        "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
    } | stored  # fmt: skip
    for problem in problems(config):
        raise InputError(f"{source} contradicts itself: {problem}.")
    return config


def problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a complete configuration, in words; empty if nothing is."""
    c, found = config, []
    for name in _NEEDED:
        if c[name] < 1:
            found.append(f"{name} is {c[name]}, at least 1 was expected")
    found += [f"{n} is {c[n]!r}, a whole number was expected" for n in _WHOLE if not _whole(c[n])]
    found += [
        f"{n} is {c[n]}, at most {_LARGEST} was expected" for n in _NEEDED + _WHOLE if _above(_LARGEST, c[n])
    ]
    ends = c.get("eos_token_id")
    if not all(_whole(end) for end in (ends if isinstance(ends, list) else [] if ends is None else [ends])):
        found.append(f"eos_token_id is {ends!r}, a token's number or a list of them was expected")
    found += [f"{n} is {c[n]!r}, a number above 0 was expected" for n in _POSITIVE if not _above(0, c[n])]
    found += [
        f"{n} is {c[n]!r}, a number from 0 on or null was expected"
        for n in _CAPS
        if c[n] is not None and not _above(-1e-300, c[n])
    ]
    if not isinstance(c["layer_types"], list) or not all(isinstance(kind, str) for kind in c["layer_types"]):
        found.append(f"layer_types is {c['layer_types']!r}, a list of names was expected")
    # What would change every number without a word, if it were passed over.
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        found.append(f"the rotary embedding is {rope!r}, only the default one is built")
    if c.get("attention_bias"):
        found.append("attention_bias is true, only attention without biases is built")
    for name, values in ABLATIONS.items():
        if c.get(name, values[0]) not in values:
            found.append(f"{name} is {c[name]!r}, expected one of {', '.join(map(str, values))}")
    if found:
        return found
    if c["num_attention_heads"] % c["num_key_value_heads"]:
        found.append(
            f"num_attention_heads ({c['num_attention_heads']}) is no multiple of num_key_value_heads "
            f"({c['num_key_value_heads']})"
        )
    if c["ffn"] not in ("gated", "spark"):
        found.append(f"ffn is {c['ffn']!r}, expected gated or spark")
    if c["attention"] not in ("softmax", "spark"):
        found.append(f"attention is {c['attention']!r}, expected softmax or spark")
    if c["head_dim"] % 2:
        found.append(f"head_dim is {c['head_dim']}, rotary embeddings need an even number")
    if c["ffn"] == "spark" and not 0 < c["ffn_predictor_size"] < c["hidden_size"]:
        found.append(
            f"ffn_predictor_size ({c['ffn_predictor_size']}) must lie between 0 and hidden_size ({c['hidden_size']})"
        )
    if c["ffn"] == "spark" and c["ffn_active"] < 1:
        found.append(f"ffn_active is {c['ffn_active']}, at least 1 was expected")
    if c["attention"] == "spark":
        r = c["attention_predictor_size"]
        if not 0 < r < c["head_dim"] or r % 2:
            found.append(
                f"attention_predictor_size ({r}) must be even and lie between 0 and head_dim ({c['head_dim']})"
            )
        if c["attention_active"] < 1:
            found.append(f"attention_active is {c['attention_active']}, at least 1 was expected")
    if len(c["layer_types"]) != c["num_hidden_layers"]:
        found.append(
            f"layer_types names {len(c['layer_types'])} layers, num_hidden_layers is {c['num_hidden_layers']}"
        )
    unknown = set(c["layer_types"]) - {"sliding_attention", "full_attention"}
    if unknown:
        found.append(f"layer_types holds {', '.join(map(repr, sorted(unknown)))}")
    if c["hidden_activation"] != "gelu_pytorch_tanh":
        found.append(f"hidden_activation is {c['hidden_activation']!r}, only gelu_pytorch_tanh is built")
    if not c["tie_word_embeddings"]:
        found.append("tie_word_embeddings is false, only tied embeddings are built")
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _above(bound: float, value: Any) -> bool:
    """Whether it is a number above the bound that a float can hold."""
    # Python compares whole numbers of any length with floats, but can make no float of them.
    return (isinstance(value, float) or _whole(value)) and bound < value <= sys.float_info.max


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model with this (complete) configuration."""
    d, f = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], d)}
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": (d,), "self_attn.q_proj": (queries, d), "self_attn.k_proj": (keys, d),
            "self_attn.v_proj": (keys, d), "self_attn.o_proj": (d, queries), "post_attention_layernorm": (d,),
            "pre_feedforward_layernorm": (d,),
        }  # fmt: skip
        if config["ffn"] == "spark":
            r = config["ffn_predictor_size"]
            layer |= {"mlp.predictor": (f, r), "mlp.up_proj": (f, d - r)}
        else:
            layer |= {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d)}
        layer |= {"mlp.down_proj": (d, f), "post_feedforward_layernorm": (d,)}
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (d,)}


def shift_names(config: Mapping[str, Any]) -> list[str]:
    """Tensors of one number each that a Spark model may have besides: see `model.Threshold`. Absent they are 0."""
    kinds = [kind for kind, part in (("mlp", "ffn"), ("self_attn", "attention")) if config[part] == "spark"]
    layers = range(config["num_hidden_layers"])
    return [f"model.layers.{i}.{kind}.quantile_shift" for i in layers for kind in kinds]


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a safetensors file, memory-mapped: float arrays, and bfloat16 as uint16 (see `widen`).

    Raises InputError when the file is truncated, no safetensors, or holds another dtype.
    """
    header, start, size = _header(path)
    content = np.memmap(path, np.uint8, "r")
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            wanted = math.prod(shape) * WIDTH_BYTES[dtype]
            if not all(_whole(number) and number >= 0 for number in (*shape, first, last)):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{path}: tensor {name!r} is described as {entry}; expected one of {', '.join(WIDTH_BYTES)} with "
                "shape and data_offsets."
            ) from None
        if not 0 <= first <= last <= size - start or last - first != wanted:
            raise InputError(
                f"{path} is truncated or damaged: tensor {name!r} of {wanted} bytes is said to lie at {first}..{last}, "
                f"and {size - start} bytes are there. Copy the file again."
            )
        raw = content[start + first : start + last]
        # A header of odd length leaves the numbers unaligned: then they are copied.
        if (start + first) % WIDTH_BYTES[dtype]:
            raw = raw.copy()
        tensors[name] = raw.view(_NUMPY.get(dtype, np.uint16)).reshape(shape)
    return tensors


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Configuration and tensors of a checkpoint folder, which are checked to belong together.

    Tensors come as they are stored (see `read_tensors`), absent shifts as 0. Raises InputError.
    """
    config = read_config(folder)
    path = folder / "model.safetensors"
    if not path.exists() and (folder / INDEX).exists():
        path = folder / INDEX
        tensors = _read_parts(path)
    elif path.exists():
        tensors = read_tensors(path)
    else:
        raise InputError(f"{folder} holds no model.safetensors.")
    expected = tensor_shapes(config)
    tensors.pop("lm_head.weight", None)  # tied
    missing = sorted(expected.keys() - tensors.keys())
    if missing:
        raise InputError(
            f"{path} does not fit {folder / 'config.json'}: it lacks {missing[0]}"
            + (f" and {len(missing) - 1} more." if len(missing) > 1 else ".")
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"{path} does not fit {folder / 'config.json'}: {name} is {list(tensors[name].shape)}, "
                f"expected {list(shape)}."
            )
    shifts = {name: tensors.get(name, np.zeros(1, np.float32)) for name in shift_names(config)}
    for name, value in shifts.items():
        if value.shape != (1,) or not np.isfinite(widen(value)).all():
            raise InputError(f"{path}: {name} is {widen(value).tolist()}, one finite number was expected.")
    return config, {name: tensors[name] for name in expected} | shifts


def _read_parts(index: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a checkpoint that is split in several files beside its index."""
    try:
        places = parse_json(index.read_bytes())["weight_map"]
        names = sorted(set(places.values()))
        # Beside the index and nowhere else.
        if not all(Path(name).name == name and name not in ("", ".", "..") for name in names):
            raise ValueError("a file's name is none")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of safetensors files ({error}): copy it again.") from None
    tensors: dict[str, NDArray[Any]] = {}
    for name in names:
        path = index.parent / name
        if not path.is_file():
            raise InputError(f"{path} is missing, which {index.name} names: copy it too.")
        tensors |= read_tensors(path)
    return tensors


def widen(stored: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """A stored tensor as floats: bfloat16 is the upper half of a float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise InputError(
                f"{path} is no safetensors file, or is truncated: its header is said to take {length} bytes of {size}."
            )
        try:
            header = parse_json(file.read(length))
        except ValueError:
            raise InputError(f"{path} is no safetensors file: its header is no JSON.") from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is no safetensors file: its header is no table of tensors.")
    header.pop("__metadata__", None)
    return header, 8 + length, size
