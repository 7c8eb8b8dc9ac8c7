"""step(tokens, slots, positions) -> logits: the waist between text generation and what computes.

`Native` is the compiled engine (csrc/spark_engine.cpp), `Portable` the plain NumPy definition; both hold the cached keys and
values of several sequences in numbered slots.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError, UsageError
from tamis.processors import processors
from tamis.spark import bindings
from tamis.spark.packed import Packed, padded, row_parts, unpack
from tamis.spark.reference import Reference, State

Floats = NDArray[np.float32]
RESCORE_MARGIN = 6.0
"""Standard errors of the int8 head within which a logit is computed again: one in 10^9 is missed."""
MOST_HEAD_DIM = 1024
"""Room for one head on the stack (csrc/spark_engine.h)."""
MOST_NUMBER = 2**31 - 1
"""Of an int32; ctypes would take the lowest bits of a larger one without a word."""
SPIN = 1000
"""Looks at a counter before a waiting thread sleeps: some ten microseconds."""


@dataclass(slots=True)
class Counts:
    """What the steps so far did, for reports."""

    steps: int = 0
    tokens: int = 0
    active: int = 0
    attended: int = 0
    rescored: int = 0


class Decoder(Protocol):
    counts: Counts

    def step(
        self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int], wanted: Sequence[int]
    ) -> NDArray[np.floating[Any]]:
        """Logits [wanted, vocabulary] after these tokens, rows of one slot in rising position."""
        ...

    def close(self) -> None: ...


class Native:
    """The compiled engine over a packed model."""

    def __init__(
        self, packed: Packed, isa: int, *, threads: int, context: int, slots: int, rows: int
    ) -> None:
        library = bindings.library()
        assert library is not None, "chosen() said that the kernels are here"
        if packed.config["head_dim"] > MOST_HEAD_DIM:
            raise InputError(
                f"head_dim is {packed.config['head_dim']}; the compiled engine is built for {MOST_HEAD_DIM} at most."
            )
        self.library, self.packed, self.counts = library, packed, Counts()
        self.rows = rows
        self.vocabulary: int = packed.config["vocab_size"]
        # The engine keeps the addresses only.
        self.kept: list[Any] = []
        config = configured(packed.config, packed.recipe.dtype, context, slots, rows)
        # With more threads than processors, whoever looks instead of sleeping is in the way.
        spin = SPIN if threads <= processors() else 0
        ends, layers = self._ends(), self._layers()
        status = ctypes.c_int()
        self.handle = library.tamis_spark_open(config, ends, layers, isa, threads, spin, status)
        if not self.handle:
            raise InputError(_refusal(status.value, threads, f"{slots} x {context} tokens"))
        if packed.tensors["shifts"].any():
            ffn, attention = np.ascontiguousarray(packed.tensors["shifts"].T)
            library.tamis_spark_shift(self.handle, ffn.ctypes.data, attention.ctypes.data)

    def step(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        wanted: Sequence[int],
        parts: int = bindings.EVERYTHING,
    ) -> Floats:
        logits = np.empty((len(wanted), self.vocabulary), np.float32)
        self.run(tokens, slots, positions, wanted, logits, parts)
        return logits

    def run(
        self,
        tokens: Sequence[int],
        slots: Sequence[int],
        positions: Sequence[int],
        wanted: Sequence[int],
        logits: Floats,
        parts: int = bindings.EVERYTHING,
    ) -> bindings.Step:
        """As `step`, into `logits`; returns the record with the times of its phases."""
        if self.handle is None:
            raise UsageError("The engine is closed.")
        assert 0 < len(tokens) <= self.rows, "as many rows as announced"
        assert len(tokens) == len(slots) == len(positions), "one slot and one position a token"
        assert logits.size >= len(wanted) * self.vocabulary, "room for the logits"
        arrays = [np.asarray(each, np.int32) for each in (tokens, slots, positions, wanted)]
        record = bindings.Step()
        record.rows, record.parts, record.wanted = len(tokens), parts, len(wanted)
        record.token, record.slot, record.position, record.wanted_row = (a.ctypes.data for a in arrays)
        record.logits = logits.ctypes.data
        if self.library.tamis_spark_step(self.handle, record):
            raise UsageError(
                "The engine refused the step: a token, slot or position lies outside of what it was opened for, or "
                "positions of a slot do not follow each other."
            )
        self.counts.steps += 1
        self.counts.tokens += len(tokens)
        self.counts.active += record.active
        self.counts.attended += record.attended
        self.counts.rescored += record.rescored
        return record

    def close(self) -> None:
        if self.handle is not None:
            self.library.tamis_spark_close(self.handle)
            self.handle = None

    def _address(self, array: NDArray[Any]) -> int:
        self.kept.append(array)
        return int(array.ctypes.data)

    def _matrix(
        self, name: str, label: str | None = None, columns: tuple[int, int] | None = None
    ) -> bindings.Matrix:
        """A packed matrix, or some of its columns; its scales lie under `label`."""
        tensors = self.packed.tensors
        stored, label = tensors[name], label or name
        first, last = columns or (0, stored.shape[1])
        m = bindings.Matrix()
        m.data = self._address(stored) + first * stored.itemsize
        m.rows, m.cols, m.stride = stored.shape[0], last - first, stored.shape[1]
        m.type = {"float32": 0, "uint16": 1, "int8": 2}[str(stored.dtype)]
        if m.type == 2:
            m.scale = self._address(tensors[f"{label}.scale"])
            m.row_sum = self._address(tensors[f"{label}.sum"])
        return m

    def _ends(self) -> bindings.Ends:
        ends, tensors = bindings.Ends(), self.packed.tensors
        ends.embedding = ends.head = self._matrix("embedding")
        ends.norm = self._address(tensors["norm"])
        if self.packed.recipe.head:
            ends.head = self._matrix("head")
            ends.rescore_margin = RESCORE_MARGIN
            ends.head_scale = float(tensors["head.scale"].max())
            ends.head_length = _longest_row(tensors["head"], tensors["head.scale"])
        return ends

    def _layers(self) -> Any:
        c, recipe = self.packed.config, self.packed.recipe
        layers = (bindings.Layer * c["num_hidden_layers"])()
        for i, layer in enumerate(layers):
            name = f"layer.{i}"
            layer.sliding = c["layer_types"][i] == "sliding_attention"
            norms = self.packed.tensors[f"{name}.norms"]
            for j in range(4):
                layer.norms[j] = self._address(norms[j])
            layer.qkv, layer.out = self._matrix(f"{name}.qkv"), self._matrix(f"{name}.out")
            if c["ffn"] == "gated":
                layer.gate, layer.up = self._matrix(f"{name}.gate"), self._matrix(f"{name}.up")
                layer.down = self._matrix(f"{name}.down")
                continue
            again, up, down = row_parts(c, recipe)
            layer.gate = self._matrix(f"{name}.predictor")
            layer.up = self._matrix(f"{name}.rows", f"{name}.up", (again, again + up))
            layer.down = self._matrix(f"{name}.rows", f"{name}.down", (again + up, again + up + down))
            if again:
                layer.rescore = self._matrix(f"{name}.rows", "", (0, again))
        return layers


class Portable:
    """The definition in NumPy, one token at a time: for machines without the compiled kernels."""

    def __init__(self, packed: Packed, slots: int) -> None:
        numbers = sum(math.prod(tensor.shape) for tensor in packed.tensors.values())
        require_memory(16 * numbers, "the plain NumPy code computes in double precision")
        self.reference = Reference(packed.config, unpack(packed))
        self.states: list[State] = [self.reference.start()] * slots
        self.counts = Counts()

    def step(
        self, tokens: Sequence[int], slots: Sequence[int], positions: Sequence[int], wanted: Sequence[int]
    ) -> NDArray[np.floating[Any]]:
        logits: dict[int, NDArray[np.floating[Any]]] = {}
        for index, (token, slot, position) in enumerate(zip(tokens, slots, positions, strict=True)):
            if position == 0:
                self.states[slot] = self.reference.start()
            assert self.states[slot].position == position, "tokens of a slot come in order"
            self.states[slot], row = self.reference.step(self.states[slot], token)
            if index in wanted:
                logits[index] = row
            self.counts.active += sum(self.states[slot].active)
            self.counts.attended += sum(map(sum, self.states[slot].attended))
        self.counts.steps += 1
        self.counts.tokens += len(tokens)
        vocabulary = self.reference.config["vocab_size"]
        return np.array([logits[row] for row in wanted]).reshape(len(wanted), vocabulary)

    def close(self) -> None:
        self.states = []


def configured(c: Mapping[str, Any], dtype: str, context: int, slots: int, rows: int) -> bindings.Config:
    """A configuration in the engine's structure. Raises InputError for a number that its 32 bits do not hold."""
    ffn, attention, neurons = c["ffn"] == "spark", c["attention"] == "spark", c["intermediate_size"]
    numbers = {
        "vocabulary": c["vocab_size"], "hidden": c["hidden_size"], "layers": c["num_hidden_layers"],
        "heads": c["num_attention_heads"], "kv_heads": c["num_key_value_heads"], "head_dim": c["head_dim"],
        "neurons": neurons, "ffn_spark": int(ffn), "attention_spark": int(attention),
        # A window or a k beyond what there is means all of it.
        "ffn_predictor": c["ffn_predictor_size"] if ffn else 0,
        "ffn_active": min(c["ffn_active"], neurons) if ffn else 0,
        "attention_predictor": c["attention_predictor_size"] if attention else 0,
        "attention_active": min(c["attention_active"], context) if attention else 0,
        "window": min(c["sliding_window"], context), "context": context, "slots": slots, "rows": rows,
    }  # fmt: skip
    config = bindings.Config()
    for name, number in numbers.items():
        if not 0 <= number <= MOST_NUMBER:
            raise InputError(f"{name} is {number}; the compiled engine counts from 0 to {MOST_NUMBER}.")
        setattr(config, name, number)
    config.cache_type = bindings.TYPES["f32" if dtype == "f32" else "bf16"]
    config.rope_theta, config.epsilon = c["rope_theta"], c["rms_norm_eps"]
    config.attention_cap = c["attn_logit_softcapping"] or 0.0
    config.final_cap = c["final_logit_softcapping"] or 0.0
    config.query_scale = c["query_pre_attn_scalar"] ** -0.5
    config.embedding_scale = math.sqrt(c["hidden_size"])
    return config


