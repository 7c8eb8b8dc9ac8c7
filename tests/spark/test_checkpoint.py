"""python -m pytest tests/spark/test_checkpoint.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.errors import InputError, UsageError
from tamis.spark.checkpoint import read_config, read_model, read_tensors, tensor_shapes, widen
from tamis.spark.presets import arrange

CONFIG = arrange("tiny", vocab_size=7, hidden_size=8, num_hidden_layers=1, head_dim=4, intermediate_size=4)


def write(path: Path, tensors: dict[str, Any], dtype: str = "F32") -> None:
    """A safetensors file, by its specification."""
    header, content = {}, b""
    for name, array in tensors.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(content), len(content) + len(raw)],
        }
        content += raw
    described = json.dumps(header).encode()
    path.write_bytes(len(described).to_bytes(8, "little") + described + content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in tensor_shapes(CONFIG).items()
    }
    write(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_a_checkpoint_is_read_as_it_was_written(folder: Path) -> None:
    config, tensors = read_model(folder)
    assert config == CONFIG
    rng = np.random.default_rng(0)
    for name, shape in tensor_shapes(CONFIG).items():
        np.testing.assert_array_equal(tensors[name], rng.normal(size=shape).astype(np.float32))


def split(folder: Path) -> Path:
    """The checkpoint in two files; returns their index."""
    tensors = read_tensors(folder / "model.safetensors")
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        write(folder / file, {name: np.array(tensors[name]) for name in tensors if places[name] == file})
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_a_checkpoint_in_several_files_is_read_as_one(folder: Path) -> None:
    expected = {name: np.array(tensor) for name, tensor in read_model(folder)[1].items()}
    split(folder)
    found = read_model(folder)[1]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_a_damaged_index_is_told(folder: Path) -> None:
    index = split(folder)
    whole = index.read_text()
    outside = json.dumps({"weight_map": {"model.norm.weight": "../model-00001-of-00002.safetensors"}})
    for text in ("{", "[]", "{}", json.dumps({"weight_map": {"x": 3}}), outside):
        index.write_text(text)
        with pytest.raises(InputError, match="is no index of safetensors files"):
            read_model(folder)
    index.write_text(whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors is missing"):
        read_model(folder)
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(InputError, match=r"does not fit .* it lacks"):
        read_model(folder)
    index.unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        read_model(folder)


def test_bfloat16_and_unaligned_numbers(tmp_path: Path) -> None:
    numbers = np.array([1.5, -2.0, 3.0e38], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    for name in ("x", "xy", "xyz", "wxyz"):  # headers of every length modulo 4
        write(tmp_path / "a.safetensors", {name: halves}, "BF16")
        found = widen(read_tensors(tmp_path / "a.safetensors")[name])
        np.testing.assert_allclose(found, numbers, rtol=2**-7)


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ([4], ["0", "16"]), ([4], [0.0, 16.0]), ([-2, -2], [0, 16]), ([4.0], [0, 16]), ([4], [0]), ("4", [0, 16]),
        ([True, 4], [0, 16]), ([4], [0, 10**400]),
    ],
)  # fmt: skip
def test_a_header_that_describes_no_tensor_is_told(shape: Any, offsets: Any, tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InputError, match=r"tensor 'x'"):
        read_tensors(path)


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"x": ' + b"1" * 5000 + b"}"])
def test_a_header_that_is_no_json_is_told(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="its header is no JSON"):
        read_tensors(path)


@pytest.mark.parametrize("size", [0, 5, 40, 900, -1])
def test_a_truncated_file_is_told(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"truncated|no safetensors"):
        read_model(folder)


def test_a_file_of_something_else_is_told(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"GGUF" + bytes(range(256)) * 9)
    with pytest.raises(InputError, match="no safetensors file"):
        read_model(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 16}, r"does not fit .*expected \[7, 16\]"),
        ({"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}, "lacks model.layers.1"),
        ({"ffn": "gated"}, "lacks model.layers.0.mlp.gate_proj"),
        ({"ffn": "moe"}, "expected gated or spark"),
        ({"model_type": "llama"}, "'llama' model"),
        ({"ffn_predictor_size": 8}, "must lie between 0 and hidden_size"),
        ({"attention_predictor_size": 3}, "must be even"),
        ({"vocab_size": "7"}, "lacks whole numbers for vocab_size"),
        ({"attention_active": "many"}, "attention_active is 'many'"),
        ({"tie_word_embeddings": False}, "only tied embeddings"),
        ({"layer_types": ["full_attention"] * 3}, "names 3 layers"),
        ({"layer_types": None}, "a list of names was expected"),
        ({"layer_types": [["full_attention"]]}, "a list of names was expected"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps is 'x', a number above 0"),
        ({"rope_theta": None}, "rope_theta is None, a number above 0"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0, a number above 0"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"attn_logit_softcapping": -1.0}, "softcapping is -1.0, a number from 0 on or null"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "only the default one is built"),
        ({"rope_parameters": 3}, "only the default one is built"),
        ({"attention_bias": True}, "only attention without biases"),
        ({"sliding_window": 2**32 - 100}, "sliding_window is 4294967196, at most 2147483647"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings is 1099511627776, at most"),
        ({"attention_active": 2**32}, "attention_active is 4294967296, at most"),
        ({"num_hidden_layers": 10**9, "layer_types": ["full_attention"]}, "asks for 1000000000 layers"),
        ({"num_hidden_layers": True}, "lacks whole numbers for num_hidden_layers"),
        ({"rope_theta": 10**400}, "rope_theta is 1000*, a number above 0"),
        ({"query_pre_attn_scalar": 10**400}, "query_pre_attn_scalar is 1000*, a number above 0"),
        ({"eos_token_id": [[1]]}, r"eos_token_id is \[\[1\]\], a token's number"),
    ],
    ids=str,
)
def test_what_contradicts_is_told(folder: Path, change: dict[str, Any], words: str) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(InputError, match=words):
        read_model(folder)


def test_a_shift_that_is_no_number_is_told_and_an_absent_one_is_none(folder: Path) -> None:
    name = "model.layers.0.mlp.quantile_shift"
    config, tensors = read_model(folder)
    assert tensors.pop(name).tolist() == [0.0]
    for value in (np.array([np.nan], np.float32), np.zeros(2, np.float32)):
        write(folder / "model.safetensors", {k: tensors[k] for k in tensor_shapes(config)} | {name: value})
        with pytest.raises(InputError, match=r"mlp\.quantile_shift is .*one finite number"):
            read_model(folder)


def test_missing_and_broken_configurations_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        read_config(tmp_path)
    for text in ("{", "[" * 100_000, '{"vocab_size": ' + "1" * 5000 + "}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="is no JSON"):
            read_config(tmp_path)
    with pytest.raises(UsageError, match="'huge' is unknown"):
        arrange("huge")
