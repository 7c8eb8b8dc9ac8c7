"""The decoding engine against the double-precision definition, on every instruction set of this processor.

python -m pytest tests/spark/test_engine.py
"""

from __future__ import annotations

import errno
import json
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tamis import cli, native
from tamis.errors import InputError, OutputError, UsageError
from tamis.spark import decoder as decoder_module
from tamis.spark import engine as engine_module
from tamis.spark.checkpoint import shift_names, tensor_shapes
from tamis.spark.decoder import Native
from tamis.spark.engine import Engine
from tamis.spark.packed import Packed, Recipe, pack, read, unpack, write
from tamis.spark.presets import arrange
from tamis.spark.reference import Reference

SETS = [name for name, runs in native.instruction_sets().items() if runs]
needs_kernels = pytest.mark.skipif(not SETS, reason="installed without a compiler")
every_set = pytest.mark.parametrize("isa", range(len(SETS)), ids=SETS)
ARMS = [("gated", "softmax"), ("spark", "softmax"), ("gated", "spark"), ("spark", "spark")]
# Relative error of logits, in 2-norm over all tokens. float32: rounding of some 10^3 operations. bfloat16 (2^-9 a number)
# and int8 (1/254 of a vector's largest number) round every vector before every product, and flip neurons and keys that
# lie next to their threshold.
TOLERANCE = {"f32": 5e-6, "bf16": 0.04, "int8": 0.15}
Tensors = dict[str, NDArray[np.float32]]


def model(ffn: str, attention: str, **changes: Any) -> tuple[dict[str, Any], Tensors]:
    settings = {
        "num_hidden_layers": 2, "sliding_window": 20, "attention_active": 8, "vocab_size": 301,
        "max_position_embeddings": 64,
    }  # fmt: skip
    config = arrange("tiny", ffn=ffn, attention=attention, **(settings | changes))
    rng = np.random.default_rng(1)
    tensors = {
        name: (rng.normal(size=shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.1)).astype(np.float32)
        for name, shape in tensor_shapes(config).items()
    }
    shifts = {name: rng.uniform(-0.4, 0.2, 1).astype(np.float32) for name in shift_names(config)}
    return config, tensors | shifts


def truth(packed: Packed, tokens: list[int]) -> NDArray[np.float64]:
    """Logits [tokens, vocabulary] by the definition."""
    reference = Reference(packed.config, unpack(packed))
    state, rows = reference.start(), []
    for token in tokens:
        state, logits = reference.step(state, token)
        rows.append(logits)
    return np.array(rows)


def error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def tokens_of(count: int, vocabulary: int = 301) -> list[int]:
    return [int(token) for token in np.random.default_rng(2).integers(0, vocabulary, count)]


def decoded(
    packed: Packed, isa: int, tokens: list[int], *, threads: int = 2, chunk: int = 1
) -> NDArray[np.float32]:
    """Logits [tokens, vocabulary], `chunk` tokens a step."""
    native_decoder = Native(packed, isa, threads=threads, context=64, slots=2, rows=chunk)
    rows = []
    for first in range(0, len(tokens), chunk):
        part = tokens[first : first + chunk]
        rows.append(
            native_decoder.step(part, [1] * len(part), range(first, first + len(part)), range(len(part)))
        )
    native_decoder.close()
    return np.concatenate(rows)


@needs_kernels
@every_set
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("ffn", "attention"), ARMS)
def test_the_definition_is_met(isa: int, dtype: str, ffn: str, attention: str) -> None:
    packed = pack(*model(ffn, attention), Recipe(dtype))
    tokens = tokens_of(40)
    expected = truth(packed, tokens)
    assert error(decoded(packed, isa, tokens), expected) < TOLERANCE[dtype]
    for chunk in (3, 17):  # few tokens share rows one way, many another
        assert error(decoded(packed, isa, tokens, chunk=chunk), expected) < TOLERANCE[dtype]


@needs_kernels
@every_set
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 100, "head_dim": 30, "ffn_predictor_size": 37, "attention_predictor_size": 10},
        {"hidden_size": 65, "num_attention_heads": 6, "num_key_value_heads": 1, "intermediate_size": 43},
        {
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 66,
            "attention_predictor_size": 32,
            "sliding_window": 1,
        },
        {"ffn_active": 768, "attention_active": 64},
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "attention_active": 1},
    ],
    ids=["odd sizes", "odd heads", "many heads", "k = n", "no caps"],
)
def test_odd_shapes(isa: int, changes: dict[str, Any]) -> None:
    packed = pack(*model("spark", "spark", **changes), Recipe("f32"))
    tokens = tokens_of(30)
    expected = truth(packed, tokens)
    for threads in (1, 3):
        assert error(decoded(packed, isa, tokens, threads=threads), expected) < TOLERANCE["f32"]
    assert error(decoded(packed, isa, tokens, chunk=30), expected) < TOLERANCE["f32"]


