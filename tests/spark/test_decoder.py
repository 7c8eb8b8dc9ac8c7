"""What the decoding engine refuses, what it does not hide, and that one request leaves nothing behind for the next.

python -m pytest tests/spark/test_decoder.py
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis import native
from tamis.errors import InputError, UsageError
from tamis.spark import bindings
from tamis.spark.checkpoint import tensor_shapes
from tamis.spark.decoder import Native, configured
from tamis.spark.packed import Packed, Recipe, pack
from tamis.spark.presets import arrange

SETS = [name for name, runs in native.instruction_sets().items() if runs]
pytestmark = pytest.mark.skipif(not SETS, reason="installed without a compiler")
every_set = pytest.mark.parametrize("isa", range(len(SETS)), ids=SETS)
every_type = pytest.mark.parametrize("dtype", bindings.TYPES)
KINDS = [("gated", "softmax"), ("spark", "spark")]
every_kind = pytest.mark.parametrize("kind", KINDS, ids="-".join)
VOCABULARY, CONTEXT = 101, 64
SPOILT = VOCABULARY - 1
"""A token whose embedding the tests spoil; its own logit is of that embedding, too, and not looked at."""


def model(
    kind: tuple[str, str] = ("spark", "spark"), **changes: Any
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    settings = {
        "num_hidden_layers": 2, "sliding_window": 20, "attention_active": 8, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
    }  # fmt: skip
    config = arrange("tiny", ffn=kind[0], attention=kind[1], **(settings | changes))
    rng = np.random.default_rng(1)
    return config, {
        name: (rng.normal(size=shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.1)).astype(np.float32)
        for name, shape in tensor_shapes(config).items()
    }


def opened(packed: Packed, isa: int | None = None, *, rows: int = 32, threads: int = 2) -> Native:
    isa = len(SETS) - 1 if isa is None else isa
    return Native(packed, isa, threads=threads, context=CONTEXT, slots=2, rows=rows)


def last_logits(decoder: Native, tokens: list[int], chunk: int) -> NDArray[np.float32]:
    """After these tokens, `chunk` at a time, in slot 1."""
    out = np.empty(0, np.float32)
    for first in range(0, len(tokens), chunk):
        part = tokens[first : first + chunk]
        out = decoder.step(part, [1] * len(part), range(first, first + len(part)), [len(part) - 1])
    return out


TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2, 9]


def test_numbers_beyond_the_context_mean_all_of_it() -> None:
    """Also those of more than 32 bits, whose lowest bits would be another number."""
    config, tensors = model(sliding_window=CONTEXT, attention_active=CONTEXT, ffn_active=768)
    packed = pack(config, tensors, Recipe("f32"))
    expected = last_logits(opened(packed), TOKENS, 1)
    for beyond in (10**6, 2**31 - 1, 2**31, 2**32 + 5, 2**63):
        changes = {"sliding_window": beyond, "attention_active": beyond, "ffn_active": beyond}
        for chunk in (1, 7):
            found = last_logits(opened(replace(packed, config=config | changes)), TOKENS, chunk)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("vocab_size", 2**32 + 101),
        ("sliding_window", -1),
        ("attention_active", -(2**32)),
        ("head_dim", 2**31),
    ],
)
def test_numbers_that_32_bits_do_not_hold_are_told(name: str, number: int) -> None:
    config, _ = model()
    with pytest.raises(InputError, match=rf"is {number}; the compiled engine counts from 0"):
        configured(config | {name: number}, "f32", CONTEXT, 1, 1)


def status_of(packed: Packed, *, threads: int = 1, isa: int = 0, given: Any = None, **numbers: int) -> int:
    """How tamis_spark_open ends with these numbers in its configuration."""
    library = bindings.library()
    assert library is not None
    decoder = opened(packed)
    config = configured(packed.config, packed.recipe.dtype, CONTEXT, 1, 4)
    for name, number in numbers.items():
        setattr(config, name, number)
    status = ctypes.c_int(-1)
    layers = decoder._layers() if given is None else given
    handle = library.tamis_spark_open(config, decoder._ends(), layers, isa, threads, 0, status)
    if handle:
        library.tamis_spark_close(handle)
    decoder.close()
    assert bool(handle) == (status.value == 0)
    return status.value


@every_kind
def test_the_c_interface_trusts_no_number(kind: tuple[str, str]) -> None:
    packed = pack(*model(kind), Recipe("bf16"))
    assert status_of(packed) == 0
    names = [
        "vocabulary", "hidden", "layers", "heads", "kv_heads", "head_dim", "neurons", "window", "context", "slots",
        "rows",
    ]  # fmt: skip
    if kind[0] == "spark":
        names += ["ffn_predictor", "ffn_active", "attention_predictor", "attention_active"]
    for name in names:
        for number in (0, -1, -(2**31)):
            assert status_of(packed, **{name: number}) == bindings.REFUSED, (name, number)
    others = {
        "heads": 3, "head_dim": 2000, "context": 2**31 - 1, "rows": 2**31 - 1, "slots": 2**31 - 1, "cache_type": 2,
        "cache_type ": -1, "threads": 0, "threads ": 2**20, "hidden": 64, "neurons": 2**31 - 1, "vocabulary": 100,
    }  # fmt: skip
    for name, number in others.items():
        assert status_of(packed, **{name.strip(): number}) == bindings.REFUSED, (name, number)
    # More than a window or k can mean is not wrong: it is what there is.
    assert status_of(packed, window=2**31 - 1, attention_active=2**31 - 1, ffn_active=2**31 - 1) == 0
    assert status_of(packed, isa=99) == bindings.NO_ISA


@every_kind
def test_matrices_of_another_shape_are_refused(kind: tuple[str, str]) -> None:
    packed = pack(*model(kind), Recipe("int8"))
    for name in ("qkv", "out", "gate", "up", "down"):
        for field, number in (
            ("cols", 192),
            ("rows", 1),
            ("type", 3),
            ("stride", 0),
            ("data", 0),
            ("scale", 0),
        ):
            decoder = opened(packed)
            layers = decoder._layers()
            setattr(getattr(layers[1], name), field, number)
            assert status_of(packed, given=layers) == bindings.REFUSED, (name, field)
            decoder.close()


@pytest.mark.parametrize(
    ("tokens", "slots", "positions", "wanted"),
    [
        ([-1], [0], [0], [0]),
        ([VOCABULARY], [0], [0], [0]),
        ([1], [2], [0], [0]),
        ([1], [-1], [0], [0]),
        ([1], [0], [CONTEXT], [0]),
        ([1], [0], [-1], [0]),
        ([1], [0], [0], [1]),
        ([1], [0], [0], [-1]),
        ([1, 2], [0, 0], [0, 2], [0]),
        ([1, 2], [0, 0], [1, 0], [0]),
        ([1, 2, 3], [0, 1, 0], [0, 0, 1], [0]),
    ],
    ids=str,
)
def test_a_step_outside_of_what_there_is_is_refused(
    tokens: list[int], slots: list[int], positions: list[int], wanted: list[int]
) -> None:
    with_it = opened(pack(*model(), Recipe("f32")))
    with pytest.raises(UsageError, match="refused the step"):
        with_it.step(tokens, slots, positions, wanted)
    alone = opened(pack(*model(), Recipe("f32")))
    assert np.array_equal(last_logits(with_it, TOKENS, 7), last_logits(alone, TOKENS, 7))


STARVED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from tamis.errors import InputError
import test_decoder as t
packed = t.pack(*t.model(), t.Recipe("f32"))
t.opened(packed).close()
used = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line)
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + (200 << 20), hard))
try:
    t.opened(packed, threads=500)
except InputError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
decoder = t.opened(packed, threads=3)  # nothing was left behind
print(t.last_logits(decoder, t.TOKENS, 7).shape)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="limits the addresses of a process, of which sanitizers take nearly all",
)
def test_threads_that_the_system_does_not_give_are_told() -> None:
    folder = str(Path(__file__).parent)
    made = subprocess.run(
        [sys.executable, "-c", STARVED.format(folder=folder)], capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    told, shape = made.stdout.splitlines()
    assert told == "The system does not give 500 threads: lower their number."
    assert shape == f"(1, {VOCABULARY})"


@every_set
@every_type
@every_kind
def test_one_request_leaves_nothing_behind_for_the_next(isa: int, dtype: str, kind: tuple[str, str]) -> None:
    """A prompt whose numbers overflow is told, and the next one is as in a new engine. Widths need padding."""
    config, tensors = model(kind, hidden_size=100, head_dim=30, intermediate_size=200, ffn_predictor_size=37,
                            attention_predictor_size=10)  # fmt: skip
    tensors["model.embed_tokens.weight"][SPOILT] = 3e38
    packed = pack(config, tensors, Recipe(dtype))
    used, new = opened(packed, isa), opened(packed, isa)
    for chunk in (30, 3, 1):
        assert not np.isfinite(last_logits(used, [SPOILT] * 30, chunk)).any()
        for then in (30, 3, 1):
            found, expected = (last_logits(each, TOKENS, then)[:, :SPOILT] for each in (used, new))
            assert np.isfinite(found).all()
            assert np.array_equal(found, expected)


@every_set
@every_kind
@pytest.mark.parametrize("chunk", [1, 3, 17])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_token_that_is_not_finite_is_in_what_attends_to_it(
    isa: int, kind: tuple[str, str], chunk: int, value: float
) -> None:
    """Also where k leaves no key out. Squares of 1e30 overflow."""
    for active in (8, CONTEXT):
        config, tensors = model(kind, attention_active=active)
        tensors["model.embed_tokens.weight"][SPOILT] = value
        decoder = opened(pack(config, tensors, Recipe("f32")), isa)
        assert not np.isfinite(last_logits(decoder, [SPOILT, *TOKENS[:17]], chunk)).any()
        assert np.isfinite(last_logits(decoder, TOKENS[:17], chunk)[:, :SPOILT]).all()


@every_set
@every_type
@every_kind
def test_an_infinite_weight_is_not_hidden_by_a_cap(isa: int, dtype: str, kind: tuple[str, str]) -> None:
    """tanh would make a number of it: the likeliest token, or the only key that is attended."""
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"):
        config, tensors = model(kind)
        tensors[name][50, 3] = np.inf
        decoder = opened(pack(config, tensors, Recipe(dtype)), isa)
        for chunk in (1, 3, 17):
            assert not np.isfinite(last_logits(decoder, TOKENS[:17], chunk)).all()


@every_set
@pytest.mark.parametrize("chunk", [1, 3, 17])
def test_a_finer_predictor_that_is_not_finite_is_told(isa: int, chunk: int) -> None:
    packed = pack(*model(), Recipe("bf16", predictor="int8"))
    packed.tensors["layer.0.rows"][:, 0] = 0x7FC0  # K1 in bfloat16; the int8 one, which chooses, is whole
    assert not np.isfinite(last_logits(opened(packed, isa), TOKENS[:17], chunk)).any()
