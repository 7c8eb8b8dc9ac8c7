"""Text to tokens: documents, a tokenizer, and memory-mapped files of numbers.

    documents      blank lines part documents; a document never falls into two splits
    tokenizer      byte-level BPE (Hugging Face tokenizers), trained on the training documents or given; token 0 ends a document
    FOLDER/train.tokens, dev.tokens, test.tokens      the documents one after another, uint16 or uint32, little-endian
    FOLDER/tokens.json                                dtype, tokens, documents and UTF-8 bytes of each, the texts' names and sizes

Light: no PyTorch.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.errors import InputError
from tamis.writing import replacing

END = "<|end|>"
SPLITS = ("train", "dev", "test")
PERMILLE = {"dev": 10, "test": 10}
"""Of the documents; the rest is for training."""


@dataclass(frozen=True, slots=True)
class Split:
    """One file of tokens."""

    tokens: int
    documents: int
    bytes: int


def read_documents(path: Path) -> Iterator[str]:
    """The documents of a text file, plain, .gz or .xz. Raises InputError when it cannot be read or is no UTF-8."""
    openers: dict[str, Any] = {".xz": lzma.open, ".gz": gzip.open}
    lines: list[str] = []
    try:
        with openers.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    lines.append(line)
                elif lines:
                    yield "".join(lines)
                    lines = []
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: name the text files in it.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no UTF-8 text (0x{error.object[error.start]:02x}: {error.reason}): convert it first."
        ) from None
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or no {path.suffix} file ({error}).") from None
    if lines:
        yield "".join(lines)


def split_of(document: str) -> str:
    """train, dev or test, by the text alone: copies of a document stay together, and new files move nothing."""
    number = zlib.crc32(document.encode()) % 1000
    for name, size in PERMILLE.items():
        if number < size:
            return name
        number -= size
    return "train"


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer of at most `vocab_size` tokens. Deterministic."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise InputError(f"A vocabulary of {vocab_size} is too small: 256 bytes and the end mark need 257.")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def open_tokenizer(path: Path) -> Any:
    """A tokenizer.json. Raises InputError."""
    import tokenizers

    if not path.is_file():
        raise InputError(f"{path} does not exist: a tokenizer.json was expected there.")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more precise
        raise InputError(f"{path} is no tokenizer of Hugging Face tokenizers ({error}).") from None
    whole(tokenizer)
    return tokenizer


def whole(tokenizer: Any) -> None:
    """Neither cut nor fill a text: a tokenizer.json may say so, for the batches of some training, and nobody would notice."""
    tokenizer.no_truncation()
    tokenizer.no_padding()


def end_token(tokenizer: Any) -> int:
    """The number of the token that ends a document."""
    for name in (END, "<eos>", "<|endoftext|>", "</s>"):
        if (number := tokenizer.token_to_id(name)) is not None:
            return int(number)
    raise InputError(f"The tokenizer has no end mark: it needs one of {END}, <eos>, <|endoftext|>, </s>.")


def prepare(inputs: Iterable[Path], folder: Path, tokenizer: Any, least: int = 1) -> dict[str, Split]:
    """Write the token files of all documents into `folder`. Raises InputError when fewer than `least` tokens are for training."""
    end = end_token(tokenizer)
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4")
    count = {name: [0, 0, 0] for name in SPLITS}
    paths = list(inputs)
    with (
        replacing(folder / "train.tokens") as train,
        replacing(folder / "dev.tokens") as dev,
        replacing(folder / "test.tokens") as test,
    ):
        files = {name: path.open("wb") for name, path in zip(SPLITS, (train, dev, test), strict=True)}
        try:
            for chunk in _chunks(document for path in paths for document in read_documents(path)):
                for document, encoding in zip(chunk, tokenizer.encode_batch(chunk), strict=True):
                    ids = np.array([*encoding.ids, end], dtype)
                    name = split_of(document)
                    files[name].write(ids.tobytes())
                    sums = count[name]
                    sums[0] += len(ids)
                    sums[1] += 1
                    sums[2] += len(document.encode())
        finally:
            for file in files.values():
                file.close()
    splits = {name: Split(*sums) for name, sums in count.items()}
    if not splits["train"].documents:
        raise InputError(f"No text was found in {', '.join(map(str, paths))}.")
    if splits["train"].tokens < least:
        raise InputError(
            f"The training text has {splits['train'].tokens} tokens, a window needs {least}: "
            "give more text or a shorter --context."
        )
    with replacing(folder / "tokens.json") as beside:
        stored: dict[str, Any] = {"dtype": dtype.name, "texts": sources(paths)}
        stored |= {name: asdict(split) for name, split in splits.items()}
        beside.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    return splits


def sources(paths: Iterable[Path]) -> list[list[Any]]:
    """What tells texts apart at no cost: names and sizes in bytes. A folder that has moved holds the same texts."""
    return [[path.name, path.stat().st_size if path.is_file() else None] for path in paths]


def read_sources(folder: Path) -> list[list[Any]] | None:
    """The texts that tokens.json was made of; None where nobody noted them. Raises InputError."""
    read_splits(folder)  # or it is no tokens.json
    found: list[list[Any]] | None = json.loads((folder / "tokens.json").read_text(encoding="utf-8")).get(
        "texts"
    )
    return found


def describe(texts: Iterable[Sequence[Any]]) -> str:
    """The texts of `sources` in words."""
    return ", ".join(f"{name} (absent)" if size is None else f"{name} ({size} bytes)" for name, size in texts)


def read_splits(folder: Path) -> dict[str, Split]:
    """What tokens.json says. Raises InputError."""
    try:
        stored = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
        return {name: Split(**stored[name]) for name in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} holds no tokens that `tamis spark train` wrote ({error}).") from None


def open_tokens(folder: Path, split: str) -> NDArray[np.integer[Any]]:
    """The tokens of a split, memory-mapped. Raises InputError when the file is not as long as tokens.json says."""
    expected = read_splits(folder)[split].tokens
    dtype = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))["dtype"]
    path = folder / f"{split}.tokens"
    if not expected:
        return np.zeros(0, dtype)
    try:
        found: NDArray[np.integer[Any]] = np.memmap(path, dtype, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None
    if len(found) != expected:
        raise InputError(
            f"{path} holds {len(found)} tokens, tokens.json says {expected}: prepare the text again."
        )
    return found


def windows(tokens: NDArray[Any], length: int, count: int, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """`count` windows of length + 1 tokens at random places, [count, length + 1]. Depends on the seed alone."""
    if len(tokens) <= length + 1:
        raise InputError(
            f"The training text has {len(tokens)} tokens, a window needs {length + 2}: give more text or a shorter --context."
        )
    starts = np.random.default_rng(seed).integers(0, len(tokens) - length - 1, count)
    return np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)


def _chunks(documents: Iterable[str], characters: int = 2_000_000) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