@needs_kernels
@every_set
def test_ties_keep_every_key(isa: int) -> None:
    """Keys that are zero score zero: none lies above the threshold, and a softmax over nothing would be NaN."""
    config, tensors = model("spark", "spark", attention_active=2)
    for name in tensors:
        if name.endswith("k_proj.weight"):
            tensors[name][:] = 0
    packed = pack(config, tensors, Recipe("f32"))
    tokens = tokens_of(30)
    assert error(decoded(packed, isa, tokens), truth(packed, tokens)) < TOLERANCE["f32"]


@needs_kernels
def test_sliding_layers_hold_their_window_only() -> None:
    """Memory is moved again and again while 60 tokens pass a window of 5; a sequence begun anew finds no trace of the last."""
    packed = pack(*model("spark", "spark", sliding_window=5), Recipe("f32"))
    tokens = tokens_of(60)
    expected = truth(packed, tokens)
    for chunk in (1, 7):
        assert error(decoded(packed, len(SETS) - 1, tokens, chunk=chunk), expected) < TOLERANCE["f32"]
    with opened(packed) as engine:
        once = engine.generate(tokens, max_tokens=3).tokens
        assert engine.generate(tokens[:4], max_tokens=40).tokens
        assert engine.generate(tokens, max_tokens=3).tokens == once
    full = decoder_module.cache_bytes(packed.config, "f32", 64, 1, 64)
    assert decoder_module.cache_bytes(packed.config, "f32", 64, 1, 1) < full


@needs_kernels
def test_several_windows_may_be_jumped_over() -> None:
    """A benchmark starts far into a cache that was filled for it: what sliding layers never held is not read (sanitizers)."""
    packed = pack(*model("spark", "spark", sliding_window=5), Recipe("f32"))
    native = decoder_module.Native(packed, len(SETS) - 1, threads=1, context=64, slots=1, rows=1)
    native.library.tamis_spark_fill_cache(native.handle, 7)
    logits = np.empty((1, packed.config["vocab_size"]), np.float32)
    for position in (63, 20, 63):
        native.run([1], [0], [position], [0], logits)
        assert np.isfinite(logits).all()


@needs_kernels
def test_results_do_not_depend_on_threads() -> None:
    packed = pack(*model("spark", "spark"), Recipe("bf16"))
    tokens = tokens_of(30)
    one = decoded(packed, len(SETS) - 1, tokens, threads=1)
    assert np.array_equal(one, decoded(packed, len(SETS) - 1, tokens, threads=2))
    assert np.array_equal(one, decoded(packed, len(SETS) - 1, tokens, threads=5))


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_damaged_weights_are_told(dtype: str) -> None:
    config, tensors = model("spark", "spark")
    tensors["model.layers.0.input_layernorm.weight"][3] = np.nan
    engine = opened(pack(config, tensors, Recipe(dtype)))
    with pytest.raises(InputError, match="not finite"):
        engine.generate([1, 2, 3], max_tokens=1)


@needs_kernels
@every_set
@pytest.mark.parametrize(("ffn", "attention"), ARMS[::3])
def test_fewer_bytes_give_the_same_tokens(isa: int, ffn: str, attention: str) -> None:
    """int8 head and predictor choose, bfloat16 computes: logits stay within rounding, the likeliest stays the likeliest."""
    config, tensors = model(ffn, attention)
    plain = pack(config, tensors, Recipe("bf16"))
    coarse = pack(config, tensors, Recipe("bf16", head="int8", predictor="int8" if ffn == "spark" else None))
    tokens = tokens_of(40)
    expected = decoded(plain, isa, tokens)
    top = expected.argmax(1)
    lead = np.sort(expected, 1)[:, -1] - np.sort(expected, 1)[:, -2]
    clear = lead > 0.02 * expected.std()
    assert clear.mean() > 0.8
    for chunk in (
        1,
        3,
        17,
    ):  # one row, few and many score their neurons and candidates again each in a way of their own
        found = decoded(coarse, isa, tokens, chunk=chunk)
        assert error(found, expected) < 0.05
        if (
            ffn == "gated"
        ):  # the same hidden vectors: the head alone differs, and it scores its candidates again
            expected = decoded(plain, isa, tokens, chunk=chunk)
            assert np.array_equal(found.argmax(1), expected.argmax(1))
            rows = np.arange(len(top))
            assert np.allclose(found[rows, top], expected[rows, top], rtol=1e-5)
        else:
            assert (found.argmax(1) == top)[clear].mean() > 0.9


