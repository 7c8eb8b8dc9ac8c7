"""Generate text on a CPU, without PyTorch.

    with Engine.open("model.spark") as engine:
        print(engine.generate("Once upon a time", max_tokens=40).text)
        for piece in engine.stream("Once upon a time", temperature=0.8, seed=1):
            print(piece, end="", flush=True)
        several = engine.generate_many(["One", "Two"], max_tokens=10)

A model is a packed file (`tamis spark export`) or a checkpoint folder, which is packed in memory first.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis import native
from tamis.errors import InputError, MissingExtraError, UsageError
from tamis.processors import processors
from tamis.spark.checkpoint import read_model
from tamis.spark.decoder import Counts, Decoder, Native, Portable, cache_bytes, require_memory
from tamis.spark.packed import Packed, Recipe, pack, read
from tamis.spark.sampling import Sampler, Sampling
from tamis.spark.tokens import whole

CHUNK_ROWS = 256
"""Tokens of a prompt computed together: weights are read once for all of them."""
MOST = 4096
"""Threads, and sequences, that may be asked for: more is a slip of the hand."""
TAIL = 8
"""Tokens of the prompt that are decoded with what follows: some decoders drop the space before a text's first word."""
Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Generation:
    """One continued prompt."""

    text: str
    """What follows the prompt; empty without a tokenizer."""
    tokens: tuple[int, ...]
    """What follows the prompt, without the token that ended it."""
    prompt_tokens: int
    ended: str
    """stop (a stop string), end (the model's end token), or length (max_tokens or the context)."""


@dataclass(slots=True)
class _Sequence:
    """One sequence that is being continued."""

    slot: int
    prompt: list[int]
    sampler: Sampler
    most: int
    given: str
    """The end of the prompt, as text."""
    use: int = 0
    """Of its slot: another sequence that takes the slot counts on."""
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    ended: str = ""

    @property
    def position(self) -> int:
        """Of the last token, the one to feed next."""
        return len(self.prompt) + len(self.tokens) - 1


def _made(s: _Sequence) -> Generation:
    return Generation(s.text, tuple(s.tokens), len(s.prompt), s.ended)