def _refusal(status: int, threads: int, tokens: str) -> str:
    """Why the engine did not open."""
    if status == bindings.NO_THREADS:
        return f"The system does not give {threads} threads: lower their number."
    if status == bindings.NO_MEMORY:
        return (
            f"Memory is not enough for the vectors and the cache of {tokens} and {threads} threads: "
            "lower the context or the number of threads."
        )
    return f"The compiled engine refuses this model with {tokens} and {threads} threads: its numbers contradict each other."


def cache_bytes(c: Mapping[str, Any], dtype: str, context: int, slots: int, rows: int) -> int:
    """Of the cached keys and values. Sliding layers hold their window and some room (csrc/spark_attention.cpp)."""
    size, window = c["head_dim"], c["sliding_window"]
    if c["attention"] == "spark":
        r = c["attention_predictor_size"]
        width = padded(r) + padded(size - r) + padded(size)
    else:
        width = 2 * padded(size)
    sliding = min(context, window + max(rows, window // 8))
    held = sum(sliding if kind == "sliding_attention" else context for kind in c["layer_types"])
    return int(held * c["num_key_value_heads"] * width * (4 if dtype == "f32" else 2) * slots)


def require_memory(needed_bytes: int, why: str) -> None:
    """Raise InputError when this much is not free (where the system tells how much is)."""
    available = available_bytes()
    if available is not None and needed_bytes > available:
        raise InputError(
            f"Memory is not enough: {needed_bytes / 1e9:.1f} GB are needed ({why}), {available / 1e9:.1f} GB are free. "
            "Lower the context or the number of sequences, or export the model as int8."
        )


def available_bytes() -> int | None:
    """Memory that can be had without swapping, None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _longest_row(head: NDArray[np.int8], scale: NDArray[np.float32]) -> float:
    """Euclidean length of the longest row of an int8 matrix."""
    longest = 0.0
    for first in range(0, len(head), 4096):
        block = head[first : first + 4096].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block)) * scale[first : first + 4096]
        longest = max(longest, float(lengths.max()))
    return longest