def opened(packed: Packed, *, sequences: int = 1, context: int = 64) -> Engine:
    chosen = native.chosen()
    assert chosen is not None
    native_decoder = Native(
        packed, chosen, threads=2, context=context, slots=sequences, rows=max(64, sequences)
    )
    return Engine(packed, native_decoder, context, sequences)


@needs_kernels
def test_several_sequences_are_each_as_alone() -> None:
    packed = pack(*model("spark", "spark"), Recipe("f32"))
    prompts = [tokens_of(7), tokens_of(20), [3]]
    with opened(packed) as one, opened(packed, sequences=3) as many:
        alone = [one.generate(prompt, max_tokens=12).tokens for prompt in prompts]
        assert [made.tokens for made in many.generate_many(prompts, max_tokens=12)] == alone
        assert [made.tokens for made in one.generate_many(prompts, max_tokens=12)] == alone


@needs_kernels
def test_greedy_tokens_are_those_of_the_definition() -> None:
    packed = pack(*model("spark", "spark"), Recipe("f32"))
    prompt = tokens_of(5)
    with opened(packed) as engine:
        made = engine.generate(prompt, max_tokens=10).tokens
    tokens = list(prompt)
    for _ in range(10):
        tokens.append(int(truth(packed, tokens)[-1].argmax()))
    assert list(made) == tokens[5:]


@needs_kernels
def test_the_context_ends_a_text_and_refuses_a_longer_prompt() -> None:
    packed = pack(*model("spark", "spark"), Recipe("f32"))
    with opened(packed, context=16) as engine:
        made = engine.generate(tokens_of(10), max_tokens=100)
        assert (len(made.tokens), made.ended) == (7, "length")
        with pytest.raises(InputError, match="17 tokens, the context holds 16"):
            engine.generate(tokens_of(17))


@needs_kernels
@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([], "prompt is empty"),
        ([301], "Token 301 is outside the vocabulary of 301"),
        ([-1], "Token -1"),
        ("x", "no tokenizer"),
        ("\udcff", "bytes that are no UTF-8"),
    ],
)
def test_bad_prompts(prompt: Any, sentence: str) -> None:
    with (
        opened(pack(*model("gated", "softmax"), Recipe("f32"))) as engine,
        pytest.raises(InputError, match=sentence),
    ):
        engine.generate(prompt)


@needs_kernels
def test_a_closed_engine_says_so() -> None:
    engine = opened(pack(*model("gated", "softmax"), Recipe("f32")))
    engine.close()
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.generate([1])


def test_without_kernels_the_definition_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, *model("spark", "spark", num_hidden_layers=1))
    monkeypatch.setenv(native.VARIABLE, native.NONE)
    monkeypatch.setattr(
        engine_module, "CHUNK_ROWS", 2
    )  # a prompt in two pieces: no logits are wanted of the first
    with Engine.open(folder, dtype="f32", sequences=2) as engine:
        slow = [made.tokens for made in engine.generate_many([[1, 2, 3], [4]], max_tokens=3)]
    monkeypatch.delenv(native.VARIABLE)
    with Engine.open(folder, dtype="f32", sequences=2) as engine:
        assert [made.tokens for made in engine.generate_many([[1, 2, 3], [4]], max_tokens=3)] == slow


def saved(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "recipe", [Recipe("f32"), Recipe("bf16"), Recipe("int8"), Recipe("bf16", "int8", "int8")]
)
def test_a_packed_file_holds_what_was_packed(tmp_path: Path, recipe: Recipe) -> None:
    config, tensors = model("spark", "spark")
    write(tmp_path / "m.spark", config, tensors, recipe, "{}")
    stored, packed = read(tmp_path / "m.spark"), pack(config, tensors, recipe)
    assert stored.recipe == recipe
    assert stored.tokenizer == "{}"
    assert stored.tensors.keys() == packed.tensors.keys()
    assert all(np.array_equal(stored.tensors[name], packed.tensors[name]) for name in packed.tensors)