class Engine:
    """A model that continues prompts, several at once."""

    def __init__(self, packed: Packed, decoder: Decoder, context: int, sequences: int) -> None:
        self.packed, self.decoder, self.context, self.sequences = packed, decoder, context, sequences
        self.vocabulary: int = packed.config["vocab_size"]
        ends = packed.config.get("eos_token_id")
        self.end_tokens = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        self.tokenizer = _tokenizer(packed)
        self._uses = [0] * sequences
        self._turn = Lock()  # the decoder has one scratch

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        dtype: str | None = None,
        threads: int | None = None,
        isa: str | None = None,
        context: int | None = None,
        sequences: int = 1,
    ) -> Engine:
        """A packed file, or a checkpoint folder, whose weights become `dtype` (bf16 unless said: f32, bf16, int8).

        threads: by default all cores; isa: see `tamis.native`; context: cached tokens a sequence, by default as many as the
        model knows, at most 8192; sequences: how many are continued at once. Raises InputError, UsageError.
        """
        path = Path(path)
        for what, asked in (("threads", threads), ("sequences", sequences)):
            if asked is not None and not 1 <= asked <= MOST:
                raise UsageError(f"{asked} {what} were asked for; 1 to {MOST} can be had.")
        chosen = native.chosen(isa)
        packed = load(path, dtype)
        longest = packed.config["max_position_embeddings"]
        context = min(longest, 8192) if context is None else context
        if not 1 <= context <= longest:
            raise UsageError(f"A context of {context} tokens was asked for; {path} knows 1 to {longest}.")
        if chosen is None:
            return cls(packed, Portable(packed, sequences), context, sequences)
        kept = packed.recipe.dtype
        rows = max(CHUNK_ROWS, sequences)
        require_memory(
            cache_bytes(packed.config, kept, context, sequences, rows),
            f"the cache of {sequences} x {context} tokens",
        )
        decoder = Native(
            packed,
            chosen,
            threads=threads or processors(),
            context=context,
            slots=sequences,
            rows=rows,
        )
        return cls(packed, decoder, context, sequences)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.decoder.close()

    @property
    def counts(self) -> Counts:
        """Tokens, active neurons and attended keys so far."""
        return self.decoder.counts

    def generate(
        self, prompt: Prompt, *, max_tokens: int = 128, stop: Sequence[str] = (), **sampling: Any
    ) -> Generation:
        """Continue a prompt, a text or token numbers. sampling: temperature, top_k, top_p, seed."""
        return self.generate_many([prompt], max_tokens=max_tokens, stop=stop, **sampling)[0]

    def generate_many(
        self, prompts: Sequence[Prompt], *, max_tokens: int = 128, stop: Sequence[str] = (), **sampling: Any
    ) -> list[Generation]:
        """Continue several prompts, as many at once as the engine was opened for, which changes nothing in the texts."""
        settings = Sampling(**sampling)
        made: list[Generation] = []
        for first in range(0, len(prompts), self.sequences):
            group = prompts[first : first + self.sequences]
            running = [
                self._start(slot, prompt, max_tokens, Sampler(settings, first + slot))
                for slot, prompt in enumerate(group)
            ]
            for _ in self._continue(running, stop):
                pass
            made += map(_made, running)
        return made

    def stream(
        self, prompt: Prompt, *, max_tokens: int = 128, stop: Sequence[str] = (), **sampling: Any
    ) -> Generator[str, None, Generation]:
        """The continuation piece by piece. What could be the beginning of a stop string waits until it is not.

        Raises what `generate` raises, at once and not with the first piece; returns, as generators do, what `generate` would.
        An engine streams one text at a time: a piece asked for after another text was begun raises UsageError.
        """
        return self._pieces(self._start(0, prompt, max_tokens, Sampler(Sampling(**sampling))), stop)

    def _pieces(self, sequence: _Sequence, stop: Sequence[str]) -> Generator[str, None, Generation]:
        shown = 0
        for _ in self._continue([sequence], stop):
            text = sequence.text
            ready = len(text) if sequence.ended else len(text) - _unsure(text, stop)
            if ready > shown:
                yield text[shown:ready]
                shown = ready
        return _made(sequence)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token numbers of a prompt. Raises InputError when it is empty or leaves the vocabulary."""
        if isinstance(prompt, str):
            if any("\ud800" <= letter <= "\udfff" for letter in prompt):
                raise InputError(
                    "The prompt is no text: it holds bytes that are no UTF-8, or half a character."
                )
            if self.tokenizer is None:
                raise InputError(
                    "This model has no tokenizer.json beside it, so a prompt must be token numbers, not text."
                )
            tokens = self.tokenizer.encode(prompt).ids
        else:
            tokens = [int(token) for token in prompt]
        if not tokens:
            raise InputError("The prompt is empty: the model needs at least one token to continue.")
        for token in tokens:
            if not 0 <= token < self.vocabulary:
                raise InputError(f"Token {token} is outside the vocabulary of {self.vocabulary}.")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return "" if self.tokenizer is None else self.tokenizer.decode(list(tokens))

    def _start(self, slot: int, prompt: Prompt, max_tokens: int, sampler: Sampler) -> _Sequence:
        if max_tokens < 1:
            raise UsageError(f"{max_tokens} tokens were asked for; at least 1 is needed.")
        tokens = self.encode(prompt)
        if len(tokens) > self.context:
            raise InputError(
                f"The prompt has {len(tokens)} tokens, the context holds {self.context}: shorten it, or open the model "
                f"with a larger context (it knows {self.packed.config['max_position_embeddings']})."
            )
        # The last token that is chosen needs no place: it is not fed back.
        most = min(max_tokens, self.context - len(tokens) + 1)
        return _Sequence(slot, tokens, sampler, most, self.decode(tokens[-TAIL:]))

    def _continue(self, running: Sequence[_Sequence], stop: Sequence[str]) -> Iterator[None]:
        """Feed prompts, then one token of every unfinished sequence a step; yields after each."""
        for sequence in running:
            with self._turn:
                self._uses[sequence.slot] += 1
                sequence.use = self._uses[sequence.slot]
                logits = self._prefill(sequence)
            self._take(sequence, logits, stop)
        yield
        while unfinished := [s for s in running if not s.ended]:
            with self._turn:
                if any(s.use != self._uses[s.slot] for s in unfinished):
                    raise UsageError(
                        "Another text was begun with this engine before this one came to its end: let one be finished first, or "
                        "open a second engine."
                    )
                logits = self.decoder.step(
                    [s.tokens[-1] for s in unfinished],
                    [s.slot for s in unfinished],
                    [s.position for s in unfinished],
                    range(len(unfinished)),
                )
            for sequence, row in zip(unfinished, logits, strict=True):
                self._take(sequence, row, stop)
            yield

    def _prefill(self, sequence: _Sequence) -> Any:
        """Logits after the prompt."""
        logits: NDArray[np.floating[Any]] = np.empty((0, self.vocabulary))
        for first in range(0, len(sequence.prompt), CHUNK_ROWS):
            tokens = sequence.prompt[first : first + CHUNK_ROWS]
            wanted = [len(tokens) - 1] if first + CHUNK_ROWS >= len(sequence.prompt) else []
            logits = self.decoder.step(
                tokens, [sequence.slot] * len(tokens), range(first, first + len(tokens)), wanted
            )
        return logits[0]

    def _take(self, s: _Sequence, logits: Any, stop: Sequence[str]) -> None:
        """Choose a token and see whether the sequence has ended."""
        token = s.sampler(logits)
        if token in self.end_tokens:
            s.ended = "end"
            return
        s.tokens.append(token)
        s.text = self._follows(s)
        found = [at for word in stop if word and (at := s.text.find(word)) >= 0]
        if found:
            s.text, s.ended = s.text[: min(found)], "stop"
        elif len(s.tokens) >= s.most:
            s.ended = "length"

    def _follows(self, s: _Sequence) -> str:
        """The text of its new tokens, as it stands behind the prompt."""
        whole = self.decode([*s.prompt[-TAIL:], *s.tokens])
        # A prompt of tokens may end within a character: then what was its end is another one now.
        return whole[len(s.given) :] if whole.startswith(s.given) else self.decode(s.tokens)


def load(path: Path, dtype: str | None = None) -> Packed:
    """A packed file, or a checkpoint folder packed in memory."""
    if path.is_dir():
        config, tensors = read_model(path)
        check_decodable(config, path)
        recipe = Recipe(dtype or "bf16")
        width = {"f32": 4, "bf16": 2, "int8": 1}[recipe.dtype]
        numbers = sum(tensor.size for tensor in tensors.values())
        require_memory(width * numbers, f"the weights of {path} as {recipe.dtype}")
        return pack(config, tensors, recipe, read_tokenizer(path))
    if not path.exists():
        raise InputError(f"{path} does not exist: name a packed model or a checkpoint folder.")
    packed = read(path)
    if dtype is not None and dtype != packed.recipe.dtype:
        raise UsageError(f"{path} holds {packed.recipe.dtype} weights, not {dtype}: export the model again.")
    return packed


def check_decodable(config: dict[str, Any], source: Path) -> None:
    """Raise InputError for what only the training code computes."""
    for name, value in (("topk_method", "statistical"), ("ffn_cut", "soft"), ("attention_gate", "softplus")):
        if config.get(name, value) != value:
            raise InputError(f"{source} has {name} {config[name]!r}; the engine computes {value!r} only.")


def read_tokenizer(folder: Path) -> str | None:
    """The text of FOLDER/tokenizer.json, None without one. Raises InputError when it is no text."""
    path = folder / "tokenizer.json"
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except UnicodeDecodeError:
        raise InputError(f"{path} is damaged: it is no UTF-8 text. Copy it again.") from None


def _tokenizer(packed: Packed) -> Any:
    if packed.tokenizer is None:
        return None
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("tokenizers", "spark") from None
    try:
        tokenizer = Tokenizer.from_str(packed.tokenizer)
        whole(tokenizer)
        return tokenizer
    except Exception as error:  # noqa: BLE001 - the library raises nothing more particular
        raise InputError(
            f"The tokenizer.json of {packed.source or 'this model'} is damaged or none of the library tokenizers ({error}): "
            "copy it again."
        ) from None


def _unsure(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end may still become part of a stop string, or of an unfinished character."""
    # A byte-level tokenizer shows U+FFFD until all bytes of a character are there; a stop string may have begun before it.
    settled = text.rstrip("\ufffd")
    begun = max((n for word in stop for n in range(1, len(word)) if settled.endswith(word[:n])), default=0)
    return len(text) - len(settled) + begun
