"""Dense and Spark decoding measured side by side, at full size with random weights.

Every arm runs in the same process, in turns, on the same memory: dense and Spark weights of one type alias one buffer (they
are equally many), so neither is favoured by where it lies. Reported are medians over rounds; a plain read of memory by the
same threads stands in every round. `limit` is the ratio of the bytes that the arms must read: no ratio of times can stay
above it for long, unless caches help.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis import native
from tamis.errors import UsageError
from tamis.processors import processors
from tamis.spark import bindings
from tamis.spark.bench_llama import TOKENS, against_llama, require_llama
from tamis.spark.decoder import Native, cache_bytes, require_memory
from tamis.spark.engine import CHUNK_ROWS
from tamis.spark.packed import Packed, Recipe, plan, row_parts
from tamis.spark.presets import arrange

PARTS = ("model", "ffn", "attention", "prefill", "fewer-bytes", "sequences")
READ_BYTES = 1 << 30
PREFILL_TOKENS = 512
_RUNS = {"model": bindings.EVERYTHING, "ffn": bindings.FFN, "attention": bindings.ATTENTION}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured."""

    preset: str = "gemma2-2b"
    contexts: tuple[int, ...] = (128, 4096, 8192)
    rounds: int = 7
    threads: int | None = None
    layers: int | None = None
    parts: tuple[str, ...] = ("model", "ffn", "attention", "prefill")
    dtypes: tuple[str, ...] = ("bf16", "int8")
    against: str | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise UsageError(f"The part {part!r} is unknown: it is one of {', '.join(PARTS)}.")
        for dtype in self.dtypes:
            if dtype not in bindings.TYPES:
                raise UsageError(f"The type {dtype!r} is unknown: it is one of {', '.join(bindings.TYPES)}.")
        for name in ("rounds", "threads", "layers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"--{name} is {value}; at least 1 was expected.")
        if self.against is not None and min(self.contexts) <= TOKENS + 1:
            raise UsageError(f"llama.cpp is measured at contexts beyond {TOKENS + 1} tokens.")


@dataclass(slots=True)
class Arm:
    """One model to be measured."""

    name: str
    packed: Packed
    decoder: Native
    wall_ms: list[float]
    cpu_ms: list[float]


def run(settings: Settings, tell: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, Any]]:
    """Records, as each is measured: part, arm, context, ms_per_token, cpu_ms_per_token, gb_per_s, read_gb_per_s,
    ratio_to_dense, limit, and what else belongs to a part."""
    isa = native.chosen()
    if isa is None:
        raise UsageError(f"`tamis spark bench` measures the compiled kernels: {native.absence()}.")
    if settings.against is not None:
        require_llama()
    threads = settings.threads or processors()
    weights = _Weights(settings, isa, threads, tell)
    for part in settings.parts:
        if part in _RUNS:
            yield from _decode(settings, weights, part, tell)
        elif part == "prefill":
            yield from _prefill(settings, weights, tell)
        elif part == "fewer-bytes":
            yield from _fewer_bytes(settings, weights, tell)
        else:
            yield from _sequences(settings, weights, tell)
    if settings.against is not None:
        length = min(settings.contexts)
        dense = {
            dtype: weights.arm("dense", Recipe(dtype), max(settings.contexts)) for dtype in settings.dtypes
        }
        yield from against_llama(dense, length, settings.rounds, threads, tell)