def test_packing_loses_no_more_than_the_type(tmp_path: Path) -> None:
    config, tensors = model("spark", "spark", hidden_size=100, ffn_predictor_size=37)
    for dtype, bound in (("f32", 0.0), ("bf16", 2.0**-8), ("int8", 1 / 250)):
        back = unpack(pack(config, tensors, Recipe(dtype)))
        assert back.keys() == tensors.keys()
        for name, tensor in tensors.items():
            if "norm" not in name:
                assert np.abs(back[name] - tensor).max() <= bound * np.abs(tensor).max(), name


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-1], "truncated or damaged"),
        (lambda data: data[:60], "truncated or damaged"),
        (lambda data: data[:4], "no packed model"),
        (lambda data: b"GGUF" + data[4:], "no packed model"),
        (lambda data: data[:7] + b"\x09" + data[8:], "layout 9"),
        (
            lambda data: data.replace(b'"hidden_size": 128', b'"hidden_size": 192'),
            "do not fit its configuration",
        ),
        (
            lambda data: data.replace(b'"num_attention_heads": 4', b'"num_attention_heads": 3'),
            "contradicts itself",
        ),
    ],
    ids=[
        "a byte short",
        "header short",
        "tiny",
        "another format",
        "another version",
        "mismatch",
        "contradiction",
    ],
)
def test_damaged_packed_files(tmp_path: Path, damage: Any, sentence: str) -> None:
    path = tmp_path / "m.spark"
    write(path, *model("gated", "softmax"), Recipe("bf16"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=sentence):
        read(path)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match=r"m\.spark was not written: the disk is full"):
        write(tmp_path / "m.spark", *model("gated", "softmax"), Recipe("bf16"))
    assert not list(tmp_path.iterdir())


def test_a_damaged_tokenizer_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path, *model("gated", "softmax"))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json of .* is damaged"):
        Engine.open(folder)
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged: it is no UTF-8 text"):
        Engine.open(folder)


def test_nothing_is_printed_before_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path, *model("gated", "softmax"))
    assert cli.main(["spark", "generate", str(folder), "x"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no tokenizer.json" in shown.err


def test_too_little_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, *model("gated", "softmax"))
    monkeypatch.setattr(decoder_module, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="Memory is not enough"):
        Engine.open(folder)


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    folder = saved(tmp_path / "model", *model("spark", "spark"))
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(301)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    out = tmp_path / "m.spark"
    assert cli.main(["spark", "export", str(folder), str(out), "--dtype", "f32"]) == 0
    assert "MB, f32" in capsys.readouterr().out
    generate = ["spark", "generate", str(out), "w1 w2 w3", "--max-tokens", "5"]
    assert cli.main([*generate, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["prompt_tokens"] == 3
    assert record["text"] == "".join(
        f" w{token}" for token in record["tokens"]
    )  # as it stands behind the prompt
    assert cli.main(generate) == 0
    assert capsys.readouterr().out == f"w1 w2 w3{record['text']}\n"
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"w1 w2 w3\n")))
    assert cli.main([*generate[:3], "-", *generate[4:]]) == 0
    assert capsys.readouterr().out == f"w1 w2 w3{record['text']}\n"
    same = tmp_path / "same.spark"
    assert cli.main(["spark", "export", str(folder), "-o", str(same), "--dtype", "f32"]) == 0
    assert same.read_bytes() == out.read_bytes()
    capsys.readouterr()
    third = record["text"].split()[2]
    assert cli.main([*generate, "--json", "--stop", third]) == 0
    stopped = json.loads(capsys.readouterr().out)
    assert stopped["ended"] == "stop"
    assert third not in stopped["text"]
    drawn = [*generate, "--json", "--temperature", "1.5", "--top-k", "50", "--top-p", "0.9", "--seed", "4"]
    texts = []
    for _ in range(2):
        assert cli.main(drawn) == 0
        texts.append(json.loads(capsys.readouterr().out)["text"])
    assert texts[0] == texts[1] != record["text"]


def test_records_of_before_outlive_a_refused_measurement(tmp_path: Path) -> None:
    kept = tmp_path / "bench.jsonl"
    kept.write_text("before\n")
    assert cli.main(["spark", "bench", "--preset", "huge", "-o", str(kept)]) == 2
    assert kept.read_text() == "before\n"


@pytest.mark.parametrize("option", ["--parts", "--dtypes"])
def test_an_empty_list_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["spark", "bench", option, ","])
    assert "an empty list was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence", "status"),
    [
        (["generate", "absent.spark", "x"], "absent.spark does not exist", 1),
        (["export", "absent", "out.spark"], "absent is no folder", 1),
        (["bench", "--parts", "nothing"], "part 'nothing' is unknown", 2),
        (["bench", "--rounds", "0"], "--rounds is 0", 2),
        (["bench", "--threads", "0"], "--threads is 0", 2),
        (["export", "absent"], "no file to write was named", 2),
        (["export", "absent", "a.spark", "-o", "b.spark"], "two files to write were named", 2),
        (["bench", "--contexts", "8", "--against", "llama.cpp"], "at contexts beyond 9 tokens", 2),
    ],
)
def test_wrong_usage(
    arguments: list[str], sentence: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["spark", *arguments]) == status
    assert sentence in capsys.readouterr().err
