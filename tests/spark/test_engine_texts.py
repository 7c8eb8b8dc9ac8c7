"""What the engine makes of texts: streaming, several with one seed, tokenizers of other kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tamis.errors import UsageError
from tamis.spark.engine import Engine, _unsure, load
from tamis.spark.packed import Packed
from tamis.spark.published import shipped

PROMPT = "The design of the website"


def engine_of(packed: Packed, sequences: int = 1) -> Engine:
    from tamis.spark.decoder import Portable

    return Engine(packed, Portable(packed, sequences), 64, sequences)


@pytest.fixture(scope="module")
def packed() -> Packed:
    return load(shipped(), "f32")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine.open(shipped(), dtype="f32", context=64, sequences=2) as opened:
        yield opened


def test_a_stream_does_not_mix_with_a_text_begun_meanwhile(engine: Engine) -> None:
    whole = engine.generate(PROMPT, max_tokens=12).text
    pieces = engine.stream(PROMPT, max_tokens=12)
    begun = next(pieces)
    assert whole.startswith(begun)
    engine.generate("Another", max_tokens=2)
    with pytest.raises(UsageError, match="Another text was begun with this engine"):
        list(pieces)
    assert "".join(engine.stream(PROMPT, max_tokens=12)) == whole


def test_prompts_of_one_seed_differ_and_not_by_how_many_run_at_once(engine: Engine) -> None:
    settings = {"max_tokens": 8, "temperature": 1.5, "seed": 1}
    side_by_side = engine.generate_many([PROMPT] * 5, **settings)
    assert len({made.tokens for made in side_by_side}) == 5
    with Engine.open(shipped(), dtype="f32", context=64) as alone:
        assert [made.tokens for made in alone.generate_many([PROMPT] * 5, **settings)] == [
            made.tokens for made in side_by_side
        ]
        assert alone.generate(PROMPT, **settings) == side_by_side[0]


@pytest.mark.parametrize(
    "asked", [{"threads": 0}, {"threads": 5000}, {"sequences": 0}, {"sequences": 1 << 40}]
)
def test_as_many_as_nobody_means_are_refused(asked: dict[str, int]) -> None:
    name, number = next(iter(asked.items()))
    with pytest.raises(UsageError, match=f"{number} {name} were asked for; 1 to 4096"):
        Engine.open(shipped(), **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "stop", "waits"),
    [
        ("x", ["ab"], 0),
        ("xa", ["ab", "abc"], 1),
        ("xab", ["abc", "ba"], 2),
        ("x\ufffd", [], 1),
        ("x\ufffd\ufffd", ["x"], 2),
        ("x\ufffd", ["x\u00e9"], 2),  # the character under way may be the stop string's second
        ("ab\ufffd", ["abc"], 3),
    ],
)
def test_what_may_become_another_text_waits(text: str, stop: list[str], waits: int) -> None:
    assert _unsure(text, stop) == waits


def test_a_tokenizer_that_cuts_or_fills_texts_does_neither(packed: Packed) -> None:
    assert packed.tokenizer is not None
    tokenizer = Tokenizer.from_str(packed.tokenizer)
    tokenizer.enable_truncation(3)
    short = engine_of(replace(packed, tokenizer=tokenizer.to_str())).encode(PROMPT)
    tokenizer.no_truncation()
    tokenizer.enable_padding(length=20)
    long = engine_of(replace(packed, tokenizer=tokenizer.to_str())).encode(PROMPT)
    assert short == long == engine_of(packed).encode(PROMPT) and len(short) > 3


def test_the_space_after_the_prompt_is_kept_by_decoders_that_drop_a_text_s_first(packed: Packed) -> None:
    words = {f"\u2581w{n}": n for n in range(packed.config["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="\u2581w0"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    with engine_of(replace(packed, tokenizer=tokenizer.to_str())) as engine:
        made = engine.generate("w5 w7", max_tokens=2)
        assert made.text == "".join(f" w{token}" for token in made.tokens)
        assert "".join(engine.stream("w5 w7", max_tokens=2)) == made.text
