"""llama.cpp with the dense Gemma-2 shape, in the same process and in turns with the dense arm of the same type.

It runs through the package llama-cpp-python, compiled from its source for this very processor (`make llama`: prebuilt ones stop
at AVX2, which would be no comparison); a model of random weights is written with the package gguf. Neither belongs to Tamis.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, UsageError
from tamis.spark.packed import to_bf16

if TYPE_CHECKING:
    from tamis.spark.bench import Arm

TOKENS = 8
"""Decoded in one turn."""
NAMES = {"bf16": "llama.cpp BF16", "int8": "llama.cpp Q8_0"}
_Q8_BLOCK, _Q8_BYTES = 32, 34


def require_llama() -> tuple[Any, Any]:
    """The modules gguf and llama_cpp. Raises UsageError without them."""
    # Its threads wait asleep, as ours do: spinning, they are far slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import gguf
        import llama_cpp
    except ImportError as error:
        raise UsageError(
            f"--against llama.cpp needs the Python package {error.name!r}: run  make llama  in the source folder and try "
            "again with PYTHONPATH=work/llama/site."
        ) from None
    return gguf, llama_cpp


def against_llama(
    arms: Mapping[str, Arm], length: int, rounds: int, threads: int, tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Records of llama.cpp and of the dense arm beside it. arms: by dtype, bf16 or int8, a dense arm each."""
    gguf, llama_cpp = require_llama()
    for dtype, arm in arms.items():
        if dtype not in NAMES:
            raise UsageError(f"llama.cpp is measured beside bf16 and int8, not beside {dtype}.")
        with TemporaryDirectory(prefix="tamis-bench-") as folder:
            path = Path(folder) / "dense.gguf"
            tell(f"{NAMES[dtype]}: writing random weights ...")
            _write(gguf, path, arm.packed.config, dtype)
            peer = _Peer(llama_cpp, path, threads, length)
            tell(f"{NAMES[dtype]}, context {length}, {rounds} rounds ...")
            yield from _take_turns(peer, arm, dtype, length, rounds, threads)
            peer.close()


def _take_turns(
    peer: _Peer, arm: Arm, dtype: str, length: int, rounds: int, threads: int
) -> Iterator[dict[str, Any]]:
    logits = np.empty((1, arm.packed.config["vocab_size"]), np.float32)

    def ours(token: int, position: int) -> int:
        arm.decoder.run([token], [0], [position], [0], logits)
        return int(np.argmax(logits[0]))

    times: dict[str, list[tuple[float, float]]] = {arm.name: [], NAMES[dtype]: []}
    for turn in range(-1, rounds):
        for name, step in ((arm.name, ours), (NAMES[dtype], peer.step)):
            token = 3
            cpu, wall = time.process_time(), time.perf_counter()
            for position in range(length - TOKENS, length):
                token = step(token, position)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= 0:
                times[name].append((wall * 1e3 / TOKENS, cpu * 1e3 / TOKENS))
        peer.back_to(length - TOKENS)
    size = sum(tensor.nbytes for tensor in arm.packed.tensors.values())
    mine = times[arm.name]
    for name, each in times.items():
        ms, cpu_ms = (median(one[i] for one in each) for i in (0, 1))
        yield {
            "part": "llama.cpp", "arm": name, "context": length, "ms_per_token": round(ms, 3),
            "cpu_ms_per_token": round(cpu_ms, 3), "gb_per_s": round(size / ms / 1e6, 2), "read_gb_per_s": None,
            "ratio_to_dense": round(median(o[0] / t[0] for o, t in zip(mine, each, strict=True)), 3),
            "cpu_ratio_to_dense": round(median(o[1] for o in mine) / cpu_ms, 3), "limit": None, "rounds": len(each),
            "threads": threads, "features": peer.features,
        }  # fmt: skip