class _Weights:
    """Random weights, one buffer a type, and the arms that are opened over them."""

    def __init__(self, settings: Settings, isa: int, threads: int, tell: Callable[[str], None]) -> None:
        self.settings, self.isa, self.threads, self.tell = settings, isa, threads, tell
        self.buffers: dict[str, NDArray[np.uint8]] = {}
        self.opened: dict[tuple[Any, ...], Arm] = {}

    def config(self, kind: str) -> dict[str, Any]:
        """dense or spark."""
        changes: dict[str, Any] = {}
        if self.settings.layers is not None:
            changes["num_hidden_layers"] = self.settings.layers
        ffn, attention = ("gated", "softmax") if kind == "dense" else ("spark", "spark")
        return arrange(self.settings.preset, ffn=ffn, attention=attention, **changes)

    def arm(
        self,
        kind: str,
        recipe: Recipe,
        context: int,
        rows: int = 1,
        slots: int = 1,
        window: int | None = None,
    ) -> Arm:
        """Opened once and kept. window: of sliding layers, if not the preset's."""
        key = (kind, recipe, context, rows, slots, window)
        if key not in self.opened:
            config = self.config(kind) | {"max_position_embeddings": context}
            config["sliding_window"] = window or config["sliding_window"]
            packed = self._pack(config, recipe)
            require_memory(
                cache_bytes(config, recipe.dtype, context, slots, rows), "the cache of a benchmark"
            )
            decoder = Native(packed, self.isa, threads=self.threads, context=context, slots=slots, rows=rows)
            decoder.library.tamis_spark_fill_cache(decoder.handle, 7)
            name = f"{kind} {recipe.dtype}" + "".join(
                f" {what}-{kept}"
                for what, kept in (("head", recipe.head), ("predictor", recipe.predictor))
                if kept
            )
            self.opened[key] = Arm(name, packed, decoder, [], [])
        return self.opened[key]

    def _pack(self, config: Mapping[str, Any], recipe: Recipe) -> Packed:
        wanted = plan(config, recipe)
        starts, _ = wanted.offsets()
        widths = {"f32": 4, "bf16": 2, "int8": 1}
        needed = dict.fromkeys(widths, 0)
        for dtype, shape in wanted.tensors.values():
            if dtype in widths:  # not the sums of rows
                needed[dtype] += int(np.prod(shape)) * widths[dtype]
        tensors: dict[str, Any] = {}
        for name, (dtype, shape) in wanted.tensors.items():
            numbers = int(np.prod(shape))
            if name.endswith(".scale"):
                # Random rows have deviation 1/4 of their largest number; one step of int8 is then this much.
                columns = config["hidden_size"]
                tensors[name] = np.full(shape, 4 / 127 / columns**0.5, np.float32)
            elif name.endswith(".sum"):
                tensors[name] = np.zeros(shape, np.int32)
            elif name == "shifts":
                tensors[name] = np.zeros(shape, np.float32)
            elif name.endswith(("norm", "norms")):
                tensors[name] = np.ones(shape, np.float32)
            else:
                width = widths[dtype]
                data = self._buffer(dtype, needed[dtype])
                at = starts[name] % max(1, len(data) - numbers * width) // 64 * 64
                numpy_type = {"f32": np.float32, "bf16": np.uint16, "int8": np.int8}[dtype]
                tensors[name] = data[at : at + numbers * width].view(numpy_type).reshape(shape)
        for name in [name for name in tensors if name.endswith(".sum")]:
            tensors[name] = self._row_sums(name, tensors, config, recipe)
        return Packed(dict(config), recipe, np.zeros(0, np.uint8), tensors)

    def _row_sums(
        self, name: str, tensors: Mapping[str, Any], config: Mapping[str, Any], recipe: Recipe
    ) -> NDArray[np.int32]:
        label = name.removesuffix(".sum")
        stored = tensors.get(label)
        layer, _, part = label.rpartition(".")
        if stored is None or (part in ("up", "down") and f"{layer}.rows" in tensors):
            again, up, down = row_parts(config, recipe)
            first = again if part == "up" else again + up
            stored = tensors[f"{layer}.rows"][:, first : first + (up if part == "up" else down)]
        total = np.empty(len(stored), np.int32)
        for first in range(0, len(stored), 8192):
            total[first : first + 8192] = stored[first : first + 8192].sum(1, dtype=np.int32)
        return total

    def _buffer(self, dtype: str, size: int) -> NDArray[np.uint8]:
        """Random numbers of a type, enough for a whole model of it: normal, of variance 1 / hidden size."""
        if dtype in self.buffers and len(self.buffers[dtype]) >= size:
            return self.buffers[dtype]
        self.tell(f"random {dtype} weights, {size / 1e9:.1f} GB ...")
        require_memory(size, f"random {dtype} weights")
        rng = np.random.default_rng(1)
        normal = rng.standard_normal(1 << 24, np.float32)
        deviation = np.float32(self.config("dense")["hidden_size"] ** -0.5)
        if dtype == "int8":
            pool = np.clip(np.rint(normal * (127 / 4)), -127, 127).astype(np.int8).view(np.uint8)
        elif dtype == "bf16":
            from tamis.spark.packed import to_bf16

            pool = to_bf16(normal * deviation).view(np.uint8)
        else:
            pool = (normal * deviation).view(np.uint8)
        data = _large(size + size // 100)  # dense and Spark differ by their scales
        piece = 1 << 20
        for at in range(0, len(data), piece):
            end = min(at + piece, len(data))
            start = int(rng.integers(0, (len(pool) - piece) // 64)) * 64
            data[at:end] = pool[start : start + end - at]
        self.buffers[dtype] = data
        return data


def _large(size: int) -> NDArray[np.uint8]:
    """Memory in large pages where the system has them, as the engine's own; begins at a multiple of 2 MB."""
    import mmap

    if hasattr(mmap, "MAP_PRIVATE"):  # what mmap gives by default is shared memory, which gets no large pages
        block = mmap.mmap(-1, size + (1 << 21), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        block = mmap.mmap(-1, size + (1 << 21))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    data = np.frombuffer(block, np.uint8)
    skip = -data.ctypes.data % (1 << 21)
    return data[skip : skip + size]


def _decode(
    settings: Settings, weights: _Weights, part: str, tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """One token a step, at each context, arms in turns."""
    context = max(settings.contexts)
    # Keys and values are bfloat16 beside any weights, so attention is measured once; in global layers only.
    dtypes = settings.dtypes[:1] if part == "attention" else settings.dtypes
    arms = [
        weights.arm(kind, Recipe(dtype), context, window=context if part == "attention" else None)
        for dtype in dtypes
        for kind in ("dense", "spark")
    ]
    for length in settings.contexts:
        if part == "ffn" and length != settings.contexts[0]:
            continue  # an FFN does not see the context
        tell(f"{part}, context {length}, {settings.rounds} rounds ...")
        yield from _compare(settings, weights, part, arms, length)


def _compare(
    settings: Settings, weights: _Weights, part: str, arms: Sequence[Arm], length: int
) -> Iterator[dict[str, Any]]:
    logits = np.empty((1, weights.config("dense")["vocab_size"]), np.float32)
    token = 1
    reads: list[float] = []
    phases: dict[str, list[list[float]]] = {arm.name: [] for arm in arms}
    counted = dict.fromkeys((arm.name for arm in arms), (0.0, 0.0))
    for arm in arms:
        arm.wall_ms, arm.cpu_ms = [], []
        # Attention alone takes the query that the last whole step left; a zero one would find all keys alike.
        arm.decoder.run([token], [0], [length - 1], [], logits)
    for turn in range(-1, settings.rounds):  # the first one warms up
        reads.append(_read_rate(weights, arms[0], turn))
        for k in range(len(arms)):
            arm = arms[(k + turn) % len(arms)]
            wanted = [0] if part == "model" else []
            cpu, wall = time.process_time(), time.perf_counter()
            record = arm.decoder.run([token], [0], [length - 1], wanted, logits, _RUNS[part])
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if part == "model":
                token = int(np.argmax(logits[0]))
            if turn >= 0:
                arm.wall_ms.append(wall * 1e3)
                arm.cpu_ms.append(cpu * 1e3)
                phases[arm.name].append([1e3 * s for s in record.seconds])
                counted[arm.name] = (record.active, record.attended)
    read = median(reads[1:])
    for arm in arms:
        dense = next(a for a in arms if a.name.split()[:2] == ["dense", arm.packed.recipe.dtype])
        active, attended = counted[arm.name]
        size = bytes_read(arm.packed, part, length, active, attended)
        dense_size = bytes_read(dense.packed, part, length, 0, counted[dense.name][1])
        ms, c = median(arm.wall_ms), arm.packed.config
        ratios = [a / b for a, b in zip(dense.wall_ms, arm.wall_ms, strict=True)]
        yield {
            "part": part, "arm": arm.name, "context": length, "ms_per_token": round(ms, 3),
            "cpu_ms_per_token": round(median(arm.cpu_ms), 3), "gb_per_s": round(size / ms / 1e6, 2),
            "read_gb_per_s": round(read, 2), "ratio_to_dense": round(median(ratios), 3),
            "cpu_ratio_to_dense": round(median(dense.cpu_ms) / median(arm.cpu_ms), 3),
            "limit": round(dense_size / size, 3), "mb_read": round(size / 1e6, 1), "rounds": len(arm.wall_ms),
            "threads": weights.threads, "active_share": round(active / c["num_hidden_layers"] / c["intermediate_size"], 4),
            "attended": round(attended / c["num_hidden_layers"] / c["num_attention_heads"], 1),
            "phases_ms": dict(zip(("projections", "attention", "ffn", "gather", "vocabulary"),
                                  [round(median(column), 2) for column in zip(*phases[arm.name], strict=True)],
                                  strict=True)),
        }  # fmt: skip


def _read_rate(weights: _Weights, arm: Arm, turn: int) -> float:
    """GB/s of a plain read by the engine's threads."""
    data = next(iter(weights.buffers.values()))
    size = min(READ_BYTES, len(data) // 4096 * 4096)
    first = max(0, turn) * size % max(1, len(data) - size) // 4096 * 4096
    piece = data[first : first + size]
    seconds = arm.decoder.library.tamis_spark_read(arm.decoder.handle, piece.ctypes.data, len(piece))
    return float(len(piece) / seconds / 1e9)


def bytes_read(packed: Packed, part: str, length: int, active: float, attended: float) -> float:
    """What a token must read: weights, of a Spark FFN's [K2 | V] the active rows only; cached keys and values.

    active: neurons over all layers; attended: keys over all layers and query heads. A query head's keys are counted as its
    own, though heads that share a cache may share some; all of them together are no more than there are.
    """
    c, tensors = packed.config, packed.tensors
    total = 0.0
    for name, tensor in tensors.items():
        kind = name.removesuffix(".scale").removesuffix(".sum").rpartition(".")[2]
        ffn = kind in ("gate", "up", "down", "predictor", "rows")
        share = active / c["num_hidden_layers"] / c["intermediate_size"] if kind == "rows" else 1.0
        if c["ffn"] == "spark" and kind in ("up", "down"):
            share = 0.0  # scales of the active rows: next to nothing
        looked_up = name == "embedding" and packed.recipe.head is not None
        runs = _RUNS[part]
        needed = bindings.FFN if ffn else bindings.PROJECTIONS if name.startswith("layer") else bindings.HEAD
        if runs & needed and not looked_up:
            total += share * tensor.nbytes
    if _RUNS[part] & bindings.ATTENTION:
        width = 4 if packed.recipe.dtype == "f32" else 2
        seen = sum(
            min(length, c["sliding_window"]) if kind == "sliding_attention" else length
            for kind in c["layer_types"]
        )
        if c["attention"] == "spark":
            r, size = c["attention_predictor_size"], c["head_dim"]
            kept = min(attended, seen * c["num_key_value_heads"])
            total += width * (seen * c["num_key_value_heads"] * r + kept * (2 * size - r))
        else:
            total += width * seen * c["num_key_value_heads"] * 2 * c["head_dim"]
    return total


def _prefill(settings: Settings, weights: _Weights, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A prompt of 512 tokens in the chunks of `Engine`."""
    chunk, tokens = CHUNK_ROWS, list(range(1, PREFILL_TOKENS + 1))
    for dtype in settings.dtypes:
        tell(f"prefill of {PREFILL_TOKENS} tokens, {dtype} ...")
        arms = [weights.arm(kind, Recipe(dtype), PREFILL_TOKENS, rows=chunk) for kind in ("dense", "spark")]
        times: dict[str, list[tuple[float, float]]] = {arm.name: [] for arm in arms}
        for turn in range(max(1, settings.rounds // 3)):
            for arm in arms if turn % 2 == 0 else arms[::-1]:
                cpu, wall = time.process_time(), time.perf_counter()
                for first in range(0, PREFILL_TOKENS, chunk):
                    wanted = [chunk - 1] if first + chunk == PREFILL_TOKENS else []
                    arm.decoder.step(
                        tokens[first : first + chunk], [0] * chunk, range(first, first + chunk), wanted
                    )
                times[arm.name].append((time.perf_counter() - wall, time.process_time() - cpu))
        walls = {name: median(wall for wall, _ in each) for name, each in times.items()}
        cpus = {name: median(cpu for _, cpu in each) for name, each in times.items()}
        for arm in arms:
            yield {
                "part": "prefill", "arm": arm.name, "context": PREFILL_TOKENS,
                "ms_per_token": round(walls[arm.name] * 1e3 / PREFILL_TOKENS, 3),
                "cpu_ms_per_token": round(cpus[arm.name] * 1e3 / PREFILL_TOKENS, 3), "gb_per_s": None,
                "read_gb_per_s": None, "ratio_to_dense": round(walls[arms[0].name] / walls[arm.name], 3),
                "cpu_ratio_to_dense": round(cpus[arms[0].name] / cpus[arm.name], 3), "limit": None,
                "rounds": len(times[arm.name]), "threads": weights.threads,
            }  # fmt: skip


def _fewer_bytes(
    settings: Settings, weights: _Weights, tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """int8 where the full precision is only needed for what is chosen: the same liberty for the dense arm."""
    context = max(settings.contexts)
    both = Recipe("bf16", head="int8")
    arms = [
        weights.arm("dense", both, context),
        weights.arm("spark", both, context),
        weights.arm("spark", replace(both, predictor="int8"), context),
    ]
    for length in settings.contexts:
        tell(f"fewer bytes, context {length}, {settings.rounds} rounds ...")
        for record in _compare(settings, weights, "model", arms, length):
            yield record | {"part": "fewer-bytes"}


def _sequences(
    settings: Settings, weights: _Weights, tell: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Several sequences decoded at once: their active neurons differ, and the gain falls."""
    length = min(settings.contexts)
    for count in (4, 8):
        arms = [
            weights.arm(kind, Recipe("bf16"), length, rows=count, slots=count) for kind in ("dense", "spark")
        ]
        tell(f"{count} sequences at once, context {length} ...")
        logits = np.empty((count, arms[0].packed.config["vocab_size"]), np.float32)
        rng = np.random.default_rng(count)
        for arm in arms:
            arm.wall_ms, arm.cpu_ms = [], []
        for turn in range(-1, settings.rounds):
            tokens = rng.integers(0, logits.shape[1], count).tolist()
            for arm in arms if turn % 2 else arms[::-1]:
                cpu, wall = time.process_time(), time.perf_counter()
                arm.decoder.run(tokens, range(count), [length - 1] * count, range(count), logits)
                if turn >= 0:
                    arm.wall_ms.append((time.perf_counter() - wall) * 1e3)
                    arm.cpu_ms.append((time.process_time() - cpu) * 1e3)
        dense = arms[0]
        for arm in arms:
            yield {
                "part": f"{count} sequences", "arm": arm.name, "context": length,
                "ms_per_token": round(median(arm.wall_ms) / count, 3),
                "cpu_ms_per_token": round(median(arm.cpu_ms) / count, 3), "gb_per_s": None, "read_gb_per_s": None,
                "ratio_to_dense": round(median(dense.wall_ms) / median(arm.wall_ms), 3),
                "cpu_ratio_to_dense": round(median(dense.cpu_ms) / median(arm.cpu_ms), 3), "limit": None,
                "rounds": len(arm.wall_ms), "threads": weights.threads,
            }  # fmt: skip
