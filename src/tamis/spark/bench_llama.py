"""llama.cpp with the dense Gemma-2 shape, in the same process and in turns with the dense arm of the same type.

It runs through the package xllamacpp; a model of random weights is written with the package gguf. Neither belongs to Tamis:
pip install xllamacpp gguf. The prebuilt xllamacpp is compiled for AVX2 at most: each record says in `features` what the
installed one uses, and a fair comparison on a processor with more needs one that is built for it.
"""

from __future__ import annotations

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


def against_llama(
    arms: Mapping[str, Arm], length: int, rounds: int, threads: int, tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Records of llama.cpp and of the dense arm beside it. arms: by dtype, bf16 or int8, a dense arm each."""
    try:
        import gguf
        import xllamacpp
    except ImportError as error:
        raise UsageError(
            f"--against llama.cpp needs the Python package {error.name!r}: run  pip install xllamacpp gguf  and try again."
        ) from None
    for dtype, arm in arms.items():
        if dtype not in NAMES:
            raise UsageError(f"llama.cpp is measured beside bf16 and int8, not beside {dtype}.")
        with TemporaryDirectory(prefix="tamis-bench-") as folder:
            path = Path(folder) / "dense.gguf"
            tell(f"{NAMES[dtype]}: writing random weights ...")
            _write(gguf, path, arm.packed.config, dtype)
            server = _server(xllamacpp, path, threads, length + 2 * TOKENS)
            tell(f"{NAMES[dtype]}, context {length}, {rounds} rounds ...")
            yield from _take_turns(xllamacpp, server, arm, dtype, length, rounds, threads)
            del server


def _take_turns(
    xllamacpp: Any, server: Any, arm: Arm, dtype: str, length: int, rounds: int, threads: int
) -> Iterator[dict[str, Any]]:
    logits = np.empty((1, arm.packed.config["vocab_size"]), np.float32)
    theirs: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    token = 1
    for turn in range(-1, rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        for i in range(TOKENS):
            arm.decoder.run([token], [0], [length - TOKENS + i], [0], logits)
            token = int(np.argmax(logits[0]))
        mine = ((time.perf_counter() - wall) * 1e3 / TOKENS, (time.process_time() - cpu) * 1e3 / TOKENS)
        # The prompt is cached: of it only the last token is computed again, for the first of the logits.
        prompt = [2, *(3 + i % 1000 for i in range(length - TOKENS))]
        cpu = time.process_time()
        reply = server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": TOKENS + 1,
                "temperature": 0,
                "cache_prompt": True,
                "ignore_eos": True,
            }
        )
        spent = (time.process_time() - cpu) * 1e3
        timings = reply["timings"] if isinstance(reply, dict) else None
        if not timings:
            raise InputError(f"llama.cpp answered without timings: {str(reply)[:200]}")
        steps = timings["predicted_n"] - 1 + timings.get("prompt_n", 1)
        if turn >= 0:
            ours.append(mine)
            theirs.append((timings["predicted_per_token_ms"], spent / steps))
    size = sum(tensor.nbytes for tensor in arm.packed.tensors.values())
    for name, times in ((arm.name, ours), (NAMES[dtype], theirs)):
        ms, cpu_ms = (median(each[i] for each in times) for i in (0, 1))
        yield {
            "part": "llama.cpp", "arm": name, "context": length, "ms_per_token": round(ms, 3),
            "cpu_ms_per_token": round(cpu_ms, 3), "gb_per_s": round(size / ms / 1e6, 2), "read_gb_per_s": None,
            "ratio_to_dense": round(median(o[0] / t[0] for o, t in zip(ours, times, strict=True)), 3),
            "cpu_ratio_to_dense": round(median(o[1] for o in ours) / cpu_ms, 3), "limit": None, "rounds": len(times),
            "threads": threads, "features": xllamacpp.get_system_info().strip(),
        }  # fmt: skip


def _server(xllamacpp: Any, path: Path, threads: int, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup = context, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # Its threads wait asleep, as ours do: the default, spinning, is far slower on a busy machine.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.n_gpu_layers = 0
    return xllamacpp.Server(params)


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