class _Peer:
    """A loaded model with a prompt in its cache."""

    def __init__(self, llama_cpp: Any, path: Path, threads: int, length: int) -> None:
        self.lib = llama_cpp
        llama_cpp.llama_backend_init()
        self.silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silence, None)
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise InputError(f"llama.cpp did not load the model of random weights written for it, {path}.")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = length + TOKENS
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise InputError(f"llama.cpp has no memory for a context of {length} tokens.")
        self.features = llama_cpp.llama_print_system_info().decode().strip()
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self._decode([2, *(3 + i % 1000 for i in range(length - TOKENS - 1))])

    def _decode(self, tokens: list[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        status = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise InputError(f"llama.cpp stopped with status {status}.")

    def step(self, token: int, position: int) -> int:
        """The likeliest token after this one; positions follow by themselves."""
        self._decode([token])
        logits = np.ctypeslib.as_array(self.lib.llama_get_logits_ith(self.context, -1), (self.vocabulary,))
        return int(np.argmax(logits))

    def back_to(self, position: int) -> None:
        """Forget the tokens from this position on."""
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), 0, position, -1)

    def close(self) -> None:
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)


def _write(gguf: Any, path: Path, config: Mapping[str, Any], dtype: str) -> None:
    """A GGUF file of random weights in Gemma 2's layout."""
    c = config
    d, f, size = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    heads, kv = c["num_attention_heads"] * size, c["num_key_value_heads"] * size
    writer = gguf.GGUFWriter(path, "gemma2")
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(d)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(f)
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_attn_logit_softcapping(c["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(c["final_logit_softcapping"])
    writer.add_sliding_window(c["sliding_window"])
    writer.add_tokenizer_model("llama")
    words = ["<pad>", "<eos>", "<bos>", *(f"w{i}" for i in range(c["vocab_size"] - 3))]
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    weights = _Random(gguf, dtype, d)
    weights.add(writer, "token_embd.weight", c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            writer.add_tensor(f"blk.{i}.{norm}.weight", np.ones(d, np.float32))
        for name, rows, cols in (
            ("attn_q", heads, d), ("attn_k", kv, d), ("attn_v", kv, d), ("attn_output", d, heads),
            ("ffn_gate", f, d), ("ffn_up", f, d), ("ffn_down", d, f),
        ):  # fmt: skip
            weights.add(writer, f"blk.{i}.{name}.weight", rows, cols)
    writer.add_tensor("output_norm.weight", np.ones(d, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class _Random:
    """Rows cut at random places out of one pool of random numbers."""

    def __init__(self, gguf: Any, dtype: str, width: int) -> None:
        self.rng = np.random.default_rng(1)
        normal = self.rng.standard_normal(1 << 24, np.float32)
        if dtype == "bf16":
            self.type, self.block, self.bytes = gguf.GGMLQuantizationType.BF16, 1, 2
            self.pool: NDArray[np.uint8] = to_bf16(normal * np.float32(width**-0.5)).view(np.uint8)
        else:
            self.type, self.block, self.bytes = gguf.GGMLQuantizationType.Q8_0, _Q8_BLOCK, _Q8_BYTES
            blocks = np.empty((len(normal) // _Q8_BLOCK, _Q8_BYTES), np.uint8)
            scale = np.float16(4 / 127 * width**-0.5)
            blocks[:, :2] = np.frombuffer(scale.tobytes(), np.uint8)
            whole = np.clip(np.rint(normal * (127 / 4)), -127, 127).astype(np.int8)
            blocks[:, 2:] = whole.view(np.uint8).reshape(-1, _Q8_BLOCK)
            self.pool = blocks.reshape(-1)

    def add(self, writer: Any, name: str, rows: int, cols: int) -> None:
        size, unit = rows * cols // self.block * self.bytes, self.bytes
        data, at = np.empty(size, np.uint8), 0
        while at < size:
            first = int(self.rng.integers(0, len(self.pool) // unit // 2)) * unit
            piece = self.pool[first : first + min(size - at, len(self.pool) - first)]
            data[at : at + len(piece)] = piece
            at += len(piece)
        writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=self.type)
